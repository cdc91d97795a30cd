"""Add a task: an experiment typed by its constructor, a unit, and a `Task` that plans and reports. One line names it.

    python examples/add_task.py             # three folds of a task that forecasts a drifting series

A shipped task has its line in `tasks/experiment/config.py TASKS` and `TASK` in `tasks/NAME/train.py`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.experiment import config
from tasks.experiment.console import print_table
from tasks.experiment.folder import write_whole
from tasks.experiment.state import arm_units
from tasks.experiment.task import Plan, Task


class DriftExperiment:
    """Forecast the next of so many `days` of a series by its last value, beside the mean of all before."""

    def __init__(self, name: str, days: int = 200, runs: str = "runs"):
        self.name, self.days, self.runs = name, days, runs


def unit(folder: Path, config: dict[str, Any], arm: str, fold: int, seed: int) -> dict[str, Any]:
    """One forecast on one series: its mean squared error."""
    series = np.random.default_rng(fold).standard_normal(config["days"]).cumsum()
    mean = series.cumsum() / np.arange(1, len(series) + 1)
    forecast = mean if arm == "mean so far" else series
    return {"error": float(np.mean((series[1:] - forecast[:-1]) ** 2))}


class Drift(Task):
    name, unit = "drift", staticmethod(unit)

    def plan(self, experiment: DriftExperiment) -> Plan:
        return Plan(f"{experiment.days} days", "series drift", 3, [experiment.name, "mean so far"], ["mean so far"])

    def finish(self, experiment: Any, run: Path, folds: Sequence[int], seeds: Sequence[int]) -> None:
        rows = [{"unit": str(u.relative_to(run)), **json.loads((u / "done.json").read_text())} for u in arm_units(run)]
        print_table(rows, ["unit", "error"])
        write_whole(self.report(run), json.dumps(rows))

    def report(self, run: Path) -> Path:
        return run / "report.json"


if __name__ == "__main__":
    config.TASKS["drift"] = "add_task.DriftExperiment"
    Path("drift.yaml").write_text("task: drift\nname: last value\nruns: own/runs\n")
    raise SystemExit(Drift().train(["drift.yaml"], seeds=[1, 2], resume=Path("own/runs/drift/last value").exists()))
