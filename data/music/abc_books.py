"""Folders and zips of ABC files, and the one that the user's own music21 holds."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Iterator
from pathlib import Path

from data.errors import DataError
from data.music.abc import Tune, tunes
from data.zips import ZIP_FAULTS


def music21_songs() -> Path:
    """Where the installed music21 keeps the Essen songs; it is not imported.

    Raises:
        DataError: it is not installed
    """
    found = importlib.util.find_spec("music21")
    if found is None or found.origin is None:
        raise DataError(
            "the songs are read from your own music21: pip install 'multimodal-fusion[folk]', or set notes to a folder "
            "or zip of the ABC files"
        )
    return Path(found.origin).parent / "corpus" / "essenFolksong"


def read_books(place: Path) -> Iterator[tuple[str, dict[int, Tune]]]:
    """File name -> its tunes, of every ABC file in a folder or zip.

    Raises:
        DataError: it is neither, or a file is broken
    """
    if place.is_dir():
        for path in sorted(place.glob("*.abc")):
            yield path.name, read_book(path)
        return
    try:
        with zipfile.ZipFile(place) as packed:
            for name in sorted(packed.namelist()):
                if name.endswith(".abc"):
                    yield Path(name).name, tunes(packed.read(name).decode("latin-1"))
    except DataError as fault:
        raise DataError(f"{place}: {fault}") from None
    except ZIP_FAULTS as problem:
        raise DataError(f"{place}: not readable as a zip of ABC files ({problem}); replace it") from None


def read_book(path: Path) -> dict[int, Tune]:
    """The tunes of one ABC file; the Essen collection writes Latin-1, others UTF-8.

    Raises:
        DataError: not readable, or no tune in it
    """
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise DataError(f"{path}: {problem.strerror or problem}; correct the path") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    try:
        found = tunes(text)
    except DataError as fault:
        raise DataError(f"{path}: {fault}") from None
    if not found:
        raise DataError(f"{path}: no tune in it (a tune begins with X:1); replace it")
    return found
