"""The tables of a survival report: every arm beside chance and ceiling, the folds, and all metrics of our own arm."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.experiment.report import Measured, MetricRow, MetricTable, Role
from tasks.experiment.report.estimates import Estimate
from tasks.experiment.report.numbers import p_value
from tasks.survival.metrics import COLUMNS, higher_is_better

CHANCE, CEILING = "chance", "ceiling"
"""Arms of these names are the ends of the scale, not competitors: random risks, and those a simulation knows."""

_WORDS = {
    "c_index": ("C-index", "Harrell"),
    "c_uno": ("C-index, Uno", "censoring weighted"),
    "auc_mean": ("AUC", "mean over time"),
    "ibs": ("Brier", "integrated"),
    "ibs_kaplan_meier": ("Brier of Kaplan-Meier", "one curve for all"),
    "ibs_skill": ("Brier skill", "against Kaplan-Meier"),
    "unevenness": ("Unevenness", "of survival at the own time"),
    "d_calibration_p": ("D-calibration", "p value"),
    "logrank_p": ("Log-rank", "median split, p value"),
}
_POOLED = "C-index, pooled ↑"
_HEADLINE = ("c_index", "c_uno", "auc_mean", "ibs")
_AT_CHANCE = {"c_index": 0.5, "c_uno": 0.5, "auc_mean": 0.5}
_WORTH_SAYING = re.compile("undefined|collapsed|inverted")


def title(metric: str) -> tuple[str, str]:
    """Name of a metric with an arrow towards the better side, and what it is."""
    if metric in _WORDS:
        name, what = _WORDS[metric]
    elif at := re.fullmatch(r"(auc|calibration_error)_([\d.]+)m", metric):
        name, what = {"auc": "AUC", "calibration_error": "Calibration error"}[at[1]], f"at {at[2]} months"
    else:
        name, what = metric, ""
    if metric.endswith("_p") or metric == "ibs_kaplan_meier":
        return name, what
    return f"{name} {'↑' if higher_is_better(metric) else '↓'}", what


@dataclass(frozen=True)
class Scores:
    """The summary of a run, seen from its own arm.

    Attributes:
        rows: of `metrics.evaluate`; none while a run is not evaluated
        own: the arm the report is about
    """

    rows: pd.DataFrame
    own: str

    @classmethod
    def of_summary(cls, summary: pd.DataFrame | None, own: str) -> Scores:
        return cls(pd.DataFrame(columns=list(COLUMNS)) if summary is None else summary, own)

    @property
    def over(self) -> str:
        """What the headline is over: the mean of the folds, or everybody when there is one fold."""
        return "mean" if (self.rows["fold"] == "mean").any() else "pooled"

    @property
    def arms(self) -> list[str]:
        """Our own first, then the others in their order."""
        return sorted(dict.fromkeys(self.rows["arm"]), key=lambda arm: arm != self.own)

    @property
    def folds(self) -> list[str]:
        return [fold for fold in dict.fromkeys(self.rows["fold"]) if fold not in ("mean", "pooled")]

    @property
    def ceiling(self) -> float | None:
        """The c-index of what the simulation itself knows; None for real cohorts."""
        row = self.of(CEILING, "c_index")
        return None if row is None or np.isnan(row["value"]) else float(row["value"])

    @property
    def strongest_rival(self) -> str | None:
        """The other arm with the highest c-index."""
        rivals = {e.label: e.value for e in self.estimates("c_index") if e.role == "baseline" and not np.isnan(e.value)}
        return max(rivals, key=lambda arm: rivals[arm]) if rivals else None

    def role(self, arm: str) -> Role:
        if arm == self.own:
            return "own"
        return {CHANCE: "chance", CEILING: "ceiling"}.get(arm, "baseline")  # type: ignore[return-value]

    def of(self, arm: str, metric: str, fold: str | None = None) -> pd.Series | None:
        """The row of an arm and a metric; the headline's fold unless another is named."""
        at = (self.rows["arm"] == arm) & (self.rows["metric"] == metric) & (self.rows["fold"] == (fold or self.over))
        found = self.rows[at]
        return None if found.empty else found.iloc[0]

    def measured(self, arm: str, metric: str, fold: str | None = None) -> Measured | None:
        """A cell of a table; notes are kept only where they change how the number is read."""
        row = self.of(arm, metric, fold)
        if row is None:
            return None
        value = float(row["value"])
        if np.isnan(value) and self.role(arm) in ("chance", "ceiling"):
            return None
        return Measured(value, float(row["low"]), float(row["high"]), self._note(arm, metric, row))

    def _note(self, arm: str, metric: str, row: pd.Series) -> str:
        if self.role(arm) == "chance":
            return ""
        whole = self.of(arm, metric, "pooled") if np.isnan(row["value"]) and row["fold"] == "mean" else None
        note = (row if whole is None else whole)["note"]
        return note.removeprefix("undefined: ") if isinstance(note, str) and _WORTH_SAYING.search(note) else ""

    def estimates(self, metric: str) -> list[Estimate]:
        """Every arm but the ends of the scale, for a figure."""
        found = []
        for arm in self.arms:
            cell = self.measured(arm, metric)
            if cell is not None and self.role(arm) in ("own", "baseline"):
                folds = [measured.value for fold in self.folds if (measured := self.measured(arm, metric, fold))]
                found.append(Estimate(arm, cell.value, cell.low, cell.high, self.role(arm), folds))  # type: ignore[arg-type]
        return found


