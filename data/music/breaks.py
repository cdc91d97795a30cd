"""Long silences of a melody, where the other instruments of its song play, shortened by whole groups of bars."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from data.music.melody import Melody

GROUP = 4
"""Bars that are taken out together, so that a song keeps its groups of four."""


def without_long_breaks(song: Melody, most: int) -> Melody:
    """The same notes, with at most `most` barlines between the beginnings of two of them and before the first.

    Bars are taken out in groups of four, right before the note that ends the break, as far as they are silent; a break
    is left between `most - 3` and `most` bars long.

    Args:
        song: any melody
        most: at least 4
    """
    if most < GROUP:
        raise ValueError(f"breaks={most}: expected at least {GROUP} bars, or null for breaks as they are")
    bar, end = song.bar_of, song.onset + song.duration
    gone = np.zeros(len(song.bars), bool)
    for own, before, sung in zip(bar, np.r_[0, bar[:-1]], np.r_[song.bars[0], end[:-1]], strict=True):
        over = -(-max(0, own - before - most) // GROUP) * GROUP
        while over and song.bars[own - over] < sung:
            over -= GROUP
        gone[own - over : own] = True
    if not gone.any():
        return song
    length = np.append(np.diff(song.bars), 0)
    earlier = np.cumsum(np.where(gone, length, 0))
    bars = (song.bars - (earlier - np.where(gone, length, 0)))[~gone]
    return replace(song, onset=song.onset - earlier[bar], bars=bars)
