"""Generated songs beside real ones: what they share, what they keep, what they copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.music.book import SongBook
from data.music.melody import Melody
from tasks.experiment.compare import percentile_interval, resample
from tasks.melody.judged import Judged, generated_songs, judged_songs, others
from tasks.melody.metrics import (
    copied_runs,
    overlapped_area,
    pace,
    pitch_classes,
    similarity_curve,
    structure_error,
)
from tasks.melody.rules import scale_of
from tasks.melody.vocabulary import key_of

REAL = "other real songs"
"""Name of the ceiling: training songs of the genre beside the same held-out songs."""
LIKENESS = {
    "OA(PCH)": "pitch classes, overlapped area (higher is better)",
    "OA(IOI)": "pace, overlapped area (higher is better)",
    "SE": "how bars return, error (lower is better)",
    "copied": "notes in a row from a training song (lower is better)",
}
SHAPE = {"in key": "share of the notes", "range": "semitones, mean", "notes": "per song, mean"}
METRICS = LIKENESS | SHAPE


def generation_rows(
    units: Sequence[Path], book: SongBook, judged: Judged, arms: Sequence[str], draws: int
) -> Iterator[dict[str, Any]]:
    """Every metric of every arm that generated, then of other real songs; the last row of each is the held-out songs'.

    Args:
        units: finished ones
        book: the collection
        judged: which songs were generated
        arms: in the order of the tables
        draws: bootstrap resamples of generated and of real songs
    """
    songs = {unit: generated for unit in units if (generated := generated_songs(unit))}
    if not songs:
        return
    real = judged_songs(book, judged)
    training = book.part("train")
    counts = resample(len(real), draws, seed=1)
    for arm in arms:
        made: list[Sequence[Melody]] = [found for unit, found in songs.items() if unit.parent.name == arm]
        if made:
            yield from _rows(arm, made, real, training, counts, draws)
    beside = others(book, judged, len(real))
    rest = [song for song in training if song.name not in {other.name for other in beside}]
    if len(beside) >= 3:
        yield from _rows(REAL, [beside], real, rest, counts, draws)


def _rows(
    arm: str, made: Sequence[Sequence[Melody]], real: Sequence[Melody], training: Sequence[Melody], counts: np.ndarray,
    draws: int,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    each = [measured(songs, real, training, counts, draws) for songs in made]
    reference = float(np.percentile(copied_runs(real, training), 95))
    for metric in METRICS:
        interval = percentile_interval(np.mean([one[metric] for one in each], axis=0))
        yield {
            "arm": arm,
            "metric": metric,
            "value": interval.value,
            "low": interval.low,
            "high": interval.high,
            "songs": len(made[0]),
            "seeds": len(made),
            "real": reference if metric == "copied" else np.nan,
        }


def measured(
    songs: Sequence[Melody], real: Sequence[Melody], training: Sequence[Melody], counts: np.ndarray, draws: int
) -> Mapping[str, np.ndarray]:
    """Each metric under resamples of the songs and of the real ones; the first value is the songs' own.

    Args:
        songs: generated
        real: held out
        training: what could have been copied from
        counts: how often each real song counts in each resample
        draws: resamples
    """
    own = resample(len(songs), draws, seed=2)
    features = {
        name: [np.array([feature(song) for song in some]) for some in (songs, real)]
        for name, feature in (("OA(PCH)", pitch_classes), ("OA(IOI)", pace))
    }
    copied = np.sort(copied_runs(songs, training))
    columns = {
        "in key": [np.isin(song.pitch % 12, scale_of(key_of(song))).mean() for song in songs],
        "range": [np.ptp(song.pitch) for song in songs],
        "notes": [len(song) for song in songs],
    }
    drawn = np.random.default_rng(3).integers(0, len(songs), (draws, len(songs)))
    return {
        **{name: overlapped_area(mine, theirs, own, counts) for name, (mine, theirs) in features.items()},
        "SE": structure_error(similarity_curve(songs, own), similarity_curve(real, counts)),
        "copied": np.append(np.percentile(copied, 95), np.percentile(copied[drawn], 95, axis=1)),
        **{name: own @ np.array(values, float) / own.sum(axis=1) for name, values in columns.items()},
    }
