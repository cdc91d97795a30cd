"""What a melody is generated into: bars, metre, key, and the skeleton notes it must keep, phrase by phrase."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from data.errors import DataError
from data.music.key import Key
from data.music.melody import Melody, Metre
from data.music.segmentation.programme import programme, with_phrases
from tasks.melody.vocabulary import bar_of_metre, key_of


@dataclass(frozen=True, eq=False)
class Frame:
    """Everything that is given; what is generated lies between its first bar and its end.

    Attributes:
        name: of the song
        bars: ticks at which bars begin, ascending
        end: tick at which the last bar ends; no note crosses it
        metre: None = free
        key: gives the pitches that may be added
        onset, pitch, phrase: of the skeleton notes, in order; phrases from 0 up
        kept: notes that stand as they are, outside of the bars to be filled in; None = there are none
        filled: first and last bar to be filled in where notes are kept, from 0
    """

    name: str
    bars: Int[np.ndarray, " m"]
    end: int
    metre: Metre | None
    key: Key
    onset: Int[np.ndarray, " s"]
    pitch: Int[np.ndarray, " s"]
    phrase: Int[np.ndarray, " s"]
    kept: Melody | None = None
    filled: tuple[int, int] | None = None

    @property
    def final(self) -> Bool[np.ndarray, " s"]:
        """Which skeleton notes end a phrase."""
        return np.append(np.diff(self.phrase) > 0, True)[: len(self.phrase)]

    def obligations(self) -> tuple[Int[np.ndarray, "o 3"], Bool[np.ndarray, " o"]]:
        """The notes that must come, in order: onset, pitch and duration (0 = free), and which of them follow at once.

        Raises:
            DataError: a kept note sounds on where another must begin
        """
        skeleton = np.column_stack([self.onset, self.pitch, np.zeros_like(self.pitch)])
        if self.kept is None or self.filled is None:
            return skeleton, np.zeros(len(skeleton), bool)
        first, last = self.filled
        bar = self.kept.bar_of
        outside = (bar < first) | (bar > last)
        inside = (self.onset >= self.bars[first]) & (self.onset < self._after(last))
        kept = np.column_stack([self.kept.onset, self.kept.pitch, self.kept.duration])[outside]
        order = np.argsort(np.append(kept[:, 0], skeleton[inside, 0]), kind="stable")
        every = np.vstack([kept, skeleton[inside]])[order]
        at_once = np.append(bar[outside] != last + 1, np.zeros(inside.sum(), bool))[order]
        after = np.flatnonzero(every[:, 0] >= self._after(last))[:1]
        at_once = np.where(every[:, 0] >= self._after(last), True, at_once & (every[:, 2] > 0))
        at_once[after] = False
        ends = every[:, 0] + every[:, 2]
        if over := np.flatnonzero(ends[:-1] > every[1:, 0]).tolist():
            raise DataError(
                f"{self.name}: the note at tick {every[over[0], 0]} sounds into the bars to be filled in; "
                f"begin one bar earlier"
            )
        return every, at_once

    def _after(self, bar: int) -> int:
        return int(self.bars[bar + 1]) if bar + 1 < len(self.bars) else self.end


def phrased(song: Melody) -> Melody:
    """The song with phrases: its own, else those of the dynamic programme."""
    return song if song.phrase is not None else with_phrases(song, programme(song))


def frame_of(song: Melody, skeleton: Bool[np.ndarray, " n"]) -> Frame:
    """The frame of a song whose skeleton is known.

    Args:
        song: with a key; without phrases it is one phrase
        skeleton: which notes are kept

    Raises:
        DataError: no key, or no skeleton note
    """
    if not skeleton.any():
        raise DataError(f"melody {song.name}: no skeleton note; raise rho or mark some")
    phrase = np.zeros(len(song), np.int64) if song.phrase is None else song.phrase
    _, numbers = np.unique(phrase[skeleton], return_inverse=True)
    return Frame(
        song.name,
        song.bars,
        max(int(song.bars[-1]) + bar_of_metre(song.metre), song.end),
        song.metre,
        key_of(song),
        song.onset[skeleton],
        song.pitch[skeleton],
        numbers.astype(np.int64),
    )


def without_skeleton(frame: Frame) -> Frame:
    """The same bars, metre and key, and nothing to keep."""
    none = np.zeros(0, np.int64)
    return replace(frame, onset=none, pitch=none, phrase=none)


def infilling(song: Melody, frame: Frame, first: int, last: int) -> Frame:
    """Keep a song outside of some bars; inside, only its skeleton is kept.

    Args:
        song: whose notes are kept
        frame: of the song
        first: bar to begin with, from 0
        last: bar to end with

    Raises:
        DataError: there are no such bars
    """
    if not 0 <= first <= last < len(song.bars):
        raise DataError(f"melody {song.name}: bars {first + 1} to {last + 1}; it has bars 1 to {len(song.bars)}")
    return replace(frame, kept=song, filled=(first, last))
