"""What an fMRI run folder holds at this moment, finished or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.experiment.inventory import is_whole
from tasks.experiment.state import CONTROLS, KEYS, RunState, described, table, unit_tables
from tasks.fmri.unit import WHO

_KINDS = dict.fromkeys(("sample", "subject", "run", "label", "stimulus", "truth"), str)


@dataclass(frozen=True)
class Results(RunState):
    """Everything that is known about a run.

    Attributes:
        predictions: arm, fold, seed, sample, subject, run, position, onset, label, stimulus, truth,
            cuts_runs and a score per candidate, of the finished units
        summary: one row per arm, subject, fold and metric; None when the run was not evaluated yet
        classes: accuracy of each arm per class; None when the run was not evaluated yet
        comparisons: paired differences of the model under test and every other arm; None likewise
        reconstruction: measures of what was reconstructed; None when nothing was
        controls: what each finished control left, by its name
    """

    predictions: pd.DataFrame
    summary: pd.DataFrame | None
    classes: pd.DataFrame | None
    comparisons: pd.DataFrame | None
    reconstruction: pd.DataFrame | None
    controls: dict[str, pd.DataFrame]

    @property
    def own(self) -> str:
        """The model under test."""
        return str(self.config["name"])

    @property
    def arms(self) -> list[str]:
        """The arms with a finished unit, in the order of the config."""
        there = set(self.predictions["arm"])
        return [arm for arm in configured_arms(self.config) if arm in there]

    @property
    def candidates(self) -> list[str]:
        """Columns of `predictions` that hold scores."""
        return [name for name in self.predictions.columns if name not in (*KEYS, *WHO)]

    @property
    def leaks(self) -> bool:
        """Whether some finished unit was scored on runs that it was trained on."""
        return bool(self.predictions["cuts_runs"].astype(bool).any())


def configured_arms(config: dict[str, Any]) -> list[str]:
    """The model under test, rivals, then baselines, as the config lists them."""
    return [str(config["name"]), *(config.get("rivals") or {}), *(config.get("baselines") or {})]


def read(run: Path) -> Results:
    """Read a run folder.

    Raises:
        RunError: there is no run at this path
    """
    controls = {}
    for folder in sorted((run / CONTROLS).glob("*")):
        found = table(folder / f"{folder.name}.csv") if is_whole(folder) else None
        if found is not None:
            controls[folder.name] = found
    return Results(
        **described(run),
        predictions=unit_tables(
            run, "predictions.csv", WHO, dtype=_KINDS, keep_default_na=False, na_values={"onset": [""]}
        ),
        summary=table(run / "summary.csv", ("arm", "subject", "metric", "value")),
        classes=table(run / "classes.csv"),
        comparisons=table(run / "comparisons.csv", ("a", "b", "sentence")),
        reconstruction=table(run / "reconstruction.csv"),
        controls=controls,
    )
