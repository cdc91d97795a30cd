"""What generated songs have in common with real ones: pitch classes, pace, repetition, copied runs, range.

Overlapped area: of each song a feature is taken; the distances between songs within one set and between the two sets
are two densities, and their common area is 1 when the sets cannot be told apart (Yang and Lerch 2020, WuYun's use).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt64
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.distance import cdist, pdist

from data.music.melody import TICKS, Melody

LAGS = 16
GRID = 1000
PRIME = np.uint64(0x9E3779B97F4A7C15)


def pitch_classes(song: Melody) -> Float[np.ndarray, " 12"]:
    """Share of the notes on each pitch class."""
    return np.bincount(song.pitch % 12, minlength=12) / len(song)


def pace(song: Melody) -> Float[np.ndarray, " 1"]:
    """Mean time from one beginning of a note to the next, in quarters."""
    return np.array([np.diff(song.onset).mean() / TICKS if len(song) > 1 else 0.0])


def overlapped_area(
    ours: Float[np.ndarray, "n f"],
    real: Float[np.ndarray, "m f"],
    our_counts: Float[np.ndarray, "b n"] | None = None,
    real_counts: Float[np.ndarray, "b m"] | None = None,
) -> Float[np.ndarray, " b"]:
    """Common area of the densities of distances within `real` and between `ours` and `real`; 1 = alike.

    Densities are Gaussian with the width of Scott's rule, computed on a grid.

    Args:
        ours: a feature of each generated song
        real: of each real song, at least 3
        our_counts: how often each song counts in each resample; default: once
        real_counts: likewise

    Returns:
        one value per resample
    """
    ours_once, real_once = np.ones((1, len(ours))), np.ones((1, len(real)))
    mine, theirs = (
        once if counts is None else counts for once, counts in ((ours_once, our_counts), (real_once, real_counts))
    )
    within, between = pdist(real), cdist(ours, real).ravel()
    if min(within.std(), between.std()) < 1e-12:
        return np.full(len(mine), float(abs(within.mean() - between.mean()) < 1e-12))
    widths = [values.std() * len(values) ** -0.2 for values in (within, between)]
    low = min(within.min(), between.min()) - 4 * max(widths)
    step = (max(within.max(), between.max()) + 4 * max(widths) - low) / GRID
    cells = [((values - low) / step).astype(np.int64) for values in (within, between)]
    first, second = np.triu_indices(len(real), 1)
    areas = []
    for a, b in zip(mine, theirs, strict=True):
        weights = b[first] * b[second], np.outer(a, b).ravel()
        densities = [
            gaussian_filter1d(np.bincount(cell, weight, GRID), width / step, mode="constant") / max(weight.sum(), 1e-12)
            for cell, weight, width in zip(cells, weights, widths, strict=True)
        ]
        areas.append(float(np.minimum(*densities).sum()))
    return np.array(areas)


def bar_similarity(song: Melody) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """Sums and counts, over pairs of bars 1 to 16 apart, of the share of common notes (pitch, length, place).

    Two empty bars are alike (1), as they sound alike; WuYun's code counts them as 0.
    """
    bars: list[set[tuple[int, int, int]]] = [set() for _ in song.bars]
    for bar, *note in zip(song.bar_of, song.pitch, song.duration, song.position, strict=True):
        bars[bar].add((int(note[0]), int(note[1]), int(note[2])))
    sums, counts = np.zeros(LAGS), np.zeros(LAGS)
    for lag in range(1, min(LAGS + 1, len(bars))):
        alike = [len(a & b) / len(a | b) if a or b else 1.0 for a, b in zip(bars, bars[lag:], strict=False)]
        sums[lag - 1], counts[lag - 1] = sum(alike), len(alike)
    return sums, counts


def similarity_curve(
    songs: Sequence[Melody], counts: Float[np.ndarray, "b n"] | None = None
) -> Float[np.ndarray, "b t"]:
    """Mean likeness of bars 1 to 16 apart, over all pairs of all songs; nan where no song is that long.

    Args:
        songs: any
        counts: how often each counts in each resample; default: once
    """
    weights = np.ones((1, len(songs))) if counts is None else counts
    sums, pairs = (weights @ np.array(part) for part in zip(*(bar_similarity(song) for song in songs), strict=True))
    return np.divide(sums, pairs, out=np.full(sums.shape, np.nan), where=pairs > 0)


def structure_error(ours: Float[np.ndarray, "b t"], real: Float[np.ndarray, "b t"]) -> Float[np.ndarray, " b"]:
    """Mean distance of two similarity curves; 0 = bars return as often and as far apart."""
    return np.nanmean(np.abs(ours - real), axis=1)


def copied_runs(songs: Sequence[Melody], corpus: Sequence[Melody]) -> Int[np.ndarray, " n"]:
    """Notes of the longest run of each song that stands in some song of the corpus, in any key.

    A run is told by its intervals and by the times between the beginnings of its notes.
    """
    codes: dict[tuple[int, int], int] = {}
    own = [_steps(song, codes) for song in songs]
    # A number that stands nowhere else ends every song of the corpus, so that no run leads from one into the next.
    known = [np.append(_steps(song, codes), 2**40 + at).astype(np.uint64) for at, song in enumerate(corpus)]
    there = np.concatenate([*known, np.zeros(0, np.uint64)])
    longest = np.ones(len(songs), np.int64)
    # Starts of runs that stood in the corpus so far, with their hash: h(n + 1) = h(n) * PRIME + next step.
    song = np.repeat(np.arange(len(own)), [len(steps) for steps in own])
    steps, last = np.concatenate([*own, np.zeros(0, np.uint64)]), np.cumsum([len(steps) for steps in own])
    start, hashed, others = np.arange(len(steps)), np.zeros_like(steps), np.zeros_like(there)
    for length in range(len(there)):
        inside = start + length < last[song]
        start, song, hashed = start[inside], song[inside], hashed[inside] * PRIME + steps[start[inside] + length]
        others = others[: len(there) - length] * PRIME + there[length:]
        found = np.isin(hashed, others)
        start, song, hashed = start[found], song[found], hashed[found]
        if not len(start):
            break
        longest[song] = length + 2
    return longest


def _steps(song: Melody, codes: dict[tuple[int, int], int]) -> UInt64[np.ndarray, " n"]:
    """A number for each interval and time from a note to the next."""
    pairs = zip(np.diff(song.pitch).tolist(), np.diff(song.onset).tolist(), strict=True)
    return np.array([codes.setdefault(pair, len(codes) + 1) for pair in pairs], np.uint64)
