"""The best reachable ranking of a simulated cohort: its true risk, scored like any arm."""

from __future__ import annotations

import json
from pathlib import Path

from tasks.experiment.folder import write_whole
from tasks.survival.experiment import SurvivalExperiment


def ceiling(experiment: SurvivalExperiment, fold: int, folder: Path) -> None:
    """Write the true risks of a fold's scored patients as an arm of its own; nothing for real cohorts."""
    truth = getattr(experiment.cohort, "truth", None)
    if truth is None:
        return
    split = experiment.cohort.splits()[fold]
    outcome = experiment.cohort.load().patients.loc[split.test, ["time", "event"]]
    folder.mkdir(parents=True, exist_ok=True)
    table = outcome.assign(risk=truth.loc[split.test, "risk"]).reset_index(names="case_id")
    write_whole(folder / "predictions.csv", table.to_csv(index=False))
    write_whole(folder / "done.json", json.dumps({"true_risk": True}))
