"""Melody files of any kind the house reads: MIDI, ABC, **kern and JSON; one file or a folder of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from data.errors import DataError
from data.music.abc_books import read_book
from data.music.kern import read_kern
from data.music.melody import Melody
from data.music.midi_in import Reader
from data.music.midi_melody import read_melody
from data.music.song_files import read_songs
from data.sources import resolve

ENDINGS = (".mid", ".midi", ".abc", ".krn", ".kern", ".json", ".xz")


def read_file(path: Path, track: str | int | None = None, reader: Reader | None = None) -> list[Melody]:
    """The melodies of a file: one of MIDI and **kern, one or more of ABC and JSON.

    Args:
        path: of the file; its ending says what it is
        track: of a MIDI file (name or number), or number of the spine of a **kern file
        reader: of MIDI

    Raises:
        DataError: not of a known kind, or the first fault in it
    """
    found = []
    for melody in read_each(path, track, reader):
        if isinstance(melody, DataError):
            raise melody
        found.append(melody)
    return found


def read_each(path: Path, track: str | int | None = None, reader: Reader | None = None) -> Iterator[Melody | DataError]:
    """The same, one after the other: a broken tune of an ABC file is given as its fault, and the others follow."""
    ending = path.suffix.lower()
    try:
        if ending == ".abc":
            yield from _tunes(path)
        elif ending in (".json", ".xz"):
            yield from read_songs(path)
        elif ending in (".mid", ".midi"):
            yield read_melody(path, track, reader)
        elif ending in (".krn", ".kern"):
            if isinstance(track, str) and not track.isdecimal():
                raise DataError(f"{path}: no spine {track!r}; name its number, from 0")
            yield read_kern(path, None if track is None else int(track))
        else:
            raise DataError(f"{path}: not a melody file ({', '.join(ENDINGS)}); convert it")
    except DataError as fault:
        yield fault


def _tunes(path: Path) -> Iterator[Melody | DataError]:
    tunes = read_book(path).values()
    for tune in tunes:
        try:
            yield tune.melody(path.stem if len(tunes) == 1 else f"{path.stem}-{tune.number}")
        except DataError as fault:
            yield DataError(f"{path}: {fault}")


def melody_files(places: Iterable[str | Path]) -> list[Path]:
    """Files as they are, folders as all melody files below them, in order.

    Raises:
        DataError: a place is missing, or a folder holds none
    """
    found: list[Path] = []
    for place in places:
        path = resolve(place)
        inside = [path]
        if path.is_dir():
            inside = sorted(own for own in path.rglob("*") if own.suffix.lower() in ENDINGS and own.is_file())
            if not inside:
                raise DataError(f"{path}: no melody file in it ({', '.join(ENDINGS)})")
        found += inside
    return found
