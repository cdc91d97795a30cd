"""The user's own songs: a folder of melody files as a collection."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from data.errors import DataError
from data.music.book import PARTS, Part, SongBook, SongSource, split_by_opening
from data.music.files import melody_files, read_each
from data.music.melody import Melody
from data.sources import resolve


class FolderSongs(SongSource):
    """The user's own songs, split by their openings unless a JSON file says which part each song is of.

    A file or tune that cannot be read is left out and named in the account.

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
            for song in read_each(path, self.track):
                if isinstance(song, DataError):
                    account.append(f"left out: {song}")
                else:
                    songs.append(song)
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
