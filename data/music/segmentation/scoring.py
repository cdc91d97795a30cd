"""How well boundaries agree with the marked ones, song by song."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool


class Agreement(NamedTuple):
    """Precision, recall and F1, each the mean over songs."""

    precision: float
    recall: float
    f1: float


def agreement(
    pairs: Iterable[tuple[Bool[np.ndarray, " _"], Bool[np.ndarray, " _"]]], count_end: bool = False
) -> Agreement:
    """Mean per song.

    A song without marked interior boundaries is left out, whatever was found in it, unless the end counts. A rule that
    finds none has precision 0.

    Args:
        pairs: found and marked boundaries of each song
        count_end: the end of the song counts as one more boundary that everybody finds (Pearce et al. 2010)
    """
    rows = [_song(found, marked, count_end) for found, marked in pairs if count_end or marked.any()]
    if not rows:
        return Agreement(float("nan"), float("nan"), float("nan"))
    return Agreement(*np.mean(rows, axis=0).tolist())


def _song(found: Bool[np.ndarray, " p"], marked: Bool[np.ndarray, " p"], count_end: bool) -> Agreement:
    hits = int((found & marked).sum()) + count_end
    told, true = int(found.sum()) + count_end, int(marked.sum()) + count_end
    return Agreement(
        hits / told if told else 0.0, hits / true if true else 0.0, 2 * hits / (told + true) if told + true else 0.0
    )
