"""Notes -> a sound that can be listened to: sines with soft edges, as the bytes of a small WAV file."""

from __future__ import annotations

import io
import wave

import numpy as np

from data.music.melody import Notes

RATE = 8000
"""Samples a second; above twice the highest note that is played."""
QUARTER = 0.5
"""Seconds of a quarter."""
LONGEST = 12.0
"""Seconds; what is beyond is not played, so that a page with ten melodies stays near a megabyte."""
EDGE = 0.01
"""Seconds in which a note rises and falls, so that it does not click."""
LOUDNESS = 0.8
HIGHEST = RATE / 2 - 1


def played(notes: Notes) -> bytes:
    """One voice as a WAV file, mono, 8 bits.

    Args:
        notes: MIDI pitch, start and length in quarters, `[n, 3]`; the first note sounds at once
    """
    start = (notes[:, 1] - notes[:, 1].min(initial=np.inf)) * QUARTER if len(notes) else notes[:, 1]
    length = notes[:, 2] * QUARTER
    seconds = min(LONGEST, float((start + length).max(initial=0.0)))
    sound = np.zeros(round(seconds * RATE))
    for pitch, begin, lasts in zip(notes[:, 0], start, length, strict=True):
        first = round(begin * RATE)
        time = np.arange(min(round(lasts * RATE), len(sound) - first)) / RATE
        frequency = 440.0 * 2.0 ** ((pitch - 69) / 12)
        if len(time) and frequency <= HIGHEST:
            edge = np.minimum(1.0, np.minimum(time, time[-1] - time) / EDGE)
            sound[first : first + len(time)] += LOUDNESS * edge * np.sin(2 * np.pi * frequency * time)
    content = io.BytesIO()
    with wave.open(content, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(1)
        out.setframerate(RATE)
        out.writeframes((127.5 * (1 + sound.clip(-1, 1))).round().astype(np.uint8).tobytes())
    return content.getvalue()
