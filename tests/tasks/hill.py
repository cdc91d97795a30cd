"""A task without a model: how high a config is on a hill whose top is elsewhere in every fold."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.experiment.folder import write_whole
from tasks.experiment.state import arm_units
from tasks.experiment.task import Plan, Task, Tuning


class HillExperiment:
    """Args:
    name: of the run
    place: across the hill; the top of fold k is at 10 ** -k
    steps: up the hill; the top is at 4
    shape: a flat hill has no top, a broken one cannot be climbed
    model: who climbs
    cohort: what cannot be searched
    rivals: other climbers
    runs: folder of run folders
    """

    task = "hill"

    def __init__(
        self,
        name: str,
        place: float = 0.5,
        steps: int = 2,
        shape: str = "round",
        model: str = "climber",
        cohort: int = 3,
        rivals: dict[str, str] | None = None,
        runs: str = "runs",
    ):
        if steps < 1:
            raise ValueError(f"steps: expected at least 1, found {steps}")
        self.name, self.runs, self.rivals = name, runs, rivals or {}


def height(config: dict[str, Any], fold: int) -> float:
    if config["shape"] == "broken":
        raise ValueError("this hill cannot be climbed")
    return -((math.log10(config["place"]) + fold) ** 2) - 0.1 * (config["steps"] - 4) ** 2


def climb(folder: Path, config: dict[str, Any], arm: str, fold: int, seed: int) -> dict[str, Any]:
    return {"height": 0.0 if arm == "flat" else height(config, fold)}


def probe(folder: Path, config: dict[str, Any], fold: int, part: int, seed: int) -> dict[str, Any]:
    with open(folder / "calls.txt", "a") as file:
        file.write("x")
    return {"score": height(config, fold) + 0.3 * part}


def unlucky_probe(folder: Path, config: dict[str, Any], fold: int, part: int, seed: int) -> dict[str, Any]:
    raise OSError("the disk is full")


class Hill(Task):
    name, unit = "hill", staticmethod(climb)
    tuning = Tuning(probe, "height", 2, "model", ("cohort",))

    def plan(self, experiment: HillExperiment) -> Plan:
        return Plan("three hills", "hills", 3, [experiment.name, *experiment.rivals, "flat"], ["flat"])

    def finish(self, experiment: Any, run: Path, folds: Sequence[int], seeds: Sequence[int]) -> None:
        found = {str(u.relative_to(run)): json.loads((u / "done.json").read_text())["height"] for u in arm_units(run)}
        write_whole(self.report(run), json.dumps(found))

    def report(self, run: Path) -> Path:
        return run / "report.json"


class Untuned(Hill):
    tuning = None
