"""How the cost of one unit grows with patients, patches and subjects: processor seconds, so that a busy machine matters
little. Every row is the better of two runs of a unit of one epoch or one fit; growth is the cost beside the row before.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from tasks.experiment.config import overlay, overlay_values, resolve
from tasks.fmri import unit as fmri
from tasks.fmri.experiment import FmriExperiment
from tasks.survival import unit as survival
from tasks.survival.bench import patient, step_of
from tasks.survival.experiment import SurvivalExperiment

PATIENTS, PATCHES, SUBJECTS = (60, 120, 240), (500, 2000, 8000), (4, 16, 64)


def cpu_seconds(call: Callable[[], object], repeats: int = 2) -> float:
    """Processor seconds of the better of some calls."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def _unit(function: Callable[..., Any], experiment: type, config: str, overrides: list[str], arm: str) -> float:
    """One unit; its data are read in the first of the two runs and kept."""
    tree = overlay_values(overlay([config]), overrides)
    tree.pop("task")
    resolved = resolve(experiment, tree)
    with tempfile.TemporaryDirectory() as folder:
        runs = iter(range(2))

        def once() -> None:
            place = Path(folder) / str(next(runs))
            place.mkdir()
            function(place, resolved, arm, 0, 1)

        return cpu_seconds(once)


def patients() -> list[tuple[str, float]]:
    """One epoch of CMTA on simulated patients of 24 patches, scoring and files included."""
    more = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.progress=false"]
    return [
        (
            f"{count} patients, one epoch",
            _unit(
                survival.run, SurvivalExperiment, "survival/demo", [f"cohort.patients={count}", *more], "demo_fusion"
            ),
        )
        for count in PATIENTS
    ]


def patches() -> list[tuple[str, float]]:
    """One training step of CMTA on one patient whose patches have 1,024 channels."""
    from data.cohort.batch import CohortSizes
    from tasks.survival.bench import GROUPS
    from tasks.survival.models import CMTA

    rows = []
    for count in PATCHES:
        step = step_of(CMTA(CohortSizes(1024, GROUPS, (), 4)).train(), patient(count))
        rows.append((f"{count:,} patches, one training step", cpu_seconds(step)))
    return rows


def subjects() -> list[tuple[str, float]]:
    """Ridge on simulated brains, one fold."""
    return [
        (
            f"{count} subjects, one fold of ridge",
            _unit(fmri.run, FmriExperiment, "fmri/simulated", [f"brains.subjects={count}"], "ridge"),
        )
        for count in SUBJECTS
    ]


def run() -> dict[str, Any]:
    """Every case, on one thread."""
    torch.set_num_threads(1)
    rows = []
    with threadpool_limits(1):
        for what, measured in (("patients", patients()), ("patches", patches()), ("subjects", subjects())):
            before: float | None = None
            for case, seconds in measured:
                grown: float | None = None if before is None else round(seconds / before, 2)
                rows.append({"grows": what, "case": case, "cpu_s": round(seconds, 3), "beside the row before": grown})
                before = seconds
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"bench": "growth", "device": f"cpu, 1 thread, {platform.machine()}", "versions": versions, "rows": rows}
