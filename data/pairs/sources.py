"""Items of one modality from the user's files: pictures, melodies and texts, each under a key that names it."""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from data.errors import DataError
from data.pairs.items import RawBatch, Side
from data.pairs.melodies import MELODIES, Notes, read_melody
from data.pairs.pictures import PICTURES, Fit, Progress, check_pictures, read_picture
from data.pairs.tables import TABLES, column, read_rows
from data.sources import resolve
from data.text.reading import read_text

EXAMPLES = 10


@dataclass(frozen=True)
class Found:
    """Items, and what was left out.

    Attributes:
        side: the items that can be used
        notes: one line on each that cannot, or of which a part is used
    """

    side: Side
    notes: list[str] = field(default_factory=list)


class ItemSource(ABC):
    """Where items of one modality come from.

    Attributes:
        modality: name of their side
    """

    modality: ClassVar[str]

    @abstractmethod
    def read(self, keys: Sequence[str] | None = None) -> Found:
        """Find and check items.

        Args:
            keys: of the items that are wanted; None = all. A key without an item is noted and left out

        Raises:
            DataError: no item can be used
        """


class FileItems(ItemSource):
    """One file per item, named by its path below a folder.

    Args:
        folder: of the files, below it at any depth; or one file
    """

    suffixes: ClassVar[frozenset[str]]

    def __init__(self, folder: str):
        self.folder = folder

    def read(self, keys: Sequence[str] | None = None, progress: Progress | None = None) -> Found:
        """Find the files and read each once, so that none fails later.

        Args:
            keys: paths below the folder; None = all
            progress: told how many are read, and of how many

        Raises:
            DataError: no file can be used
        """
        place = resolve(self.folder)
        root = place.parent if place.is_file() else place
        if keys is not None:
            named = list(dict.fromkeys(keys))
        elif place.is_file():
            named = [place.name]
        else:
            files = (f for f in place.rglob("*") if f.suffix.lower() in self.suffixes and not f.name.startswith("."))
            named = sorted(f.relative_to(root).as_posix() for f in files)
        good, notes = self._checked(root, named, progress)
        if not good and place.is_file() and notes:
            raise DataError(notes[0].removesuffix("; left out"))
        if not good:
            kind = ", ".join(sorted(self.suffixes))
            raise DataError(f"{place}: no {self.modality} can be used here ({kind}){_first(notes)}")
        paths = [root / key for key in good]
        return Found(Side(self.modality, good, lambda rows: self._load([paths[row] for row in rows]), paths), notes)

    @abstractmethod
    def _checked(self, root: Path, keys: list[str], progress: Progress | None) -> tuple[list[str], list[str]]:
        """Keys of the files that can be read, and a line on each of the others."""

    @abstractmethod
    def _load(self, paths: list[Path]) -> RawBatch:
        """The items of these files."""


class PictureFiles(FileItems):
    """Pictures in a folder.

    Args:
        folder: of the pictures, at any depth; or one picture
        side: pixels they are brought to
        fit: "crop" fills the square and cuts what stands out, "pad" keeps everything and adds white
    """

    modality = "image"
    suffixes = PICTURES

    def __init__(self, folder: str, side: int = 224, fit: Fit = "crop"):
        super().__init__(folder)
        if side < 1:
            raise ValueError(f"side={side}: expected at least 1 pixel")
        self.side, self.fit = side, fit

    def _checked(self, root: Path, keys: list[str], progress: Progress | None) -> tuple[list[str], list[str]]:
        checked = check_pictures([root / key for key in keys], self.side, progress)
        good = {path.as_posix() for path in checked.good}
        return [key for key in keys if (root / key).as_posix() in good], [
            *(f"{fault}; left out" for fault in checked.faults),
            *checked.notes,
        ]

    def _load(self, paths: list[Path]) -> np.ndarray:
        return np.stack([read_picture(path, self.side, self.fit) for path in paths])


class MelodyFiles(FileItems):
    """Melodies in a folder of MIDI files.

    Args:
        folder: of the files, at any depth; or one file
    """

    modality = "melody"
    suffixes = MELODIES

    def _checked(self, root: Path, keys: list[str], progress: Progress | None) -> tuple[list[str], list[str]]:
        good, notes = [], []
        for done, key in enumerate(keys, start=1):
            try:
                read_melody(root / key)
            except DataError as fault:
                notes.append(f"{fault}; left out")
            else:
                good.append(key)
            if progress is not None:
                progress(done, len(keys))
        return good, notes

    def _load(self, paths: list[Path]) -> list[Notes]:
        return [read_melody(path) for path in paths]


class Texts(ItemSource):
    """Texts of a table, or of text files with one text each.

    Args:
        place: .csv, .tsv or .jsonl, a .txt file with a text on every line, or a folder of .txt files
        text: column of the texts
        id: column of the keys; None = the column "id" if there is one, else the number of the row
    """

    modality = "text"

    def __init__(self, place: str, text: str = "caption", id: str | None = None):
        self.place, self.text, self.id = place, text, id

    def read(self, keys: Sequence[str] | None = None) -> Found:
        path = resolve(self.place)
        if path.is_dir():
            files = sorted(path.rglob("*.txt"))
            pairs = [(f.relative_to(path).with_suffix("").as_posix(), read_text(f)) for f in files]
        elif path.suffix.lower() in TABLES:
            table = read_rows(path)
            named = self.id or ("id" if "id" in table else None)
            ids = [str(k + 1) for k in range(len(table))] if named is None else column(table, named, path)
            texts = column(table, self.text, path)
            pairs = [(key or str(k + 1), text or "") for k, (key, text) in enumerate(zip(ids, texts, strict=True))]
        else:
            lines = read_text(path).splitlines()
            pairs = [(str(k + 1), line) for k, line in enumerate(lines)]
        good, notes = usable_texts(pairs, str(path))
        return chosen(self.modality, good, notes, keys, str(path))


def says_nothing(text: str) -> bool:
    """Whether a text is empty: no character, or none but blanks and invisible ones, of which no tower makes a token."""
    return all(unicodedata.category(mark) in ("Cc", "Cf", "Zs", "Zl", "Zp") for mark in text)


def usable_texts(pairs: Iterable[tuple[str, str]], where: str) -> tuple[dict[str, str], list[str]]:
    """Key -> text, and a line on each that is empty or whose key stood there before."""
    good: dict[str, str] = {}
    notes = []
    for key, text in pairs:
        if says_nothing(text):
            notes.append(f"{where}: text {key} is empty and left out")
        elif key in good:
            notes.append(f"{where}: id {key} stands twice, the first is kept")
        else:
            good[key] = " ".join(text.split())
    return good, notes


def chosen(
    modality: str, items: dict[str, object] | dict[str, str], notes: list[str], keys: Sequence[str] | None, where: str
) -> Found:
    """Items in memory, those that are wanted.

    Raises:
        DataError: not one of them is there
    """
    wanted = list(items) if keys is None else list(dict.fromkeys(keys))
    notes = [*notes, *(f"{where}: no {modality} {key}" for key in wanted if key not in items)]
    ids = [key for key in wanted if key in items]
    if not ids:
        raise DataError(f"{where}: no {modality} can be used here{_first(notes)}")
    return Found(Side(modality, ids, lambda rows: [items[ids[row]] for row in rows]), notes)


def _first(notes: Sequence[str]) -> str:
    return f": {notes[0]}" if notes else ""
