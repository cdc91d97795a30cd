"""Notes as (start, end, pitch) rows -> one voice: notes struck again, chords, and the upper line."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from data.music.melody import TICKS

Spans = Int[np.ndarray, "_ 3"]
TOGETHER = TICKS // 4
"""Notes that sound together for more than a 16th are two voices; a shorter overlap is legato."""


def struck(spans: Spans) -> Spans:
    """One note per pitch and start, ended by its pitch's next end or next start; ordered by start, then pitch.

    Readers pair the starts and ends of a pitch that is struck again while it sounds in different ways; their notes are
    the same after this.
    """
    if not len(spans):
        return spans.reshape(0, 3)
    far = int(spans[:, :2].max()) + 1
    starts = np.unique(spans[:, 2] * far + spans[:, 0])
    ends = np.unique(spans[:, 2] * far + spans[:, 1])
    nothing = np.iinfo(np.int64).max
    end = np.r_[ends, nothing][np.searchsorted(ends, starts, side="right")]
    stop = np.minimum(end, np.r_[starts[1:], nothing])
    heard = stop // far == starts // far
    pitch, start = starts[heard] // far, starts[heard] % far
    found = np.column_stack([start, stop[heard] % far, pitch])
    return found[np.lexsort((pitch, start))]


def crowded(spans: Spans) -> Bool[np.ndarray, " n"]:
    """Which notes, ordered by start, sound together with an earlier one for more than a 16th; times in ticks."""
    before = np.r_[0, np.maximum.accumulate(spans[:, 1])[:-1]]
    return np.minimum(before, spans[:, 1]) - spans[:, 0] > TOGETHER


def skyline(spans: Spans) -> Spans:
    """The highest note of each start; a note ends where the next begins."""
    spans = spans[np.lexsort((-spans[:, 2], spans[:, 0]))]
    line = spans[np.r_[True, spans[1:, 0] > spans[:-1, 0]]]
    ends = np.minimum(line[:, 1], np.r_[line[1:, 0], line[-1:, 1]])
    return np.column_stack([line[:, 0], ends, line[:, 2]])
