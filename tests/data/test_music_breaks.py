"""Long silences are shortened by whole groups of bars, and nothing that sounds is touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.music.breaks import GROUP, without_long_breaks
from data.music.melody import Melody
from data.music.pop909 import Pop909Songs

BAR = 96


def song(bars: list[int], length: int = 24) -> Melody:
    """A note on the second quarter of each of these bars."""
    onset = np.array(bars) * BAR + 24
    return Melody(
        "x", onset, np.full(len(bars), length), np.arange(60, 60 + len(bars)), np.arange(0, max(bars) + 1) * BAR
    )


@pytest.mark.parametrize(
    ("bars", "left"),
    [
        ([0, 1, 9], [0, 1, 9]),
        ([0, 1, 10], [0, 1, 6]),
        ([0, 13, 14], [0, 5, 6]),
        ([9, 30], [5, 10]),
        ([17, 18, 40, 41], [5, 6, 12, 13]),
    ],
)
def test_breaks_lose_groups_of_four_bars(bars: list[int], left: list[int]):
    before, after = song(bars), without_long_breaks(song(bars), 8)
    assert after.bar_of.tolist() == left
    assert (after.bar_of % GROUP).tolist() == (before.bar_of % GROUP).tolist()
    assert after.position.tolist() == before.position.tolist()
    assert after.pitch.tolist() == before.pitch.tolist()
    assert np.diff(after.bars).tolist() == [BAR] * (len(after.bars) - 1)


def test_bars_in_which_a_note_still_sounds_stay():
    held = song([0, 13], length=5 * BAR)
    assert without_long_breaks(held, 8).bar_of.tolist() == [0, 9]
    assert without_long_breaks(song([0, 9], length=8 * BAR), 8).bar_of.tolist() == [0, 9]


def test_a_bound_below_a_group_is_refused():
    with pytest.raises(ValueError, match="breaks=3: expected at least 4 bars, or null"):
        without_long_breaks(song([0, 9]), 3)


def test_real_pop_songs_lose_silence_alone(shared_data: Path):
    file = str(shared_data / "music" / "pop909_melody.json.xz")
    whole, cut = (Pop909Songs(file=file, breaks=breaks).load() for breaks in (None, 8))
    assert whole.split == cut.split
    for before, after in zip(whole.songs, cut.songs, strict=True):
        assert np.array_equal(before.pitch, after.pitch)
        assert np.array_equal(before.duration, after.duration)
        assert np.array_equal(before.position, after.position)
        assert np.array_equal(before.phrase, after.phrase)
    most = [int(np.diff(own.bar_of, prepend=0).max()) for own in cut.songs]
    assert np.mean(np.array(most) <= 8) > 0.99
