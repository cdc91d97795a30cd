"""A trained model of a run folder."""

from __future__ import annotations

import copy
from pathlib import Path

from tasks.experiment.folder import RunError, RunFolder
from tasks.experiment.inventory import DONE, must_be_whole
from tasks.melody.composed import Composer
from tasks.melody.experiment import MelodyExperiment, experiment_of
from tasks.melody.model import MelodyModel


def trained(run: Path, arm: str | None = None, seed: int | None = None) -> tuple[MelodyModel, Path]:
    """The model of a finished unit, and the unit's folder.

    Args:
        run: the run folder
        arm: which model; None = the one under test
        seed: which training; None = the first that is finished

    Raises:
        RunError: no run at this path, no such arm, no finished unit of it, or one that lost a file
    """
    experiment: MelodyExperiment = experiment_of(RunFolder.open(run).config)
    arm = experiment.name if arm is None else arm
    if arm not in experiment.models:
        raise RunError(f"--arm {arm}: {run} has {', '.join(experiment.models)}")
    finished = sorted(path.parent for path in run.glob(f"{arm}/fold0-seed*/{DONE}"))
    wanted = [unit for unit in finished if seed is None or unit.name == f"fold0-seed{seed}"]
    if not wanted:
        there = ", ".join(unit.name for unit in finished) or "none"
        raise RunError(
            f"{run}: no finished unit of {arm}{'' if seed is None else f' with seed {seed}'} ({there}); train it"
        )
    must_be_whole(wanted[0])
    model = copy.deepcopy(experiment.models[arm])
    model.load(wanted[0])
    return model, wanted[0]


def composer(run: Path, arm: str | None = None, seed: int | None = None) -> tuple[Composer, Path]:
    """A trained model that keeps skeletons.

    Raises:
        RunError: as `trained`, or this model does not generate from skeletons
    """
    model, unit = trained(run, arm, seed)
    return composing(model, unit), unit


def composing(model: MelodyModel, unit: Path) -> Composer:
    """The model, if it keeps skeletons.

    Raises:
        RunError: it does not generate from them
    """
    if not isinstance(model, Composer) or not model.keeps_skeletons:
        raise RunError(f"{unit.parent}: this model does not generate from skeletons; name another with --arm")
    return model