def headline(scores: Scores, on_whom: str) -> MetricTable:
    """Every arm, between the ceiling and chance.

    Args:
        scores: of a run
        on_whom: cases and intervals, in words
    """
    present = [m for m in _HEADLINE if any(scores.of(arm, m) is not None for arm in scores.arms)]
    columns = {m: title(m) for m in present}
    pooled = scores.over == "mean" and "c_index" in present
    names = dict(columns.values())
    if pooled:
        harrell = columns["c_index"][0]
        names = {harrell: "", _POOLED: "all folds as one"} | names | {harrell: "Harrell, mean of folds"}
    rows = []
    order = {"ceiling": 0, "own": 1, "baseline": 2, "chance": 3}
    for arm in sorted(scores.arms, key=lambda arm: order[scores.role(arm)]):
        cells = {columns[m][0]: cell for m in present if (cell := scores.measured(arm, m))}
        if pooled and (cell := scores.measured(arm, "c_index", "pooled")):
            cells[_POOLED] = cell
        remark = "from what the simulation itself knows" if scores.role(arm) == "ceiling" else ""
        rows.append(MetricRow(arm, cells, scores.role(arm), remark))
    if CHANCE not in scores.arms:
        limits = {columns[m][0]: Measured(_AT_CHANCE[m]) for m in present if m in _AT_CHANCE}
        if pooled:
            limits[_POOLED] = Measured(0.5)
        if "ibs" in present and (flat := scores.measured(scores.own, "ibs_kaplan_meier")):
            limits[columns["ibs"][0]] = flat
        rows.append(MetricRow(CHANCE, limits, "chance", "random risks; one Kaplan-Meier curve for all"))
    return MetricTable(names, rows, f"{on_whom} ↑ higher is better, ↓ lower is better.")


def by_fold(scores: Scores) -> MetricTable:
    """Our own arm, fold by fold."""
    present = [m for m in _HEADLINE if scores.of(scores.own, m) is not None]
    rows = []
    for fold in scores.folds:
        cells = {title(m)[0]: cell for m in present if (cell := scores.measured(scores.own, m, fold))}
        any_metric = next((row for m in present if (row := scores.of(scores.own, m, fold)) is not None), None)
        size = "" if any_metric is None else f"{any_metric['n']:.0f} patients, {any_metric['events']:.0f} events"
        rows.append(MetricRow(f"Fold {fold}", cells, remark=size))
    return MetricTable(dict(title(m) for m in present), rows, f"{scores.own} on every fold.")


def all_metrics(scores: Scores) -> MetricTable:
    """Everything measured of our own arm, with the notes in full."""
    ours = scores.rows[scores.rows["arm"] == scores.own]
    columns = ["mean", "pooled"] if scores.over == "mean" else ["pooled"]
    words = {"mean": "Mean of folds", "pooled": "All patients"}
    rows = []
    for metric in dict.fromkeys(ours["metric"]):
        name, what = title(metric)
        cells = {}
        for fold in columns:
            if (row := scores.of(scores.own, metric, fold)) is None:
                continue
            note = row["note"] if isinstance(row["note"], str) else ""
            words_of_p = p_value(row["value"]) if metric.endswith("_p") else ""
            cells[words[fold]] = Measured(
                float(row["value"]), float(row["low"]), float(row["high"]), note, words=words_of_p
            )
        rows.append(MetricRow(name, cells, remark=what))
    return MetricTable({words[fold]: "" for fold in columns}, rows, f"All metrics of {scores.own}.")
