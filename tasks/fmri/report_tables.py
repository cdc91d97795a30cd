"""The tables of an fMRI report: every arm between ceiling and chance, retrieval, subjects and folds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tasks.experiment.compare import Interval
from tasks.experiment.report import Measured, MetricRow, MetricTable, Part, Prose, Role
from tasks.experiment.report.estimates import Estimate
from tasks.fmri.evaluation import ALL, CHANCE

TITLES = {
    "accuracy": ("Accuracy ↑", "top-1"),
    "two_way": ("Two-way ↑", "identification"),
    "top5": ("Top-5 ↑", ""),
    "forward_top1": ("Forward ↑", "retrieval, top-1"),
    "forward_top5": ("Forward ↑ ", "retrieval, top-5"),
    "backward_top1": ("Backward ↑", "retrieval, top-1"),
    "backward_top5": ("Backward ↑ ", "retrieval, top-5"),
}


OVER_RUNS = "the subject's runs, or over its samples where it has one run"


def interval_of(row: Any) -> Interval:
    """The columns value, low and high of a row."""
    return Interval(float(row["value"]), float(row["low"]), float(row["high"]))


def several(unit: str) -> str:
    """What an interval resamples, in the plural."""
    return "stimuli" if unit == "stimulus" else f"{unit}s"


@dataclass(frozen=True)
class Scoreboard:
    """The summary of a run, seen from its own arm.

    Attributes:
        rows: of summary.csv; none while a run is not evaluated
        own: the model under test
        controls: arms that see no brain, such as the position in the run
    """

    rows: pd.DataFrame
    own: str
    controls: tuple[str, ...] = ()

    @property
    def arms(self) -> list[str]:
        """Our own first, then the others in their order."""
        return sorted(dict.fromkeys(self.rows["arm"]), key=lambda arm: arm != self.own)

    @property
    def subjects(self) -> list[str]:
        return [subject for subject in dict.fromkeys(self.rows["subject"]) if subject != ALL]

    def of(self, arm: str, metric: str, subject: str = ALL) -> pd.Series | None:
        at = (self.rows["arm"] == arm) & (self.rows["metric"] == metric) & (self.rows["subject"] == subject)
        found = self.rows[at]
        return None if found.empty else found.iloc[0]

    def interval(self, arm: str, metric: str, subject: str = ALL) -> Interval:
        row = self.of(arm, metric, subject)
        nothing = float("nan")
        return Interval(nothing, nothing, nothing) if row is None else interval_of(row)

    def measured(self, arm: str, metric: str, subject: str = ALL) -> Measured | None:
        row = self.of(arm, metric, subject)
        return None if row is None else Measured(float(row["value"]), float(row["low"]), float(row["high"]))

    def role(self, arm: str) -> Role:
        return "own" if arm == self.own else "chance" if arm == CHANCE else "baseline"

    def estimates(self, metric: str) -> list[Estimate]:
        """Every arm but chance, for a figure."""
        found = []
        for arm in self.arms:
            value = self.interval(arm, metric)
            if self.role(arm) != "chance" and np.isfinite(value.value):
                found.append(Estimate(arm, value.value, value.low, value.high, self.role(arm)))
        return found

    def reference(self, metric: str, subject: str = ALL) -> dict[str, float]:
        """Chance, and what the labels reach when permuted within runs."""
        row = self.of(self.own, metric, subject)
        if row is None and self.arms:
            row = self.of(self.arms[0], metric, subject)
        if row is None:
            return {}
        lines = {"chance": float(row["chance"])}
        if np.isfinite(float(row["null_p95"])):
            lines["permuted, p95"] = float(row["null_p95"])
        return lines

    @property
    def strongest_rival(self) -> str | None:
        """The other arm that sees brains with the highest accuracy."""
        rivals = {
            e.label: e.value
            for e in self.estimates("accuracy")
            if e.role == "baseline" and e.label not in self.controls
        }
        return max(rivals, key=lambda arm: rivals[arm]) if rivals else None


def headline(board: Scoreboard, ceiling: float | None, on_whom: str) -> MetricTable:
    """Every arm, between the ceiling and chance.

    Args:
        board: of a run
        ceiling: the accuracy nobody is expected to exceed, where it is known
        on_whom: samples and intervals, in words
    """
    shown = [m for m in ("accuracy", "two_way", "top5") if _worth_showing(board, m)]
    columns = {TITLES[m][0]: TITLES[m][1] for m in shown} | {"Permuted, p95": "accuracy, labels permuted within runs"}
    rows = []
    if ceiling is not None:
        rows.append(MetricRow("ceiling", {TITLES["accuracy"][0]: Measured(ceiling)}, "ceiling", "known of these data"))
    for arm in board.arms:
        if board.role(arm) == "chance":
            continue
        cells = {TITLES[m][0]: cell for m in shown if (cell := board.measured(arm, m))}
        row = board.of(arm, "accuracy")
        if row is not None and np.isfinite(float(row["null_p95"])):
            cells["Permuted, p95"] = Measured(float(row["null_p95"]))
        remark = "a control: it sees no brain" if arm in board.controls else ""
        rows.append(MetricRow(arm, cells, board.role(arm), remark))
    limits = {TITLES[m][0]: Measured(float(row["chance"])) for m in shown if (row := _any_row(board, m)) is not None}
    rows.append(MetricRow(CHANCE, limits, "chance", "a guess among the candidates"))
    return MetricTable(columns, rows, f"{on_whom} ↑ higher is better.")


def in_parts(board: Scoreboard, classes: pd.DataFrame | None, unit: str, most: int) -> Iterator[Part]:
    """Retrieval of every arm; the model under test per class and per subject; every arm per subject.

    Args:
        board: of a run
        classes: of classes.csv
        unit: what the intervals of classes resample
        most: classes that a table may hold
    """
    if (table := retrieval(board)) is not None:
        yield table
    if classes is not None:
        own = classes[classes["arm"] == board.own].rename(columns={"label": "part"})
        if (n := own["part"].nunique()) <= most:
            yield from own_per("class", own, board.own, several(unit))
        else:
            yield Prose([f"{n} classes are too many for a table here; classes.csv has every metric of each."])
    if board.subjects:
        own = board.rows[(board.rows["arm"] == board.own) & board.rows["subject"].isin(board.subjects)]
        yield from own_per("subject", own.rename(columns={"subject": "part"}), board.own, OVER_RUNS)
    if (table := by_subject(board)) is not None:
        yield table


def retrieval(board: Scoreboard) -> MetricTable | None:
    """Brain to candidate and candidate to brain; None where no candidate's gallery is square."""
    shown = [m for m in TITLES if "ward" in m and any(board.of(arm, m) is not None for arm in board.arms)]
    if not shown:
        return None
    rows = []
    for arm in board.arms:
        if board.role(arm) != "chance":
            cells = {TITLES[m][0]: cell for m in shown if (cell := board.measured(arm, m))}
            rows.append(MetricRow(arm, cells, board.role(arm)))
    some = {m: row for m in shown if (row := _any_row(board, m)) is not None}
    rows.append(MetricRow(CHANCE, {TITLES[m][0]: Measured(float(r["chance"])) for m, r in some.items()}, "chance"))
    note = next(iter(some.values()))["note"]
    return MetricTable(
        {TITLES[m][0]: TITLES[m][1] for m in shown}, rows,
        "Retrieval of the candidate from the brain (forward) and of the brain from the candidate (backward), mean and "
        f"95 % bootstrap {note}.",
    )  # fmt: skip


