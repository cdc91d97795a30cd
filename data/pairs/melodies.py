"""Melody files -> notes: the upper line of a MIDI file, in quarters."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.errors import DataError
from data.music.melody import Notes
from data.music.midi_in import read_midi
from data.music.voices import skyline

MELODIES = frozenset({".mid", ".midi"})
__all__ = ["MELODIES", "Notes", "read_melody"]


def read_melody(path: Path) -> Notes:
    """The melody of a MIDI file: the track called melody, else the pitched track that lies highest.

    Where notes sound together the highest is kept, and a note ends where the next begins.

    Raises:
        DataError: no such file, it is no MIDI file, or it has no pitched note
    """
    midi = read_midi(path)
    tracks = [track for track in midi.tracks if not track.drum]
    named = [track for track in tracks if "melody" in track.name.lower()]
    if not tracks:
        raise DataError(f"{path}: no pitched note in it; leave it out")
    track = max(named or tracks, key=lambda track: float(track.spans[:, 2].mean()))
    start, end, pitch = skyline(track.spans).T
    return np.column_stack([pitch, start / midi.ticks, (end - start) / midi.ticks]).astype(np.float32)
