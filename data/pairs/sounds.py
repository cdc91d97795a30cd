"""Notes of a pair -> a sound that can be listened to on a page: the bytes of a small WAV file."""

from __future__ import annotations

import numpy as np

from data.music.melody import Notes
from data.music.synthesis import sines, wav_bytes

RATE = 8000
"""Samples a second: small, and above twice the highest note of a voice."""
QUARTER = 0.5
"""Seconds of a quarter."""
LONGEST = 8.0
"""Seconds; what is beyond is not played, so that a page with ten melodies stays below two megabytes."""


def played(notes: Notes) -> bytes:
    """One voice as a WAV file.

    Args:
        notes: MIDI pitch, start and length in quarters, `[n, 3]`; the first note sounds at once
    """
    pitch, start, length = notes.T.astype(np.float64)
    begin, lasts = (start - start.min(initial=np.inf if len(start) else 0.0)) * QUARTER, length * QUARTER
    return wav_bytes(sines(begin, lasts, pitch, min(LONGEST, float((begin + lasts).max(initial=0.0))), RATE), RATE)
