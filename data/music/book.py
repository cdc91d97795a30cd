"""A collection of melodies with a split in which variants of one tune stay together."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from data.errors import DataError
from data.music.melody import Melody

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")
_OPENING = 12


@dataclass(frozen=True)
class SongBook:
    """Melodies, and which part each belongs to.

    Attributes:
        name: of the collection
        songs: in a fixed order, names unique
        split: name of a song -> train, valid or test
        account: what was read and what was left out, a line each
    """

    name: str
    songs: list[Melody]
    split: Mapping[str, Part]
    account: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = {song.name for song in self.songs}
        if not names:
            raise DataError(f"{self.name}: no song is left; {'; '.join(self.account) or 'it is empty'}")
        if len(names) < len(self.songs):
            raise DataError(f"{self.name}: two songs have one name; name them apart")
        if missing := sorted(name for name in names if self.split.get(name) not in PARTS):
            raise DataError(f"{self.name}: {missing[0]} and {len(missing) - 1} more are in no part of the split")

    def part(self, name: Part) -> list[Melody]:
        """The songs of one part, in order."""
        return [song for song in self.songs if self.split[song.name] == name]

    def crossing(self) -> list[str]:
        """Names of songs whose opening another part holds too, transposed or not; empty = variants stay together."""
        parts: dict[str, set[str]] = {}
        for song in self.songs:
            parts.setdefault(opening(song), set()).add(self.split[song.name])
        return [song.name for song in self.songs if len(parts[opening(song)]) > 1]


class SongSource(ABC):
    """Where songs come from; a config names one."""

    @abstractmethod
    def load(self) -> SongBook:
        """Read the songs.

        Raises:
            DataError: no song can be used, or a file contradicts its format
        """


def opening(song: Melody) -> str:
    """What exact and transposed variants share: the first 12 intervals without octaves, and 12 durations."""
    intervals = (song.pitch[1:] - song.pitch[:-1])[:_OPENING] % 12
    return f"{intervals.tolist()} {song.duration[:_OPENING].tolist()}"


def split_by_opening(songs: Iterable[Melody], valid: float = 0.1, test: float = 0.1) -> dict[str, Part]:
    """A split that depends on each song's opening alone: the same whatever else the collection holds.

    Args:
        songs: with unique names
        valid: expected share
        test: expected share

    Raises:
        DataError: the shares leave nothing to train on
    """
    if min(valid, test) < 0 or valid + test >= 1:
        raise DataError(f"valid={valid:g}, test={test:g}: shares of at least 0 that leave something to train on")
    split: dict[str, Part] = {}
    for song in songs:
        digest = hashlib.sha256(opening(song).encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        split[song.name] = "test" if place < test else "valid" if place < test + valid else "train"
    return split
