"""From a run's units to its tables: how likely held-out pieces are, and how generated songs compare with real ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.music.book import SongBook
from tasks.experiment.compare import paired_difference, percentile_interval, resample
from tasks.experiment.folder import write_whole
from tasks.experiment.state import finished_units, nothing_finished
from tasks.melody.experiment import experiment_of
from tasks.melody.generation import generation_rows
from tasks.melody.judged import judged_songs
from tasks.melody.results import Results, read
from tasks.melody.shown import keep_real

SHOWN = ["split", "part", "arm", "value", "low", "high", "per_16th", "n", "cases", "seeds"]
TEST = "test"


def evaluate_run(run: Path, draws: int = 1000) -> Results:
    """Measure whatever units of a run are finished; write summary.csv, comparisons.csv and generation.csv.

    Args:
        run: the run folder
        draws: bootstrap resamples of pieces

    Raises:
        RunError: no run at this path, or none of its units is finished
    """
    results = read(run)
    if results.measured.empty:
        raise nothing_finished(run)
    cases = over_seeds(results)
    write_whole(run / "summary.csv", pd.DataFrame(likelihoods(cases, draws), columns=SHOWN).to_csv(index=False))
    compared = pd.DataFrame(comparisons_of(cases, results.own, draws))
    write_whole(run / "comparisons.csv", compared.to_csv(index=False)) if len(compared) else None
    experiment = experiment_of(results.config)
    units = finished_units(run)
    if isinstance(experiment.pieces, SongBook):
        rows = list(generation_rows(units, experiment.pieces, experiment.judged, results.arms, min(draws, 200)))
        if rows:
            write_whole(run / "generation.csv", pd.DataFrame(rows).to_csv(index=False))
            keep_real(run, judged_songs(experiment.pieces, experiment.judged)[: experiment.judged.shown])
    return read(run)


def over_seeds(results: Results) -> dict[tuple[str, str, str], pd.DataFrame]:
    """Per split, part and arm: n, sixteenths and nats of every piece, nats averaged over seeds."""
    found = {}
    table = results.measured
    own = table[table["arm"] == results.own]
    for split in dict.fromkeys(table["split"]):
        for part in dict.fromkeys([*own["part"], *table["part"]]):
            for arm in results.arms:
                rows = table[(table["split"] == split) & (table["part"] == part) & (table["arm"] == arm)]
                if len(rows):
                    mean = rows.groupby("case", sort=True)[["n", "sixteenths", "nats"]].mean()
                    mean.attrs["seeds"] = int(rows["seed"].nunique())
                    found[split, part, arm] = mean
    return found


def likelihoods(cases: dict[tuple[str, str, str], pd.DataFrame], draws: int) -> Iterator[dict[str, Any]]:
    """One row per split, part and arm: nats per predicted thing with an interval over pieces, and per 16th of music.

    Arms are measured on the pieces that all arms with the part can say.
    """
    for (split, part, arm), table in cases.items():
        shared = _shared(cases, split, part)
        own = table.loc[shared]
        interval = percentile_interval(_means(own, resample(len(shared), draws)))
        yield {
            "split": split,
            "part": part,
            "arm": arm,
            "value": interval.value,
            "low": interval.low,
            "high": interval.high,
            "per_16th": float(own["nats"].sum() / own["sixteenths"].sum()),
            "n": int(own["n"].sum()),
            "cases": len(own),
            "seeds": table.attrs["seeds"],
        }


def comparisons_of(cases: dict[tuple[str, str, str], pd.DataFrame], own: str, draws: int) -> Iterator[dict[str, Any]]:
    """Paired differences, on the same test pieces, of the arm under test and every other, part by part."""
    for (split, part, arm), theirs in cases.items():
        ours = cases.get((split, part, own))
        if split != TEST or ours is None or arm == own:
            continue
        shared = _shared(cases, split, part)
        counts = resample(len(shared), draws)
        a, b = (_means(table.loc[shared], counts) for table in (ours, theirs))
        result = paired_difference(own, arm, a, b, metric=part, n=len(shared), higher_is_better=False)
        yield {
            "a": own,
            "b": arm,
            "part": part,
            "a_value": result.a_value,
            "b_value": result.b_value,
            "difference": result.difference.value,
            "low": result.difference.low,
            "high": result.difference.high,
            "n": result.n,
            "sentence": result.sentence.replace("on this cohort", f"in nats per {part} of the test pieces"),
        }


def _shared(cases: dict[tuple[str, str, str], pd.DataFrame], split: str, part: str) -> pd.Index:
    tables = [table for (s, p, _), table in cases.items() if (s, p) == (split, part)]
    shared = tables[0].index
    for table in tables[1:]:
        shared = shared.intersection(table.index)
    return shared


def _means(table: pd.DataFrame, counts: np.ndarray) -> np.ndarray:
    return np.asarray(counts @ table["nats"].to_numpy() / (counts @ table["n"].to_numpy()))
