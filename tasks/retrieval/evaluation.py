"""From a run's units to its tables: every arm in every gallery and direction, and the arm under test against each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.experiment.compare import paired_difference, resample
from tasks.experiment.folder import write_whole
from tasks.experiment.state import nothing_finished
from tasks.retrieval.metrics import KS, MRR, draws_of, recall_name, summarise
from tasks.retrieval.ranking import OWN, WAYS
from tasks.retrieval.results import RANKING, Results, read

COMPARED = (recall_name(1), MRR)
COLUMNS = ("a", "b", "gallery_name", "direction", "metric", "a_value", "b_value", "difference", "low", "high", "n")


def evaluate_run(run: Path, draws: int = 1000) -> Results:
    """Measure whatever units of a run are finished; write `summary.csv` and `comparisons.csv`.

    Args:
        run: the run folder
        draws: bootstrap resamples of queries

    Raises:
        RunError: no run at this path, or none of its units is finished
    """
    results = read(run)
    if results.queries.empty:
        raise nothing_finished(run)
    rankings = over_seeds(results)
    write_whole(run / "summary.csv", pd.DataFrame(summary_of(rankings, draws)).to_csv(index=False))
    compared = pd.DataFrame(comparisons_of(rankings, results.own, draws), columns=[*COLUMNS, "sentence"])
    write_whole(run / "comparisons.csv", compared.to_csv(index=False))
    return read(run)


def over_seeds(results: Results) -> dict[tuple[str, ...], pd.DataFrame]:
    """Per ranking (arm, score, gallery, direction) the metrics of every query, averaged over seeds.

    The arm under test comes first, then its other ways to rank, then the rivals as the config lists them.
    """
    table = results.queries
    for k in KS:
        table = table.assign(**{recall_name(k): (table["rank"] <= k).astype(float)})
    order = [results.own, *(results.config.get("rivals") or {})]
    found = {}
    for key, rows in table.groupby(list(RANKING), sort=False):
        names = tuple(str(part) for part in (key if isinstance(key, tuple) else (key,)))
        mean = rows.drop(columns=[*RANKING, "fold", "seed"]).groupby("query", sort=True).mean()
        mean.attrs["seeds"] = int(rows["seed"].nunique())
        found[names] = mean
    galleries = list(dict.fromkeys(table["gallery_name"]))
    ways = list(dict.fromkeys(table["direction"]))

    def place(key: tuple[str, ...]) -> tuple[int, int, int, int]:
        arm, score, gallery, way = key
        return galleries.index(gallery), ways.index(way), order.index(arm), list(WAYS).index(score)

    return {key: found[key] for key in sorted(found, key=place)}


def summary_of(rankings: dict[tuple[str, ...], pd.DataFrame], draws: int = 1000) -> Iterator[dict[str, Any]]:
    """One row per ranking and metric: value, interval over queries, chance, queries, gallery size, seeds."""
    for key, table in rankings.items():
        for metric in summarise(table, draws=draws):
            yield dict(zip(RANKING, key, strict=True)) | metric._asdict() | {"seeds": table.attrs["seeds"]}


def comparisons_of(
    rankings: dict[tuple[str, ...], pd.DataFrame], own: str, draws: int = 1000
) -> Iterator[dict[str, Any]]:
    """Paired differences, on the same queries, of the arm under test and every other ranking of the same gallery."""
    for (arm, score, gallery, way), theirs in rankings.items():
        ours = rankings.get((own, OWN, gallery, way))
        if ours is None or (arm, score) == (own, OWN):
            continue
        shared = ours.index.intersection(theirs.index)
        counts = resample(len(shared), draws)
        a, b = (draws_of(table.loc[shared], counts) for table in (ours, theirs))
        other = arm if score == OWN else f"{arm}, {WAYS[score]}"
        for metric in COMPARED:
            result = paired_difference(own, other, a[metric], b[metric], metric=metric, n=len(shared))
            yield {
                "a": own,
                "b": other,
                "gallery_name": gallery,
                "direction": way,
                "metric": metric,
                "a_value": result.a_value,
                "b_value": result.b_value,
                "difference": result.difference.value,
                "low": result.difference.low,
                "high": result.difference.high,
                "n": result.n,
                "sentence": result.sentence.replace("on this cohort", f"in {metric} on {gallery}, {way}"),
            }
