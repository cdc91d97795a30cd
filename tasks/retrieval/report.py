"""The retrieval report: from whatever a run folder holds now to one page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.experiment.report import Figure, Listing, Part, Prose, Report, Section, Table
from tasks.experiment.report.estimates import Estimate, forest
from tasks.experiment.report.numbers import chance_share, count, decimal, interval, sentence
from tasks.experiment.report.run_parts import closing_sections, context, notice
from tasks.experiment.report.training import epoch_choice
from tasks.retrieval.metrics import recall_name
from tasks.retrieval.report_tables import every_gallery, label, ranking_table, rankings
from tasks.retrieval.results import Results, read
from tasks.retrieval.space_tables import space_tables

FIRST = recall_name(1)


def write(run: Path) -> Path:
    """Write `report.html` into a run folder, which may be incomplete: the page then says so.

    Raises:
        RunError: there is no run at this path
    """
    return compose(read(run)).write(run / "report.html")


def compose(results: Results) -> Report:
    """The report of a run as data."""
    figures = list(all_figures(results))
    sections = [
        Section("Result", list(_result(results))),
        Section("Figures", figures or [Prose(["There is no finished unit to draw yet."])]),
        Section("Every gallery", list(_galleries(results))),
        Section("One space per attribute", list(space_tables(results))),
        Section("Data", [Listing(results.account)] if results.account else []),
        *closing_sections(results, "retrieval"),
    ]
    source = str((results.config.get("pairs") or {}).get("class_path", "")).rsplit(".", 1)[-1]
    return Report(
        title=" on ".join(filter(None, [results.own, source])),
        lead=_lead(results),
        sections=[section for section in sections if section.parts],
        notice=notice(results, results.summary is not None),
        context=context(results, "retrieval"),
    )


def all_figures(results: Results) -> Iterator[Figure]:
    """Every figure the run has the numbers for."""
    if results.summary is not None:
        for at, (gallery, way, rows) in enumerate(rankings(results.summary)):
            yield _arms(at, gallery, way, rows[rows["metric"] == FIRST], results.own)
    if len(results.epochs):
        yield epoch_choice(
            results.epochs,
            "validation_mrr",
            "higher",
            "MRR on validation",
            "Mean reciprocal rank over both directions of the validation galleries",
        )


def _arms(at: int, gallery: str, way: str, rows: pd.DataFrame, own: str) -> Figure:
    estimates = [
        Estimate(
            label(row.arm, row.score), row.value, row.low, row.high,
            "own" if (row.arm, row.score) == (own, "own") else "baseline",
        )
        for row in rows.itertuples()
    ]  # fmt: skip
    first = rows.iloc[0]
    return forest(
        f"arms-{at}",
        estimates,
        title=f"{gallery}, {way}",
        axis=f"{FIRST} (higher is better)",
        caption="Share of queries with a right item first, with 95 % intervals from resampling queries.",
        n=f"{count(int(first['n']), 'query', 'queries')}, gallery of {count(int(first['gallery']), 'item')}",
        lines={"chance": float(first["chance"])},
    )


def _result(results: Results) -> Iterator[Part]:
    if results.summary is None:
        yield Prose(["This run has not been evaluated yet: it has no summary.csv. `retrieval evaluate RUN` writes it."])
        return
    for at, (gallery, way, rows) in enumerate(rankings(results.summary)):
        if at < 2:
            yield ranking_table(rows, results.own, gallery, way)
    if results.comparisons is not None and len(results.comparisons):
        first = results.comparisons[results.comparisons["gallery_name"] == results.comparisons["gallery_name"].iloc[0]]
        yield Prose([sentence(said) for said in first.loc[first["metric"] == FIRST, "sentence"]])


def _galleries(results: Results) -> Iterator[Part]:
    """Every ranking, and every difference with its interval."""
    if results.summary is None:
        return
    yield every_gallery(results.summary)
    if results.comparisons is None or results.comparisons.empty:
        return
    rows = [
        [
            *(row.gallery_name, row.direction, row.metric, row.b),
            *(decimal(row.a_value), decimal(row.b_value), decimal(row.difference, signed=True)),
            interval(row.low, row.high, signed=True),
        ]
        for row in results.comparisons.itertuples()
    ]
    header = ["gallery", "direction", "metric", "other", results.own, "the other", "difference", "95 % interval"]
    yield Table(
        header, rows, f"{results.own} minus every other arm on the same queries; positive: {results.own} is higher."
    )


def _lead(results: Results) -> str:
    """What was reached in the first gallery, and whether it beats every other arm there."""
    if results.summary is None or results.own not in set(results.summary["arm"]):
        return f"Nothing can be concluded yet: no unit of {results.own} is finished and measured."
    ours = results.summary[(results.summary["arm"] == results.own) & (results.summary["score"] == "own")]
    row = ours[ours["metric"] == FIRST].iloc[0]
    span = interval(row["low"], row["high"])
    reached = (
        f"{results.own} finds a right item first for {decimal(row['value'])} ({span}) of the queries of "
        f"{row['gallery_name']}, {row['direction']}; a random order finds {chance_share(row['chance'])}"
    )
    table = results.comparisons
    if table is None or table.empty:
        return sentence(reached)
    here = table[
        (table["metric"] == FIRST)
        & (table["gallery_name"] == row["gallery_name"])
        & (table["direction"] == row["direction"])
    ]
    if here.empty:
        return sentence(reached)
    strongest = here.loc[here["b_value"].astype(float).idxmax()]
    return f"{sentence(str(strongest['sentence']))} {sentence(reached)}" if np.isfinite(row["value"]) else reached
