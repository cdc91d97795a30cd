"""How cost grows with patients, patches and subjects of a unit, with the folds of a run, and with workers.

Units and folds are in processor seconds, so that a busy machine matters little: the better of two runs of a unit of one
epoch or one fit. What workers save is in seconds of the clock, so it is true of a quiet machine only. Growth is the
cost beside the row before.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from tasks.experiment.config import overlay, overlay_values, resolve
from tasks.experiment.units import Unit, run_units
from tasks.fmri import unit as fmri
from tasks.fmri.experiment import FmriExperiment
from tasks.survival import unit as survival
from tasks.survival.bench import patient, step_of
from tasks.survival.experiment import SurvivalExperiment

PATIENTS, PATCHES, SUBJECTS = (60, 120, 240), (500, 2000, 8000), (4, 16, 64)
FOLDS, WORKERS, UNITS = (1, 2, 4), (1, 2, 4), 8
ONE_EPOCH = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.progress=false"]


def cpu_seconds(call: Callable[[], object], repeats: int = 2) -> float:
    """Processor seconds of the better of some calls."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def _resolved(experiment: type, config: str, overrides: list[str]) -> dict[str, Any]:
    tree = overlay_values(overlay([config]), overrides)
    tree.pop("task")
    return resolve(experiment, tree)


def _unit(function: Callable[..., Any], experiment: type, config: str, overrides: list[str], arm: str) -> float:
    """One unit; its data are read in the first of the two runs and kept."""
    resolved = _resolved(experiment, config, overrides)
    with tempfile.TemporaryDirectory() as folder:
        runs = iter(range(2))

        def once() -> None:
            place = Path(folder) / str(next(runs))
            place.mkdir()
            function(place, resolved, arm, 0, 1)

        return cpu_seconds(once)


def patients() -> list[tuple[str, float]]:
    """One epoch of CMTA on simulated patients of 24 patches, scoring and files included."""
    return [
        (
            f"{count} patients, one epoch",
            _unit(
                survival.run,
                SurvivalExperiment,
                "survival/demo",
                [f"cohort.patients={count}", *ONE_EPOCH],
                "demo_fusion",
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


def _fold_units(folder: Path, folds: Sequence[int], patients: int) -> list[Unit]:
    """CMTA for one epoch, one unit per fold."""
    resolved = _resolved(
        SurvivalExperiment, "survival/demo", [f"cohort.patients={patients}", "cohort.folds=8", *ONE_EPOCH]
    )
    return [
        Unit(
            folder / f"fold{fold}-seed1",
            survival.run,
            {"config": resolved, "arm": "demo_fusion", "fold": fold, "seed": 1},
        )
        for fold in folds
    ]


def folds() -> list[tuple[str, float]]:
    """One epoch of CMTA on 60 patients, with everything a run does for a unit."""
    rows = []
    for count in FOLDS:
        with tempfile.TemporaryDirectory() as folder:
            places = iter((Path(folder) / "a", Path(folder) / "b"))

            def once(places: Any = places, count: int = count) -> None:
                assert not any(end.error for end in run_units(_fold_units(next(places), range(count), 60)))

            rows.append((f"{count} folds, one epoch", cpu_seconds(once)))
    return rows


def workers() -> list[tuple[str, float]]:
    """Seconds of the clock for eight folds of 240 patients, by workers that are there already."""
    rows = []
    for count in (count for count in WORKERS if count <= (os.cpu_count() or 1)):
        with tempfile.TemporaryDirectory() as folder:
            warm = _fold_units(Path(folder) / "warm", range(count), 240)
            assert not any(end.error for end in run_units(warm, count))
            units = _fold_units(Path(folder) / "timed", range(UNITS), 240)
            start = time.perf_counter()
            assert not any(end.error for end in run_units(units, count))
            rows.append((f"{UNITS} units by {count} workers", time.perf_counter() - start))
    return rows


def run() -> dict[str, Any]:
    """Every case, on one thread."""
    torch.set_num_threads(1)
    rows = []
    with threadpool_limits(1):
        for grows, clock, measure in (
            ("patients", "cpu_s", patients),
            ("patches", "cpu_s", patches),
            ("subjects", "cpu_s", subjects),
            ("folds", "cpu_s", folds),
            ("workers", "wall_s", workers),
        ):
            before: float | None = None
            for case, seconds in measure():
                grown: float | None = None if before is None else round(seconds / before, 2)
                spent = {"cpu_s": None, "wall_s": None, clock: round(seconds, 3)}
                rows.append({"grows": grows, "case": case, **spent, "beside the row before": grown})
                before = seconds
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"bench": "growth", "device": f"cpu, 1 thread, {platform.machine()}", "versions": versions, "rows": rows}
