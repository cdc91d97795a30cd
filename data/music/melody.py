"""A melody: one voice in ticks, with bars, metre, key and phrases where they are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float32, Int

from data.errors import DataError
from data.music.key import Key

TICKS = 24
"""Ticks per quarter."""
LONGEST = 10_000_000
"""Ticks a melody may last, about three days; what is longer is a damaged file."""
Metre = tuple[int, int]
Notes = Float32[np.ndarray, "_ 3"]
"""MIDI pitch, start and length in quarters; a rest is a gap."""


def bar_ticks(metre: Metre) -> int:
    """Length of a bar in ticks: 48 for 2/4, 72 for 6/8."""
    return 4 * TICKS * metre[0] // metre[1]


def parse_metre(text: str) -> Metre | None:
    """`2/4`, `C` (4/4), `C|` (2/2); `none` and the empty text are no metre.

    Raises:
        DataError: it is none, or its bar is no whole number of ticks (a quarter has 24) or over 16 whole notes long
    """
    said = {"C": "4/4", "C|": "2/2", "": "none", "free": "none"}.get(text.strip(), text.strip())
    if said == "none":
        return None
    upper, _, lower = said.partition("/")
    if not (upper.isascii() and lower.isascii() and upper.isdigit() and lower.isdigit()) or len(said) > 9:
        raise DataError(f"metre {text!r} is not known; write two numbers such as 2/4 or 6/8, or none")
    metre = (int(upper), int(lower))
    if 0 in metre or 4 * TICKS * metre[0] % metre[1] or metre[0] > 16 * metre[1]:
        raise DataError(
            f"metre {text!r}: its bar must be a whole number of ticks, {TICKS} a quarter, and at most 16 whole notes"
        )
    return metre


@dataclass(frozen=True, eq=False)
class Melody:
    """One voice.

    Attributes:
        name: of the song; unique within its collection
        onset: start of each note in ticks, ascending; `onset + duration <= next onset`, what lies between is a rest
        duration: in ticks, at least 1
        pitch: MIDI number, 0 to 127
        bars: ticks at which bars begin, ascending, each note in one of them: `bars[0] <= onset[0]`. With a pickup the
            first bar is the one that the pickup completes, so it begins before tick 0 (-36 for an eighth before 2/4)
        metre: the first one, (2, 4); None = unknown or free
        key: None = unknown
        phrase: number of each note's phrase, from 0 up in steps of 0 or 1; None = unknown
        about: title, origin, genre, split and the like
    """

    name: str
    onset: Int[np.ndarray, " n"]
    duration: Int[np.ndarray, " n"]
    pitch: Int[np.ndarray, " n"]
    bars: Int[np.ndarray, " m"]
    metre: Metre | None = None
    key: Key | None = None
    phrase: Int[np.ndarray, " n"] | None = None
    about: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises DataError where the arrays contradict the description."""
        for part in ("onset", "duration", "pitch", "bars", *(["phrase"] if self.phrase is not None else [])):
            object.__setattr__(self, part, np.asarray(getattr(self, part), np.int64))
        n = len(self.onset)
        faults = {
            "it has no note": n == 0,
            "onset, duration and pitch differ in length": not n == len(self.duration) == len(self.pitch),
        }
        if not any(faults.values()):
            faults |= {
                "a duration is below 1 tick": bool((self.duration < 1).any()),
                "a pitch is beyond 0 to 127": bool((self.pitch < 0).any() or (self.pitch > 127).any()),
                "notes overlap or are not in order": bool(
                    (self.onset[:-1] + self.duration[:-1] > self.onset[1:]).any()
                ),
                "bars do not ascend from the first note or before": not len(self.bars)
                or bool(self.bars[0] > self.onset[0] or (np.diff(self.bars) < 1).any()),
                "phrases do not count up from 0": self.phrase is not None
                and (len(self.phrase) != n or self.phrase[0] != 0 or not np.isin(np.diff(self.phrase), (0, 1)).all()),
            }
        for what, wrong in faults.items():
            if wrong:
                raise DataError(f"melody {self.name}: {what}; correct or leave it out")

    def __len__(self) -> int:
        return len(self.onset)

    @property
    def end(self) -> int:
        """Tick at which the last note ends."""
        return int(self.onset[-1] + self.duration[-1])

    @property
    def interiors(self) -> Bool[np.ndarray, " n_1"]:
        """Between which notes a phrase ends: `[n - 1]`.

        Raises:
            DataError: phrases are unknown
        """
        if self.phrase is None:
            raise DataError(f"melody {self.name}: its phrases are unknown; segment it first")
        return np.diff(self.phrase) > 0

    @property
    def bar_of(self) -> Int[np.ndarray, " n"]:
        """Number of each note's bar."""
        return np.searchsorted(self.bars, self.onset, side="right") - 1

    @property
    def position(self) -> Int[np.ndarray, " n"]:
        """Ticks from the beginning of its bar to each note."""
        return self.onset - self.bars[self.bar_of]

    def transposed(self, semitones: int) -> Melody:
        """The same, higher; the key moves with it.

        Raises:
            DataError: a pitch would leave 0 to 127
        """
        key = None if self.key is None else self.key.transposed(semitones)
        return replace(self, pitch=self.pitch + semitones, key=key)

    def with_phrases(self, phrase: Int[np.ndarray, " n"] | None) -> Melody:
        return replace(self, phrase=phrase)

    def notes(self) -> Notes:
        """MIDI pitch, start and length in quarters."""
        return np.column_stack([self.pitch, self.onset / TICKS, self.duration / TICKS]).astype(np.float32)


def bars_of(onset: int, end: int, barlines: Int[np.ndarray, " k"], metre: Metre | None) -> Int[np.ndarray, " m"]:
    """Where bars begin, from written barlines: the bar before the first line is added when notes stand there.

    Args:
        onset: first tick with a note
        end: tick at which the last note ends; a line there or later begins no bar
        barlines: ticks of the lines, any order, repeats allowed; none = bars are laid from `onset` on
        metre: length of a first bar that a pickup completes; None = the first bar begins with the first note

    Raises:
        DataError: the song lasts over `LONGEST` ticks
    """
    if end - onset > LONGEST:
        raise DataError(f"it lasts {end - onset} ticks, over {LONGEST}; it is damaged, or cut it")
    lines = np.unique(np.asarray(barlines, np.int64))
    lines = lines[lines < end]
    length = max(1, bar_ticks(metre)) if metre else 4 * TICKS
    if not len(lines):
        return np.arange(onset, end, length, dtype=np.int64)
    if lines[0] > onset:
        # A first bar longer than the metre (a forgotten line) begins at the first note.
        lines = np.r_[min(onset, int(lines[0]) - length) if metre else onset, lines]
    return lines