def own_per(kind: str, rows: pd.DataFrame, own: str, over: str) -> Iterator[MetricTable]:
    """Every metric of the model under test in each class or subject; nothing where there is only one.

    Args:
        kind: what a row is, `class` or `subject`
        rows: columns part, metric, value, low, high, chance, note
        own: the model's name
        over: what intervals resample, in words
    """
    parts = list(dict.fromkeys(rows["part"].astype(str)))
    there = rows.loc[rows["chance"] < 1, "metric"].unique()
    both_ways = [m for m in TITLES if "ward" in m and m in there]
    shown = [m for m in ("accuracy", "two_way", *(both_ways or ["top5"])) if m in there]
    if len(parts) < 2 or not shown:
        return
    found: dict[str, dict[str, Measured]] = {part: {} for part in (*parts, CHANCE)}
    for row in rows[rows["metric"].isin(shown)].to_dict("records"):
        title = TITLES[row["metric"]][0]
        found[str(row["part"])][title] = Measured(float(row["value"]), float(row["low"]), float(row["high"]))
        found[CHANCE][title] = Measured(float(row["chance"]))
    galleries = rows.loc[rows["metric"].isin(both_ways), "note"]
    where = f" Retrieval {galleries.iloc[0]} in {kind} {parts[0]}." if len(galleries) else ""
    yield MetricTable(
        {TITLES[m][0]: TITLES[m][1] for m in shown},
        [MetricRow(part, cells, "chance" if part == CHANCE else "baseline") for part, cells in found.items()],
        f"{own} per {kind}. Intervals: 95 %, bootstrap over {over}.{where}",
    )


def by_subject(board: Scoreboard) -> MetricTable | None:
    """Accuracy of every arm in every subject; None for one subject."""
    if not board.subjects:
        return None
    arms = [arm for arm in board.arms if board.role(arm) != "chance"]
    columns = {arm: "accuracy" for arm in arms}
    rows = [
        MetricRow(
            subject,
            {arm: cell for arm in arms if (cell := board.measured(arm, "accuracy", subject))},
            remark=_subject_remark(board, subject),
        )
        for subject in board.subjects
    ]
    return MetricTable(columns, rows, f"Accuracy of every arm per subject; intervals over {OVER_RUNS}.")


def leakage_rows(table: pd.DataFrame) -> Iterator[list[Any]]:
    """Cells of the leakage comparison: unit, split, accuracy, interval."""
    for row in table.to_dict("records"):
        yield [
            row["unit"],
            row["split"],
            f"{row['value']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            int(row["n"]),
        ]


def _worth_showing(board: Scoreboard, metric: str) -> bool:
    row = _any_row(board, metric)
    return row is not None and float(row["chance"]) < 1


def _any_row(board: Scoreboard, metric: str) -> pd.Series | None:
    return next((row for arm in board.arms if (row := board.of(arm, metric)) is not None), None)


def _subject_remark(board: Scoreboard, subject: str) -> str:
    lines = board.reference("accuracy", subject)
    return "permuted, p95 " + f"{lines['permuted, p95']:.3f}" if "permuted, p95" in lines else ""
