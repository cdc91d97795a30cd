"""What may tell that a phrase ends between two notes: gaps, local change, repetition, place in the bar."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from data.music.melody import Melody

GRAM = 3


@dataclass(frozen=True)
class Cues:
    """Cues of the places between a melody's n notes; place i lies between notes i and i + 1.

    Attributes:
        ioi: ticks from onset to onset
        rest: ticks of silence
        interval: semitones up
        gap: ioi plus rest, in the song's mean ioi
        change: the local boundary detection model's strength, 0 to 1
        parallel: how often the three steps after the place occur in the song, 0 to 1; half of it unless they open it
        same_place: note i + 1 stands where the first note does in its bar
    """

    ioi: Int[np.ndarray, " p"]
    rest: Int[np.ndarray, " p"]
    interval: Int[np.ndarray, " p"]
    gap: Float[np.ndarray, " p"]
    change: Float[np.ndarray, " p"]
    parallel: Float[np.ndarray, " p"]
    same_place: Bool[np.ndarray, " p"]


def cues(melody: Melody) -> Cues:
    """The cues of all places of a melody; none of them depends on its key or tempo, nor on its phrases."""
    ioi, interval = np.diff(melody.onset), np.diff(melody.pitch)
    rest = melody.onset[1:] - melody.onset[:-1] - melody.duration[:-1]
    position = melody.position
    return Cues(
        ioi,
        rest,
        interval,
        (ioi + rest) / ioi.mean() if len(ioi) else np.zeros(0),
        local_change(ioi, rest, interval),
        parallelism(ioi, interval),
        position[1:] == position[0],
    )


def local_change(
    ioi: Int[np.ndarray, " p"], rest: Int[np.ndarray, " p"], interval: Int[np.ndarray, " p"]
) -> Float[np.ndarray, " p"]:
    """Strength of the local boundary detection model (Cambouropoulos 2001): weights .25 pitch, .5 onsets, .25 rests."""
    return 0.25 * _strength(np.abs(interval)) + 0.5 * _strength(ioi) + 0.25 * _strength(rest)


def _strength(steps: Int[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    """Each step times its relative change to both neighbours, divided by the song's largest."""
    total = steps[1:] + steps[:-1]
    change = np.divide(np.abs(np.diff(steps)), total, out=np.zeros(len(total)), where=total > 0)
    strength = steps * (np.r_[0.0, change] + np.r_[change, 0.0])[: len(steps)]
    top = strength.max(initial=0.0)
    return strength / top if top > 0 else np.zeros(len(steps))


def parallelism(ioi: Int[np.ndarray, " p"], interval: Int[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    """How often the gram of three (ioi, interval) steps from note i + 1 on occurs: min(k - 1, 3) / 3.

    Halved unless it is the gram that opens the song; 0 where fewer than three steps are left.
    """
    steps = list(zip(ioi.tolist(), interval.tolist(), strict=True))
    grams = [tuple(steps[at : at + GRAM]) for at in range(len(steps) - GRAM + 1)]
    often = Counter(grams)
    found = np.zeros(len(steps))
    for place in range(len(steps)):
        if place + 1 < len(grams):
            gram = grams[place + 1]
            found[place] = min(often[gram] - 1, 3) / 3 * (1.0 if gram == grams[0] else 0.5)
    return found
