"""Tables of the melody report."""

from __future__ import annotations

import pandas as pd

from tasks.experiment.report import Measured, MetricRow, MetricTable, Role, Table
from tasks.experiment.report.numbers import count, decimal, interval
from tasks.melody.evaluation import TEST
from tasks.melody.generation import LIKENESS, REAL, SHAPE
from tasks.melody.results import Results

MOST_PARTS = 5
ROUGH = frozenset({"copied", "range", "notes"})


def likelihood_table(results: Results, first: str) -> MetricTable:
    """Every arm on the test pieces: nats of each part, and of everything per 16th."""
    assert results.summary is not None
    test = results.summary[results.summary["split"] == TEST]
    own = test[test["arm"] == (results.own if results.own in set(test["arm"]) else results.arms[0])]["part"].tolist()
    parts = [part for part in own if part != first][: MOST_PARTS - 1]
    columns = {part: f"nats per {part} (lower is better)" for part in [first, *parts]}
    whole = next((part for part in ("note", "token") if part in own), first)
    columns[f"{whole}, per 16th"] = "nats per 16th of music (lower is better)"
    rows = []
    for arm in results.arms:
        cells = {}
        for row in test[test["arm"] == arm].itertuples():
            if row.part in columns:
                cells[row.part] = Measured(row.value, row.low, row.high)
            if row.part == whole:
                cells[f"{whole}, per 16th"] = Measured(row.per_16th)
        rows.append(MetricRow(arm, cells, _role(arm, results)))
    shown = test[test["part"].isin(columns)]
    cases, seeds = (int(shown[name].max()) for name in ("cases", "seeds"))
    caption = (
        f"Mean -log p on the {count(cases, 'test piece')} that every arm can say, 95 % intervals from resampling "
        f"pieces; {count(seeds, 'seed')}. A dash was not measured: an arm does not predict that part alone."
    )
    return MetricTable(columns, rows, caption)


def generation_tables(results: Results) -> list[MetricTable]:
    """Generated songs, the table's floor and other real songs beside the same held-out songs: likeness, then shape."""
    assert results.generation is not None
    rows: list[tuple[str, dict[str, Measured], Role]] = []
    for arm in dict.fromkeys(results.generation["arm"]):
        own = results.generation[results.generation["arm"] == arm]
        cells = {
            row.metric: Measured(row.value, row.low, row.high, digits=1 if row.metric in ROUGH else 3)
            for row in own.itertuples()
        }
        rows.append((arm, cells, "ceiling" if arm == REAL else _role(arm, results)))
    copied = results.generation.loc[results.generation["metric"] == "copied", "real"].iloc[0]
    songs = int(results.generation["songs"].iloc[0])
    caption = (
        f"{count(songs, 'generated song')} of each arm beside as many held-out songs, with 95 % intervals from "
        f"resampling both. Copied: the longest run of a song that stands in a training song, in any key, 95th "
        f"percentile over songs; of the held-out songs themselves it is {decimal(copied, 1)} notes. Resampled songs "
        "repeat, so their overlapped area is a little lower than that of the songs: the interval tells how it varies."
    )
    return [
        MetricTable(
            columns,
            [
                MetricRow(arm, {name: cell for name, cell in cells.items() if name in columns}, role)
                for arm, cells, role in rows
            ],
            said,
        )
        for columns, said in ((LIKENESS, caption), (SHAPE, "The same songs: pitches in the key, range and length."))
    ]


def binding_table(results: Results) -> Table | None:
    """How often each rule bound the model under test; None when nothing was generated under rules."""
    table = results.binding
    own = table[table["arm"] == results.own]
    if own.empty:
        return None
    grouped = own.groupby("rule", sort=False)[["choices", "overruled"]].sum()
    weighted = (own["removed"] * own["choices"]).groupby(own["rule"], sort=False).sum() / grouped["choices"]
    rows = [
        [rule, f"{int(row.choices):,}", f"{row.overruled / row.choices:.1%}", f"{weighted[rule]:.1%}"]
        for rule, row in zip(grouped.index, grouped.itertuples(), strict=True)
    ]
    header = ["rule", "choices", "overruled", "probability removed"]
    return Table(
        header, rows, "How often the grammar overruled the model's likeliest value, and what it removed on average."
    )


def every_likelihood(summary: pd.DataFrame) -> Table:
    """All splits, parts and arms."""
    rows = [
        [
            *(row.split, row.part, row.arm, decimal(row.value), interval(row.low, row.high), decimal(row.per_16th)),
            *(f"{row.n:,}", str(row.cases), str(row.seeds)),
        ]
        for row in summary.itertuples()
    ]
    header = ["split", "part", "arm", "nats", "95 % interval", "per 16th", "n", "pieces", "seeds"]
    return Table(header, rows, "Mean -log p of each part; lower is better.")


def _role(arm: str, results: Results) -> Role:
    return "own" if arm == results.own else "baseline"
