"""Melody files -> notes: the upper line of a MIDI file, in quarters."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.errors import DataError
from data.music.melody import Notes

if TYPE_CHECKING:
    from pretty_midi import Instrument, PrettyMIDI

MELODIES = frozenset({".mid", ".midi"})
__all__ = ["MELODIES", "Notes", "read_melody"]


def read_melody(path: Path) -> Notes:
    """The melody of a MIDI file: the track called melody, else the pitched track that lies highest.

    Where notes sound together the highest is kept, and a note ends where the next begins.

    Raises:
        DataError: no such file, it is no MIDI file, or it has no pitched note
    """
    import pretty_midi

    if not path.is_file():
        raise DataError(f"{path}: no such melody")
    try:
        with warnings.catch_warnings():
            # Tempo or key marks on another track than the first are against the standard, and common.
            warnings.simplefilter("ignore", RuntimeWarning)
            midi = pretty_midi.PrettyMIDI(str(path))
    except Exception as problem:
        # mido raises OSError, EOFError, KeyError and others on what is no MIDI file.
        raise DataError(f"{path}: not readable as MIDI ({problem or type(problem).__name__}); replace it") from None
    track = _melody_track(midi)
    if track is None:
        raise DataError(f"{path}: no pitched note in it; leave it out")
    quarters = {
        seconds: midi.time_to_tick(seconds) / midi.resolution
        for note in track.notes
        for seconds in (note.start, note.end)
    }
    return skyline(
        np.array([(note.pitch, quarters[note.start], quarters[note.end]) for note in track.notes], np.float64)
    )


def skyline(spans: np.ndarray) -> Notes:
    """One voice out of (pitch, start, end) rows."""
    spans = spans[np.lexsort((-spans[:, 0], spans[:, 1]))]
    first = np.r_[True, spans[1:, 1] > spans[:-1, 1]]
    line = spans[first]
    ends = np.minimum(line[:, 2], np.r_[line[1:, 1], np.inf])
    return np.column_stack([line[:, 0], line[:, 1], ends - line[:, 1]]).astype(np.float32)


def _melody_track(midi: PrettyMIDI) -> Instrument | None:
    tracks = [track for track in midi.instruments if track.notes and not track.is_drum]
    named = [track for track in tracks if "melody" in track.name.lower()]
    return max(named or tracks, key=lambda track: float(np.mean([note.pitch for note in track.notes])), default=None)
