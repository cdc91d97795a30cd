"""What a survival run folder holds at this moment, finished or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.experiment.state import KEYS, RunState, described, table, unit_tables


@dataclass(frozen=True)
class Results(RunState):
    """Everything that is known about a run.

    Attributes:
        predictions: arm, fold, seed, case_id, time, event, risk of the finished units
        curves: arm, fold, seed, case_id and one column per month; empty when no unit predicts curves
        epochs: arm, fold, seed, epoch and what was measured after it; empty when no unit is trained by epochs
        summary: rows of `metrics.evaluate`; None when the run was not evaluated yet
        comparisons: rows of paired differences; None when the run was not evaluated yet
    """

    predictions: pd.DataFrame
    curves: pd.DataFrame
    epochs: pd.DataFrame
    summary: pd.DataFrame | None
    comparisons: pd.DataFrame | None

    @property
    def arms(self) -> list[str]:
        """In the order of the summary where there is one."""
        found = dict.fromkeys(self.predictions["arm"])
        if self.summary is not None:
            found = dict.fromkeys([*self.summary["arm"], *found])
        return list(found)


def read(run: Path) -> Results:
    """Read a run folder.

    Raises:
        RunError: there is no run at this path
    """
    kinds = {"case_id": str}
    return Results(
        **described(run),
        predictions=unit_tables(run, "predictions.csv", ["case_id", "time", "event", "risk"], dtype=kinds),
        curves=unit_tables(run, "curves.csv", ["case_id"], dtype=kinds),
        epochs=unit_tables(run, "epochs.csv", ["epoch"], dtype=kinds),
        summary=table(run / "summary.csv", ("arm", "fold", "metric", "value")),
        comparisons=table(run / "comparisons.csv", ("a", "b", "sentence")),
    )


def months(curves: pd.DataFrame) -> list[str]:
    """The columns of `curves` that hold survival probabilities, in order."""
    return [name for name in curves.columns if name not in (*KEYS, "case_id")]
