"""What notes can be said with: places in a bar, lengths, pitches above the gong, metres and modes; and its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from data.errors import DataError
from data.music.key import Key
from data.music.melody import Melody, Metre

SKIPS = 8
"""Barlines between the beginnings of two notes: 0 to 8."""
THIRTY_SECOND, TRIPLET, WHOLE = 3, 4, 96
LONGEST = 2 * WHOLE


@dataclass(frozen=True)
class Vocabulary:
    """The values of each field of a note, drawn from training songs alone.

    Attributes:
        places: ticks from the beginning of a bar at which notes may begin, ascending
        durations: in ticks, ascending
        low: lowest pitch, in semitones above the gong nearest to middle C (`reference`)
        high: highest
        metres: `2/4`, `none`
        modes: `gong`, `maj`
    """

    places: tuple[int, ...]
    durations: tuple[int, ...]
    low: int
    high: int
    metres: tuple[str, ...]
    modes: tuple[str, ...]

    @classmethod
    def of(cls, songs: Sequence[Melody]) -> Vocabulary:
        """Every 32nd, and every 16th of a triplet where the songs have some, up to the longest metre and two whole
        notes.

        A song with a longer bar or note cannot be said then: `lacks` tells.

        Raises:
            DataError: there is no training song
        """
        if not songs:
            raise DataError("no training song, so there are no notes to learn; give more songs, or mark their parts")
        widest = max(bar_of_metre(song.metre) for song in songs)
        values = np.concatenate([part for song in songs for part in (song.onset, song.duration)])
        steps = [THIRTY_SECOND, *([TRIPLET] if ((values % 3 > 0) & (values % 4 == 0)).any() else [])]
        grid = [tick for tick in range(LONGEST + 1) if any(tick % step == 0 for step in steps)]
        sung = {int(length) for song in songs for length in song.duration}
        pitches = np.concatenate([song.pitch - reference(key_of(song)) for song in songs])
        return cls(
            tuple(tick for tick in grid if tick < widest),
            tuple(tick for tick in grid if tick > 0 and (tick <= WHOLE or tick in sung)),
            int(pitches.min()),
            int(pitches.max()),
            tuple(sorted({metre_name(song.metre) for song in songs})),
            tuple(sorted({key_of(song).mode for song in songs})),
        )

    @property
    def hash(self) -> str:
        """A short name that changes when any value does."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]

    @classmethod
    def parse(cls, content: dict[str, object]) -> Vocabulary:
        """What `asdict` made, read from JSON."""
        read = {f.name: content[f.name] for f in fields(cls)}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in read.items()})  # type: ignore[arg-type]

    @property
    def pitches(self) -> int:
        """How many pitches there are."""
        return self.high - self.low + 1

    def metre(self, metre: Metre | None) -> int:
        """Number of a metre.

        Raises:
            DataError: the vocabulary lacks it
        """
        return self._number(metre_name(metre), self.metres, "metre")

    def mode(self, key: Key) -> int:
        """Number of a key's mode.

        Raises:
            DataError: the vocabulary lacks it
        """
        return self._number(key.mode, self.modes, f"key {key}: mode")

    def _number(self, name: str, known: tuple[str, ...], what: str) -> int:
        if name not in known:
            raise DataError(f"{what} {name} is not in vocabulary {self.hash}; it has {', '.join(known)}")
        return known.index(name)

    def lacks(self, song: Melody) -> str:
        """The first thing of a song that cannot be said; empty when all can."""
        relative = song.pitch - reference(key_of(song))
        steps = np.diff(song.bar_of, prepend=0)
        if metre_name(song.metre) not in self.metres:
            return f"metre {metre_name(song.metre)}"
        if key_of(song).mode not in self.modes:
            return f"mode {key_of(song).mode}"
        for what, values, fits in (
            ("place", song.position, np.isin(song.position, self.places)),
            ("duration", song.duration, np.isin(song.duration, self.durations)),
            ("pitch above the gong", relative, (relative >= self.low) & (relative <= self.high)),
            ("skip of bars", steps, steps <= SKIPS),
        ):
            if not fits.all():
                return f"{what} {int(values[~fits][0])}"
        return ""


def key_of(song: Melody) -> Key:
    """The key of a song.

    Raises:
        DataError: it is unknown
    """
    if song.key is None:
        raise DataError(f"melody {song.name}: its key is unknown; give it, such as D:zhi")
    return song.key


def reference(key: Key) -> int:
    """The gong from F#3 to F4: what pitches are counted from, so that a tune is the same in every key."""
    return 60 + (key.gong + 6) % 12 - 6


def metre_name(metre: Metre | None) -> str:
    """`2/4`, or `none`."""
    return "none" if metre is None else f"{metre[0]}/{metre[1]}"


def bar_of_metre(metre: Metre | None) -> int:
    """Ticks of a bar; a whole note where the metre is unknown."""
    return WHOLE if metre is None else WHOLE * metre[0] // metre[1]
