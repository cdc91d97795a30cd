"""Classical rules and trivial ones: what any segmenter has to beat."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from data.music.melody import Melody
from data.music.segmentation.cues import cues


def lbdm(melody: Melody, threshold: float = 0.35) -> Bool[np.ndarray, " p"]:
    """Local boundary detection model (Cambouropoulos 2001): a peak of the strength that exceeds the threshold."""
    change = cues(melody).change
    before, after = np.r_[-np.inf, change[:-1]], np.r_[change[1:], -np.inf]
    return (change >= threshold) & (change >= before) & (change > after)


def at_rests(melody: Melody) -> Bool[np.ndarray, " p"]:
    """GPR 2a (Lerdahl and Jackendoff 1983): after every rest."""
    return cues(melody).rest > 0


def always(melody: Melody) -> Bool[np.ndarray, " p"]:
    return np.ones(len(melody) - 1, bool)


def never(melody: Melody) -> Bool[np.ndarray, " p"]:
    return np.zeros(len(melody) - 1, bool)
