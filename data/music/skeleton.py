"""The structural notes of a melody: strong, syncopated, long and tonally close ones, and the ranking that picks some.

The rules on strong, syncopated and long notes and on tonal distance follow the published code of WuYun (arXiv
2301.04488), which knows 4/4 only; their form for other metres and the ranking within a phrase are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from data.errors import DataError
from data.music.key import Key
from data.music.melody import TICKS, Melody, Metre, bar_ticks

SIXTEENTH = TICKS // 4
STABLE = (0, 7, 9)
"""Semitones above the gong of degrees 1, 5 and 6."""


@dataclass(frozen=True)
class Roles:
    """What each note is.

    Attributes:
        down: begins on a strong beat, and no syncopation follows within three 16ths
        sync: begins on a weak point of a grid and sounds past the next stronger point
        long: the first of the longest notes of its bar, where not all are equally long
        extreme: higher or lower than what surrounds it in its phrase
        stable: on degree 1, 5 or 6; nowhere where the key is unknown
        first: of its phrase
        final: of its phrase
    """

    down: Bool[np.ndarray, " n"]
    sync: Bool[np.ndarray, " n"]
    long: Bool[np.ndarray, " n"]
    extreme: Bool[np.ndarray, " n"]
    stable: Bool[np.ndarray, " n"]
    first: Bool[np.ndarray, " n"]
    final: Bool[np.ndarray, " n"]

    @property
    def rhythmic(self) -> Bool[np.ndarray, " n"]:
        """The rhythmic skeleton: strong without syncopation, or long and syncopated off the strong beats."""
        return (self.down & ~self.sync) | (self.long & self.sync & ~self.down)


def strong_beats(metre: Metre | None) -> tuple[int, ...]:
    """Ticks of the strong beats in a bar: its beginning, its middle too with four beats or two groups of three.

    Two of these halves in 4/4, 4/8, 6/8, 6/4 and 12/8; the beginning of every group of three in 9/8; else one.
    """
    if metre is None:
        return (0,)
    beats, bar = metre[0], bar_ticks(metre)
    if beats % 3 == 0 and beats > 6 and beats % 2:
        return tuple(bar * beat // beats for beat in range(0, beats, 3))
    return (0, bar // 2) if beats % 2 == 0 and beats > 2 else (0,)


def roles(melody: Melody) -> Roles:
    """Roles of every note.

    Raises:
        DataError: phrases are unknown
    """
    interiors = melody.interiors
    down, sync = _down(melody), _syncopated(melody)
    # A strong note gives way to a syncopation that starts less than three 16ths after its onset.
    soon = np.r_[np.diff(melody.onset) < 3 * SIXTEENTH, False]
    down &= ~(soon & np.r_[sync[1:], False])
    degree = None if melody.key is None else (melody.pitch - melody.key.gong) % 12
    first = np.r_[True, interiors]
    return Roles(
        down,
        sync,
        _longest(melody),
        _extremes(melody.pitch, first),
        np.zeros(len(melody), bool) if degree is None else np.isin(degree, STABLE),
        first,
        np.r_[interiors, True],
    )


def skeleton(melody: Melody, rho: float = 0.3) -> Bool[np.ndarray, " n"]:
    """The highest ranking notes of each phrase, `ceil(rho L)` of its L notes, always its last one.

    A note earns 2 for a strong beat, 1.5 as the last of its phrase, 1 as the first, 1 for being the longest of its bar,
    .5 as an extreme of the contour, .5 for degree 1, 5 or 6; of equal ones the longer, then the earlier. Notes shorter
    than a 16th are taken only to end a phrase.

    Args:
        melody: with phrases
        rho: share of notes, over 0 to 1

    Raises:
        DataError: phrases are unknown, or rho is no share
    """
    if not 0 < rho <= 1:
        raise DataError(f"rho={rho:g}: a share of the notes over 0, at most 1")
    own = roles(melody)
    score = 2 * own.down + 1.5 * own.final + own.first + own.long + 0.5 * own.extreme + 0.5 * own.stable
    usable = (melody.duration >= SIXTEENTH) | own.final
    rank = np.lexsort((np.arange(len(melody)), -melody.duration, -score, ~usable, ~own.final))
    kept = np.zeros(len(melody), bool)
    assert melody.phrase is not None
    for phrase in range(int(melody.phrase[-1]) + 1):
        inside = rank[melody.phrase[rank] == phrase]
        most = math.ceil(round(rho * len(inside), 9))
        kept[inside[: min(most, int(usable[inside].sum()))]] = True
    return kept


def tonal_skeleton(melody: Melody) -> Bool[np.ndarray, " n"]:
    """Of each bar the first note with the least tonal distance to the key.

    Raises:
        DataError: the key is unknown
    """
    if melody.key is None:
        raise DataError(f"melody {melody.name}: its key is unknown; name one")
    distance = tonal_distance(melody.key)[melody.pitch % 12]
    kept = np.zeros(len(melody), bool)
    bar_of = melody.bar_of
    for bar in np.unique(bar_of):
        inside = np.flatnonzero(bar_of == bar)
        kept[inside[distance[inside].argmin()]] = True
    return kept


def tonal_distance(key: Key) -> Float[np.ndarray, " 12"]:
    """Distance of every pitch class to a key in the spiral array (Chew 2000), the nearest spelling of each."""
    minor = key.mode == "min"
    home = 0
    triad = _chord(home, minor)
    dominant, subdominant = _chord(home + 1, False), _chord(home - 1, minor)
    centre = 0.536 * triad + 0.274 * dominant + 0.19 * subdominant
    fifths = np.arange(-6, 12)
    away = np.linalg.norm(_spiral(fifths) - centre, axis=1)
    tonic = key.tonic if minor else key.gong
    nearest = np.full(12, np.inf)
    np.minimum.at(nearest, (tonic + 7 * fifths) % 12, away)
    return nearest


def _spiral(fifths: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k 3"]:
    angle = fifths * np.pi / 2
    return np.column_stack([np.sin(angle), np.cos(angle), fifths * math.sqrt(2 / 15)])


def _chord(root: int, minor: bool) -> Float[np.ndarray, " 3"]:
    third = root - 3 if minor else root + 4
    weights = np.array([0.536, 0.274, 0.19])
    return weights @ _spiral(np.array([root, root + 1, third]))


def _down(melody: Melody) -> Bool[np.ndarray, " n"]:
    return np.isin(melody.position, strong_beats(melody.metre))


def _syncopated(melody: Melody) -> Bool[np.ndarray, " n"]:
    position, stop = melody.position, melody.position + melody.duration
    compound = melody.metre is not None and melody.metre[1] == 8 and melody.metre[0] % 3 == 0
    found = np.zeros(len(melody), bool)
    # Unit of a grid, and of the next stronger one.
    levels = ((12, 36), (6, 12)) if compound else ((TICKS, 2 * TICKS), (TICKS // 2, TICKS), (SIXTEENTH, TICKS // 2))
    for unit, stronger in levels:
        weak = (position % unit == 0) & (position % stronger != 0)
        found |= weak & (stop > (position // stronger + 1) * stronger)
    return found


def _longest(melody: Melody) -> Bool[np.ndarray, " n"]:
    kept = np.zeros(len(melody), bool)
    bar_of = melody.bar_of
    for bar in np.unique(bar_of):
        inside = np.flatnonzero(bar_of == bar)
        long = melody.duration[inside]
        if long.max() > long.min():
            kept[inside[long.argmax()]] = True
    return kept


def _extremes(pitch: Int[np.ndarray, " n"], first: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Turning points of each phrase's line; of repeated notes the first."""
    kept = np.zeros(len(pitch), bool)
    starts = [*np.flatnonzero(first).tolist(), len(pitch)]
    for begin, stop in pairwise(starts):
        moved = begin + np.flatnonzero(np.r_[True, np.diff(pitch[begin:stop]) != 0])
        way = np.sign(np.diff(pitch[moved]))
        kept[moved[1:-1][way[1:] != way[:-1]]] = True
    return kept
