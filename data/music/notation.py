"""What written notation shares: exact times in quarters become ticks."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from data.errors import DataError
from data.music.melody import TICKS, Metre, bars_of


class Written(NamedTuple):
    """One note as it is written.

    Attributes:
        pitch: MIDI number
        start: in quarters
        length: in quarters
        phrase: a label that does not fall
    """

    pitch: int
    start: Fraction
    length: Fraction
    phrase: int


class Timed(NamedTuple):
    """The arrays of a melody in ticks."""

    onset: Int[np.ndarray, " n"]
    duration: Int[np.ndarray, " n"]
    pitch: Int[np.ndarray, " n"]
    bars: Int[np.ndarray, " m"]


def in_ticks(notes: Sequence[Written], barlines: Sequence[Fraction], metre: Metre | None) -> Timed:
    """Starts and ends to the nearest tick each, so that rounding never adds up.

    Raises:
        DataError: no note, or notes too short for the grid
    """
    if not notes:
        raise DataError("no note in it; leave it out")
    onset = np.array([round(TICKS * note.start) for note in notes], np.int64)
    stop = np.array([round(TICKS * (note.start + note.length)) for note in notes], np.int64)
    duration = np.maximum(stop - onset, 1)
    if (onset[:-1] + duration[:-1] > onset[1:]).any():
        raise DataError("notes shorter than a 96th; leave it out")
    lines = np.array([round(TICKS * line) for line in barlines], np.int64)
    pitch = np.array([note.pitch for note in notes], np.int64)
    return Timed(onset, duration, pitch, bars_of(int(onset[0]), int(stop[-1]), lines, metre))


def phrases_of_labels(notes: Sequence[Written]) -> Int[np.ndarray, " n"]:
    """Labels as phrase numbers from 0 up."""
    return np.unique([note.phrase for note in notes], return_inverse=True)[1].astype(np.int64)
