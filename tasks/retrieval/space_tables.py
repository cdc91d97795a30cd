"""The tables of attribute spaces: how well each ranks by its attribute, and what it still tells about the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from tasks.experiment.report import Measured, MetricRow, MetricTable, Part, Role, Table
from tasks.experiment.report.numbers import count, decimal
from tasks.retrieval.metrics import MAP, summarise
from tasks.retrieval.results import Results


def space_summary(results: Results, draws: int = 1000) -> list[dict[str, Any]]:
    """One row per arm and attribute: mAP with its interval over queries, what a random order reaches, sizes."""
    rows = []
    for (arm, attribute), table in results.spaces.groupby(["arm", "attribute"], sort=False):
        mean = table.drop(columns=["arm", "fold", "seed", "attribute"]).groupby("query", sort=True).mean()
        metric = next(one for one in summarise(mean, draws=draws) if one.metric == MAP)
        rows.append({"arm": arm, "attribute": attribute, **metric._asdict(), "seeds": table["seed"].nunique()})
    return rows


def space_tables(results: Results) -> Iterator[Part]:
    """What a report says about spaces; nothing when the run has none."""
    if results.spaces.empty:
        return
    rows = pd.DataFrame(space_summary(results))
    configured = (results.config.get("spaces") or {}).get("embedders") or {}
    embedders = list(dict.fromkeys([*configured, *rows["arm"]]))
    attributes = list(dict.fromkeys(rows["attribute"]))
    table = []
    for arm in sorted(set(rows["arm"]), key=embedders.index):
        own = rows[rows["arm"] == arm].set_index("attribute")
        cells = {str(name): Measured(row["value"], row["low"], row["high"]) for name, row in own.iterrows()}
        role: Role = "own" if arm == embedders[0] else "baseline"
        table.append(MetricRow(arm, cells, role))
    first = rows.drop_duplicates("attribute").set_index("attribute")
    lucky = {name: Measured(float(first.at[name, "chance"])) for name in attributes}
    table.append(MetricRow("a random order", lucky, "chance"))
    meanings = {
        name: f"{MAP}; {count(int(first.at[name, 'n']), 'query', 'queries')} among "
        f"{count(int(first.at[name, 'gallery']), 'item')}"
        for name in attributes
    }
    seeds = count(int(rows["seeds"].max()), "seed")
    yield MetricTable(
        meanings,
        table,
        "Test items with the same value of the attribute are right answers; a fifth of the items ask, the others are "
        f"searched, each in the space of the attribute. Mean over queries and {seeds}; 95 % intervals from resampling "
        "queries; higher is better.",
    )
    yield from _entanglement(results, embedders)


def _entanglement(results: Results, embedders: list[str]) -> Iterator[Part]:
    for arm in embedders:
        own = results.probes[results.probes["arm"] == arm]
        if own.empty:
            continue
        mean = own.groupby(["space", "attribute"], sort=False)[["accuracy", "majority"]].mean()
        names = list(dict.fromkeys(own["attribute"]))
        spaces = list(dict.fromkeys(own["space"]))
        rows: list[list[object]] = [
            [space, *(decimal(float(mean.loc[(space, name), "accuracy"]), 2) for name in names)] for space in spaces
        ]
        most: list[object] = [
            "most frequent class",
            *(decimal(float(mean.loc[(spaces[0], name), "majority"]), 2) for name in names),
        ]
        rows.append(most)
        yield Table(
            ["space of", *names], rows,
            f"{arm}: what each space tells about every attribute (accuracy of a linear probe on test items). Good: "
            "high on the diagonal, elsewhere near the most frequent class.",
        )  # fmt: skip
