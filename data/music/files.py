"""Melody files of any kind the house reads: MIDI, ABC, **kern and JSON; one file or a folder of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from data.errors import DataError
from data.music.abc_books import read_book
from data.music.book import PARTS, Part, SongBook, SongSource, split_by_opening
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
        DataError: not of a known kind, or the file's own fault
    """
    ending = path.suffix.lower()
    if ending in (".mid", ".midi"):
        return [read_melody(path, track, reader)]
    if ending in (".krn", ".kern"):
        if isinstance(track, str) and not track.isdecimal():
            raise DataError(f"{path}: no spine {track!r}; name its number, from 0")
        return [read_kern(path, None if track is None else int(track))]
    if ending == ".abc":
        tunes = read_book(path).values()
        try:
            return [tune.melody(path.stem if len(tunes) == 1 else f"{path.stem}-{tune.number}") for tune in tunes]
        except DataError as fault:
            raise DataError(f"{path}: {fault}") from None
    if ending in (".json", ".xz"):
        return read_songs(path)
    raise DataError(f"{path}: not a melody file ({', '.join(ENDINGS)}); convert it")


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


class FolderSongs(SongSource):
    """The user's own songs, split by their openings unless a JSON file says which part each song is of.

    A file that cannot be read is left out and named in the account.

    Args:
        folder: of .mid, .abc, .krn and .json files, or one such file
        track: of MIDI files with several, name or number
        valid: share of the songs
        test: share of the songs
    """

    def __init__(self, folder: str, track: str | None = None, valid: float = 0.1, test: float = 0.1):
        self.folder, self.track, self.valid, self.test = folder, track, valid, test

    def load(self) -> SongBook:
        songs: list[Melody] = []
        account: list[str] = []
        place = resolve(self.folder)
        for path in melody_files([place]):
            try:
                songs += read_file(path, self.track)
            except DataError as fault:
                account.append(f"left out: {fault}")
        songs = _named_apart(songs)
        split = split_by_opening(songs, self.valid, self.test)
        given: dict[str, Part] = {
            song.name: part for song in songs for part in PARTS if song.about.get("split") == part
        }
        if len(given) == len(songs):
            split = given
        return SongBook(place.stem, songs, split, [f"{len(songs)} songs from {place.name}", *account])


def _named_apart(songs: list[Melody]) -> list[Melody]:
    """Songs of one name get numbers."""
    often = Counter(song.name for song in songs)
    met: Counter[str] = Counter()
    apart = []
    for song in songs:
        met[song.name] += 1
        apart.append(song if often[song.name] == 1 else replace(song, name=f"{song.name}-{met[song.name]}"))
    return apart
