"""The tables of a retrieval report: the model, its pooled vectors, rivals and chance, in every gallery."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from tasks.experiment.report import Measured, MetricRow, MetricTable, Role, Table
from tasks.experiment.report.numbers import count, decimal, interval
from tasks.retrieval.metrics import KS, MEDIAN_RANK, MRR, TIE_RULE, metric_names, recall_name
from tasks.retrieval.ranking import WAYS

DIGITS = {MEDIAN_RANK: 1}
HEADLINE = {
    recall_name(1): "share of queries with a right item first; higher is better",
    recall_name(5): "in the first five",
    recall_name(10): "in the first ten",
    MEDIAN_RANK: "of the first right item; lower is better",
    MRR: "mean reciprocal rank; higher is better",
}


def label(arm: str, score: str) -> str:
    """What a row is called."""
    return f"{arm}, {WAYS[score]}" if WAYS[score] else arm


def rankings(summary: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Gallery, direction and the rows of the summary that belong to them, in order."""
    for (gallery, way), rows in summary.groupby(["gallery_name", "direction"], sort=False):
        yield str(gallery), str(way), rows


def ranking_table(rows: pd.DataFrame, own: str, gallery: str, way: str) -> MetricTable:
    """Every arm in one gallery and direction, and a random order."""
    table = []
    for (arm, score), metrics in rows.groupby(["arm", "score"], sort=False):
        cells = {
            row.metric: Measured(row.value, row.low, row.high, digits=DIGITS.get(row.metric, 3))
            for row in metrics.itertuples()
            if row.metric in HEADLINE
        }
        role: Role = "own" if (arm, score) == (own, "own") else "baseline"
        table.append(MetricRow(label(str(arm), str(score)), cells, role))
    chances = rows.drop_duplicates("metric").set_index("metric")["chance"]
    cells = {name: Measured(float(chances[name]), digits=DIGITS.get(name, 3)) for name in HEADLINE}
    table.append(MetricRow("a random order", cells, "chance"))
    first = rows.iloc[0]
    caption = (
        f"{gallery}, {way}: {count(int(first['n']), 'query', 'queries')}, a gallery of "
        f"{count(int(first['gallery']), 'item')}, mean over queries and {count(int(first['seeds']), 'seed')}; 95 % "
        f"intervals from resampling queries; {TIE_RULE}."
    )
    return MetricTable(HEADLINE, table, caption)


def every_gallery(summary: pd.DataFrame) -> Table:
    """All metrics of all rankings, wins and losses alike."""
    names = metric_names(KS)
    rows = []
    for (gallery, way, arm, score), metrics in summary.groupby(
        ["gallery_name", "direction", "arm", "score"], sort=False
    ):
        known = metrics.set_index("metric")
        first = known.loc[recall_name(1)]
        span = interval(float(first["low"]), float(first["high"]))
        values = [decimal(float(known.at[name, "value"]), DIGITS.get(name, 3)) for name in names]
        rows.append(
            [
                *(gallery, way, label(str(arm), str(score)), *values, span, decimal(float(first["chance"]), 4)),
                *(int(first["n"]), int(first["gallery"])),
            ]
        )
    header = ["gallery", "direction", "arm", *names, f"{recall_name(1)} interval", f"{recall_name(1)} by chance"]
    return Table([*header, "queries", "gallery size"], rows, f"Every ranking. {TIE_RULE.capitalize()}.")
