"""Items and what is said about them: pictures in a folder, or any other items, with a table of captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from data.errors import DataError
from data.pairs.items import Pairs, PairSource, Side, galleries_of_splits
from data.pairs.pictures import PICTURES, Fit
from data.pairs.sources import ItemSource, PictureFiles, says_nothing
from data.pairs.tables import TABLES, column, read_rows, splits
from data.sources import resolve
from data.text.reading import read_text

CREDITS = ("attribution", "licence")


class Captions(PairSource):
    """Items of any modality and a table of captions: slides and reports, brains and captions, tunes and their words.

    An item may have several captions (several rows), and a caption several items. The columns `split`, `attribution`
    and `licence` are read when they are there; every other column is an attribute of the item. Without `split`, items
    are split by a hash of their key, 70/15/15.

    Args:
        items: what the captions are about
        captions: .csv, .tsv or .jsonl
        item: column with the item's key: its path below the folder of pictures or MIDI files, its slide, its id
        caption: column of the captions
    """

    def __init__(self, items: ItemSource, captions: str, item: str = "item", caption: str = "caption"):
        self.items, self.captions, self.item, self.caption = items, captions, item, caption

    def _read(self) -> Pairs:
        path = resolve(self.captions)
        table = read_rows(path)
        keys, texts = column(table, self.item, path), column(table, self.caption, path)
        table = table.drop(columns=[self.item, self.caption])
        return captioned(path.stem, self.items, keys, texts, table, str(path))


class ImageCaptions(PairSource):
    """Pictures and their captions.

    Args:
        captions: .csv, .tsv or .jsonl (see `Captions`), or a folder of pictures where `cat.jpg` lies beside `cat.txt`
            with a caption on every line
        images: folder of the pictures that a table names; None = the table's own folder
        side: pixels that pictures are brought to
        fit: "crop" fills the square and cuts what stands out, "pad" keeps everything and adds white
        item: column with the picture's path below `images`
        caption: column of the captions
    """

    def __init__(
        self,
        captions: str,
        images: str | None = None,
        side: int = 224,
        fit: Fit = "crop",
        item: str = "image",
        caption: str = "caption",
    ):
        self.captions, self.images, self.side, self.fit = captions, images, side, fit
        self.item, self.caption = item, caption

    def _read(self) -> Pairs:
        path = resolve(self.captions)
        folder = path if path.is_dir() else path.parent if self.images is None else resolve(self.images)
        pictures = PictureFiles(str(folder), self.side, self.fit)
        if path.is_dir():
            keys, texts = beside(path)
            return captioned(path.name, pictures, keys, texts, pd.DataFrame(index=range(len(keys))), str(path))
        if path.suffix.lower() not in TABLES:
            raise DataError(
                f"{path}: expected a folder of pictures, or a table that ends in {', '.join(sorted(TABLES))}"
            )
        return Captions(pictures, str(path), self.item, self.caption).load()


def beside(folder: Path) -> tuple[list[str], list[str | None]]:
    """Pictures of a folder and the captions of the text files of the same name, one per line."""
    keys: list[str] = []
    texts: list[str | None] = []
    for path in sorted(f for f in folder.rglob("*") if f.suffix.lower() in PICTURES and not f.name.startswith(".")):
        text = path.with_suffix(".txt")
        lines = read_text(text).splitlines() if text.is_file() else [""]
        keys += [path.relative_to(folder).as_posix()] * max(1, len(lines))
        texts += lines or [""]
    return keys, texts


def captioned(
    name: str,
    items: ItemSource,
    keys: Sequence[str | None],
    texts: Sequence[str | None],
    table: pd.DataFrame,
    where: str,
) -> Pairs:
    """Pairs of items and captions, row by row.

    Args:
        name: of the collection
        items: what the captions are about
        keys: of the item of each row
        texts: caption of each row
        table: what else each row says
        where: the table's place, for messages

    Raises:
        DataError: not one item has a caption
    """
    account: list[str] = []
    said: dict[str, list[str]] = {}
    first: dict[str, int] = {}
    for row, (key, text) in enumerate(zip(keys, texts, strict=True)):
        if key is None:
            account.append(f"{where}: row {row + 1} names no item and is left out")
        elif text is None or says_nothing(text):
            account.append(f"{where}: the caption of {key} is empty and left out")
        else:
            first.setdefault(key, row)
            tidy = " ".join(text.split())
            if tidy not in said.setdefault(key, []):
                said[key].append(tidy)
    if not said:
        raise DataError(f"{where}: no item has a caption{f' ({account[0]})' if account else ''}")
    found = items.read(list(said))
    side = found.side
    rows = [first[key] for key in side.ids]
    about = table.iloc[rows].copy()
    about.index = pd.Index(side.ids)
    stated = about["split"].tolist() if "split" in about else [None] * len(side)
    about["split"] = splits(stated, side.ids, where)
    for credit in CREDITS:
        if credit not in about:
            about[credit] = None
    captions: dict[tuple[str, str], int] = {}
    matches = [
        tuple(captions.setdefault((split, text), len(captions)) for text in said[key])
        for key, split in zip(side.ids, about["split"], strict=True)
    ]
    spoken = [text for _, text in captions]
    right_ids = [f"caption-{row + 1}" for row in range(len(spoken))]
    right_table = pd.DataFrame({"split": [split for split, _ in captions]}, index=right_ids)
    attributes = tuple(str(c) for c in about.columns if c not in ("split", *CREDITS))
    counted = f"{len(side)} items with {len(spoken)} captions"
    return Pairs(
        name,
        side,
        Side("text", right_ids, lambda at: [spoken[row] for row in at]),
        matches,
        about,
        right_table,
        galleries_of_splits(about, right_table),
        attributes,
        [counted, *account, *found.notes],
    )
