"""Whether a generated melody kept every promise: an account that knows nothing of how it was generated."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from data.music.melody import Melody
from tasks.melody.frame import Frame
from tasks.melody.rules import Rules, scale_of


def broken(melody: Melody, frame: Frame, rules: Rules, grid: int = 3) -> list[str]:
    """What is wrong with a melody, a sentence each; empty = every promise is kept.

    Args:
        melody: as generated, or as read back from a file
        frame: what it was generated into
        rules: what could be added
        grid: ticks on which added notes begin and end
    """
    return list(_faults(melody, frame, rules, grid))


def _faults(melody: Melody, frame: Frame, rules: Rules, grid: int) -> Iterator[str]:
    onset, end, pitch = melody.onset, melody.onset + melody.duration, melody.pitch
    notes, _ = frame.obligations()
    due = set(map(tuple, notes[:, :2].tolist()))
    sung = set(zip(onset.tolist(), pitch.tolist(), strict=True))
    if missing := sorted(due - sung):
        yield f"{len(missing)} notes that must come are not there, first {missing[0]}"
    held = {(int(o), int(p)): int(d) for o, p, d in notes if d}
    lengths = dict(zip(zip(onset.tolist(), pitch.tolist(), strict=True), melody.duration.tolist(), strict=True))
    if changed := [note for note, length in held.items() if lengths.get(note) != length]:
        yield f"{len(changed)} kept notes have another length, first {changed[0]}"
    if (end[:-1] > onset[1:]).any():
        yield "two notes sound together"
    if onset[0] < frame.bars[0] or end.max() > frame.end:
        yield f"notes from tick {onset[0]} to {end.max()} leave the bars {frame.bars[0]} to {frame.end}"
    if melody.metre != frame.metre or not np.array_equal(melody.bars, frame.bars):
        yield f"metre {melody.metre} and bars are not those of the frame ({frame.metre})"
    if melody.key != frame.key:
        yield f"key {melody.key} is not {frame.key}"
    added = np.array([note not in due for note in zip(onset.tolist(), pitch.tolist(), strict=True)])
    if rules.scale == "key" and (strange := pitch[added & ~np.isin(pitch % 12, scale_of(frame.key))]).size:
        yield f"added pitch {strange[0]} is not in {frame.key}"
    low, high = rules.ends
    if ((pitch[added] < low) | (pitch[added] > high)).any():
        yield f"added pitches leave the range {low} to {high}"
    off = added & ((melody.position % grid > 0) | (melody.duration % grid > 0))
    if off.any():
        yield f"an added note at tick {onset[off][0]} is off the grid"
