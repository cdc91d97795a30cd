"""Phrases by a dynamic programme over the whole song: the best sum of boundary gains and phrase lengths.

The published system says "a phrase segmentation algorithm" and no more; this one is ours, after Temperley's Grouper
(gaps, phrase length, metrical parallelism) with two more cues.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from data.music.melody import Melody
from data.music.segmentation.cues import cues

LONGEST = 60
"""Notes of the longest phrase that is considered."""


@dataclass(frozen=True)
class Weights:
    """What the programme weighs; see `gains` and `length_cost`.

    Attributes:
        gap: of the logarithm of the gap
        change: of the local boundary strength
        parallel: of repetition
        same_place: of standing where the first note does in its bar
        length: of the squared distance of a phrase's length from the usual one, in octaves
        usual: notes of a usual phrase
        bias: what a boundary costs
    """

    gap: float
    change: float
    parallel: float
    same_place: float
    length: float
    usual: float
    bias: float


TUNED = {
    "han": Weights(0.70, 1.57, 0.29, 0.50, 0.78, 9.0, 1.6),
    "german": Weights(0.68, 1.63, 0.46, 0.65, 1.16, 5.5, 2.2),
}
"""Weights tuned on songs of one culture; the Chinese ones also serve as the default."""
GROUPER = {
    "han": Weights(1.63, 0.0, 0.0, 0.71, 0.81, 10.7, 2.04),
    "german": Weights(1.75, 0.0, 0.0, 0.63, 1.06, 7.4, 0.74),
}
"""The three rules of Grouper (Temperley 2001) alone: gap, length, metre. Best of 150 draws on 330 training songs."""


def gains(melody: Melody, weights: Weights) -> Float[np.ndarray, " p"]:
    """What a boundary after each note but the last is worth."""
    own = cues(melody)
    return (
        weights.gap * np.log(np.maximum(own.gap, 0.05))
        + weights.change * own.change
        + weights.parallel * own.parallel
        + weights.same_place * np.where(own.same_place, 1.0, -1.0)
        - weights.bias
    )


def length_cost(notes: int, weights: Weights) -> Float[np.ndarray, " n"]:
    """Cost of a phrase of 1, 2, ... notes."""
    return weights.length * np.log2(np.arange(1, notes + 1) / weights.usual) ** 2


def best_boundaries(gain: Float[np.ndarray, " p"], cost: Float[np.ndarray, " l"]) -> Bool[np.ndarray, " p"]:
    """Boundaries with the largest sum of gains less the cost of every phrase, in O(n l).

    Args:
        gain: of a boundary after each note but the last
        cost: of a phrase of 1 to l notes; none is longer
    """
    notes = len(gain) + 1
    best = np.full(notes + 1, -np.inf)
    best[0] = 0.0
    back = np.zeros(notes + 1, np.int64)
    worth = np.r_[0.0, gain]
    for end in range(1, notes + 1):
        first = max(0, end - len(cost))
        value = best[first:end] + worth[first:end] - cost[end - first - 1 :: -1]
        at = int(value.argmax())
        best[end], back[end] = value[at], first + at
    found = np.zeros(len(gain), bool)
    begin = int(back[notes])
    while begin > 0:
        found[begin - 1] = True
        begin = int(back[begin])
    return found


def programme(melody: Melody, weights: Weights = TUNED["han"]) -> Bool[np.ndarray, " p"]:
    """Whether a phrase ends after each note but the last."""
    return best_boundaries(gains(melody, weights), length_cost(min(LONGEST, len(melody)), weights))


Segmenter = Callable[[Melody], Bool[np.ndarray, " p"]]


def with_phrases(melody: Melody, boundaries: Bool[np.ndarray, " p"]) -> Melody:
    """The melody with the phrases that boundaries between its notes make."""
    return melody.with_phrases(phrase_numbers(boundaries))


def phrase_numbers(boundaries: Bool[np.ndarray, " p"]) -> Int[np.ndarray, " n"]:
    """Phrase of each note."""
    return np.r_[0, np.cumsum(boundaries)].astype(np.int64)
