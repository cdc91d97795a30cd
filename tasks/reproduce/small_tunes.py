"""small-tunes: phrases, promises, what a skeleton is worth, and generated songs beside real ones, on Han folk songs.

Of the paper (Lv et al., MMM 2025) no number is public. Ours is held against our own earlier measurements on the same
songs and against the bars that follow from them: half of the way from a Markov table to real songs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from data.music.book import SongBook
from data.music.essen import EssenSongs
from data.music.melody import Melody
from data.sources import not_here
from tasks.experiment.compare import percentile_interval, resample
from tasks.melody.compose import compose
from tasks.melody.frame import Frame
from tasks.melody.generation import measured
from tasks.melody.judged import Judged, judged_songs, others, with_judged
from tasks.melody.models.notes_network import NotesNetwork, Sizes
from tasks.melody.models.small_tunes import SmallTunes
from tasks.melody.promises import broken
from tasks.melody.results import Results
from tasks.melody.rules import Rules, Sampling
from tasks.melody.segmentation_table import segmentation_rows
from tasks.melody.trained import trained
from tasks.melody.vocabulary import Vocabulary
from tasks.reproduce.melody_run import trained_run
from tasks.reproduce.rows import Found, Result, Row, at_least, at_most, close, result
from tasks.reproduce.workers import HERE, Workers

PAPER = "small-tunes"
CONFIG, RUN = "melody/small_tunes", "small_tunes_reproduced"
REAL = {"OA(PCH)": (0.965, 0.03), "OA(IOI)": (0.936, 0.05), "SE": (0.008, 0.01)}
"""Real songs beside real songs, as measured before, and how far 100 other songs may lie from it."""
MARKOV = {"OA(PCH)": 0.760, "OA(IOI)": 0.738, "SE": 0.041}
GAIN, MOST_SE, SEEDS = 0.09, 0.02, (1, 2, 3)
RANDOM, TRAINED, AT_ONCE = 10_000, 1_000, 100
TOGETHER = 10
"""Draws of random weights in one part."""
JUDGED = Judged(genre="xiaodiao")
DECORATIVE = "decorative pitch"


class Promises(NamedTuple):
    """Songs that were drawn, those with a broken promise, and the skeleton notes they had to keep."""

    songs: int
    faults: int
    skeleton: int


def run(data_root: Path, small: bool = False, workers: Workers = HERE) -> Result:
    """Everything; training goes to `runs/melody/small_tunes_reproduced` and continues there after an interruption.

    Args:
        data_root: the imported data set music
        small: without training: phrases, promises of random weights, real songs beside real songs
        workers: who works; a training is a part, and so is every table

    Raises:
        DataError: the data set is not there
    """
    notes = data_root / "essen_han.json.xz"
    if not notes.is_file():
        raise not_here(notes, "essen")
    draws = range(-(-(AT_ONCE * 3 if small else RANDOM) // AT_ONCE))
    chunks = [draws[first : first + TOGETHER] for first in draws[::TOGETHER]]
    parts = {f"random weights, draws {own[0]} to {own[-1]}": (notes, list(own)) for own in chunks}
    tables, *promises = workers.each(_part, {"phrases and real songs": (notes, []), **parts})
    rows = [*tables, _promises_of_random_weights(promises)]
    if not small:
        results = trained_run(CONFIG, RUN, [f"music.notes={notes}"], SEEDS, workers=workers)
        rows += _worth_of_a_skeleton(results)
        rows += _generated(results)
        rows += _promises_of_trained_weights(results, _book(notes))
    return result(PAPER, rows)


def _book(notes: Path) -> SongBook:
    return with_judged(EssenSongs(notes=str(notes)).load(), JUDGED)


def _part(notes: Path, draws: Sequence[int]) -> Any:
    """The tables without networks, or what random weights of these draws break: songs, faults, skeleton notes."""
    if not draws:
        return [*segmentation_rows(notes.parent), *_real_beside_real(_book(notes))]
    return _of_random_weights(_book(notes), draws)


def _of_random_weights(book: SongBook, draws: Sequence[int]) -> Promises:
    vocabulary = Vocabulary.of(book.part("train"))
    frames = SmallTunes().frames(judged_songs(book, JUDGED)[:AT_ONCE])
    faults, skeleton = 0, 0
    for number in draws:
        torch.manual_seed(number)
        network = NotesNetwork(vocabulary, Sizes(width=16, heads=2, encoder=1, decoder=1)).eval()
        for weights in network.parameters():
            torch.nn.init.normal_(weights, std=0.2 * (number % 10))
        bad, notes = _broken(network, frames, Sampling(number, top_p=1.0))
        faults, skeleton = faults + bad, skeleton + notes
    return Promises(len(frames) * len(draws), faults, skeleton)


def _promises_of_random_weights(found: Sequence[Promises]) -> Row:
    songs, faults, skeleton = (sum(counts) for counts in zip(*found, strict=True))
    name = "random weights: share of songs that keep every promise"
    note = f"{faults} broken promises, {skeleton:,} skeleton notes in them"
    return at_least(name, 1.0, 1 - faults / songs, 0.0, note, kind="bar", n=songs, of="songs")


def _promises_of_trained_weights(results: Results, book: SongBook) -> Iterator[Row]:
    model, _ = trained(results.path)
    assert isinstance(model, SmallTunes)
    frames = model.frames(judged_songs(book, JUDGED)[:AT_ONCE])
    draws = range(TRAINED // len(frames))
    faults = sum(_broken(model.network, frames, Sampling(100 + number, top_p=1.0))[0] for number in draws)
    songs = len(frames) * len(draws)
    name, note = "trained weights: share of songs that keep every promise", f"{faults} broken promises"
    yield at_least(name, 1.0, 1 - faults / songs, 0.0, note, kind="bar", n=songs, of="songs")


def _broken(network: NotesNetwork, frames: Sequence[Frame], sampling: Sampling) -> tuple[int, int]:
    """Songs with a broken promise, and skeleton notes that had to be kept."""
    rules = Rules()
    made = compose(network, frames, sampling, rules)
    faults = sum(bool(broken(one.melody, frame, rules)) for one, frame in zip(made, frames, strict=True))
    return faults, sum(len(frame.onset) for frame in frames)


def _real_beside_real(book: SongBook) -> Iterator[Row]:
    real = judged_songs(book, JUDGED)
    beside = others(book, JUDGED, len(real))
    found = _measured(beside, real, book)
    for name, (before, tolerance) in REAL.items():
        interval = percentile_interval(found[name])
        note = f"of the training side, beside {len(real)} held-out xiaodiao; tolerance: other songs were drawn before"
        title, known = f"real songs beside real songs: {name}", Found(low=interval.low, high=interval.high)
        yield close(
            title,
            before,
            interval.value,
            tolerance,
            note,
            kind="measured",
            **(known | Found(n=len(beside), of="songs")),
        )


def _measured(songs: Sequence[Melody], real: Sequence[Melody], book: SongBook) -> dict[str, np.ndarray]:
    return dict(measured(songs, real, book.part("train"), resample(len(real), 200, seed=1), 200))


def _worth_of_a_skeleton(results: Results) -> Iterator[Row]:
    rows = results.measured[(results.measured["part"] == DECORATIVE) & (results.measured["split"] == "test")]
    sums = rows.groupby(["arm", "seed"])[["nats", "n"]].sum()
    nats = (sums["nats"] / sums["n"]).unstack("seed")
    own, none, shuffled = (nats.loc[arm] for arm in (results.own, "no skeleton", "shuffled skeletons"))
    gain = none - own
    said = ", ".join(f"{a:.3f} against {b:.3f}" for a, b in zip(own, none, strict=True))
    note = f"nats per {DECORATIVE}, seed by seed: {said}; smallest gain {gain.min():.3f}"
    notes, seeds = int(sums["n"].iloc[0]), [int(seed) for seed in nats.columns]
    name = "true skeletons: nats below none, mean of three seeds"
    yield at_least(name, GAIN, gain.mean(), 0.0, note, kind="bar", n=notes, of="notes", seeds=seeds)
    half = _half_width(results, "shuffled skeletons")
    note = (
        f"{shuffled.mean():.3f} against {none.mean():.3f} with none; tolerance: half of the 95 % interval of the mean"
    )
    name = "shuffled skeletons: no better than none"
    yield at_least(
        name, float(none.mean()), shuffled.mean(), half, note, kind="rival", n=notes, of="notes", seeds=seeds
    )


def _half_width(results: Results, arm: str) -> float:
    assert results.summary is not None
    table = results.summary
    row = table[(table["arm"] == arm) & (table["part"] == DECORATIVE) & (table["split"] == "test")].iloc[0]
    return float(row["high"] - row["low"]) / 2


def _generated(results: Results) -> Iterator[Row]:
    assert results.generation is not None
    table: pd.DataFrame = results.generation.set_index(["arm", "metric"])
    floor = {name: table.loc[("Markov table", name), "value"] for name in MARKOV}
    for name in ("OA(PCH)", "OA(IOI)"):
        row = table.loc[(results.own, name)]
        half = (MARKOV[name] + REAL[name][0]) / 2
        note = (
            f"half of the way from the Markov row measured before ({MARKOV[name]:.3f}) to real songs. Our own "
            f"Markov table sings in the keys of the held-out songs and reaches {floor[name]:.3f}"
        )
        yield at_least(f"generated xiaodiao: {name}", half, row["value"], 0.0, note, kind="bar", **_known(row))
    row = table.loc[(results.own, "SE")]
    note = f"Markov table {floor['SE']:.4f}"
    yield at_most("generated xiaodiao: SE", MOST_SE, row["value"], 0.0, note, kind="bar", **_known(row))
    row = table.loc[(results.own, "copied")]
    note = (
        "95th percentile over songs of the longest run of notes that stands in a training song, in any key; "
        "the bar is that of real songs"
    )
    yield at_most("generated xiaodiao: copied notes", row["real"], row["value"], 0.0, note, kind="bar", **_known(row))


def _known(row: pd.Series) -> Found:
    """Interval over songs and seeds."""
    seeds = list(SEEDS[: int(row["seeds"])])
    return Found(low=float(row["low"]), high=float(row["high"]), n=int(row["songs"]), of="songs", seeds=seeds)
