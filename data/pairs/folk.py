"""Folk songs of the Essen collection: attributes from the data set `retrieval`, notes from the user's own music21."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from data.cohort.read import UNREADABLE
from data.errors import DataError
from data.music.abc_books import music21_songs, read_books
from data.music.melody import Notes
from data.pairs.items import Pairs, PairSource, Side, galleries_of_splits
from data.sources import resolve, source

ATTRIBUTES = ("region", "metre", "function", "key")
PACKED = "essen_abc.zip"
CREDIT = ("Essen folk song collection, as packed in music21", "non-commercial use only")


class FolkPairs(PairSource):
    """Melodies and captions that are built from region, function, metre, key and title.

    Attributes for conditions: region (24), metre, function (the first of a song's functions), key. The notes are not
    part of the data set: their licence allows them within music21 only. Songs without notes are left out, and the
    account says how many.

    Args:
        folder: of essen_attributes.jsonl.gz; default: the data set `retrieval`
        notes: folder or zip of the ABC files; None = all of the installed music21, else the 3,214 songs in the data
            set `music`
    """

    def __init__(self, folder: str = "retrieval/folk", notes: str | None = None):
        self.folder, self.notes = folder, notes

    def _read(self) -> Pairs:
        place = resolve(self.folder)
        table = place / "essen_attributes.jsonl.gz" if place.is_dir() else place
        songs = _songs(table)
        notes = resolve(self.notes) if self.notes else song_books()
        books = dict(read_books(notes))
        melodies: list[Notes] = []
        kept: list[int] = []
        missing, faults = 0, []
        for row, (file, number) in enumerate(zip(songs["file"], songs["x"], strict=True)):
            tune = books.get(file, {}).get(number)
            if tune is None:
                missing += 1
                continue
            try:
                melodies.append(tune.notes())
                kept.append(row)
            except DataError as fault:
                faults.append(f"{file} {fault}")
        if not kept:
            raise DataError(f"{notes}: none of the {len(songs)} songs is here; give the ABC files of the collection")
        songs = songs.iloc[kept].reset_index(drop=True)
        account = [f"{len(songs)} songs with notes from {notes.name}"]
        if missing:
            account.append(
                f"{missing} songs without notes are left out: their ABC file is not in {notes}; music21 (the extra "
                "`folk`) has all of them"
            )
        return folk_pairs(songs, melodies, account + faults)


def _songs(path: Path) -> pd.DataFrame:
    try:
        songs = pd.read_json(path, lines=True, dtype=False, convert_dates=False)
    except (*UNREADABLE, ValueError, KeyError, TypeError) as problem:
        raise DataError(f"{path}: not readable as JSON lines ({problem}); fetch or import the data set again") from None
    kinds = {**dict.fromkeys(("file", "split", "caption", "title"), str), "x": int, "functions_en": list}
    for name in (*kinds, "region", "metre", "key"):
        kind = kinds.get(name, object)
        if name not in songs or not songs[name].map(lambda value, kind=kind: isinstance(value, kind)).all():
            raise DataError(f"{path}: column {name!r} is missing or damaged; fetch or import the data set again")
    return songs


def folk_pairs(songs: pd.DataFrame, melodies: list[Notes], account: list[str]) -> Pairs:
    """Songs and captions; songs of one caption in one split share it.

    Args:
        songs: rows of the data set
        melodies: their notes
        account: what was read
    """
    captions: dict[tuple[str, str], int] = {}
    matches: list[tuple[int, ...]] = [
        (captions.setdefault((split, caption), len(captions)),)
        for split, caption in zip(songs["split"], songs["caption"], strict=True)
    ]
    ids = [f"{file.removesuffix('.abc')}-{x}" for file, x in zip(songs["file"], songs["x"], strict=True)]
    functions = [said[0] if said else None for said in songs["functions_en"]]
    table = songs[["split", "title", "region", "metre", "key"]].assign(
        function=functions, attribution=CREDIT[0], licence=CREDIT[1]
    )
    table = table.astype(object).where(table.notna(), None)
    table.index = pd.Index(ids)
    texts = [caption for _, caption in captions]
    right_ids = [f"caption-{row}" for row in range(len(texts))]
    right_table = pd.DataFrame({"split": [split for split, _ in captions]}, index=right_ids)
    return Pairs(
        "folk songs",
        Side("melody", ids, lambda rows: [melodies[row] for row in rows]),
        Side("text", right_ids, lambda rows: [texts[row] for row in rows]),
        matches,
        table,
        right_table,
        galleries_of_splits(table, right_table),
        ATTRIBUTES,
        account,
    )


def song_books() -> Path:
    """Where the notes of the Essen songs are: in the installed music21, else in a data set.

    Raises:
        DataError: neither is here
    """
    try:
        return music21_songs()
    except DataError:
        packed = source("music").folder / PACKED
        if packed.is_file():
            return packed
        raise DataError(
            "the notes of the folk songs are not here: pip install 'multimodal-fusion[folk]' for all of them "
            "(music21), `fusion data import music --from FOLDER` for 3,214, or set notes to a folder or zip of ABC"
        ) from None
