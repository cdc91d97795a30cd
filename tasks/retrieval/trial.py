"""A trial: fit two towers on the training pairs, score the validation galleries; test items are never encoded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tasks.experiment.task import Tuning
from tasks.retrieval.fit_unit import fit_towers, validation_galleries
from tasks.retrieval.unit import experiment_in_process


def run(folder: Path, config: dict[str, Any], fold: int, part: int, seed: int) -> dict[str, Any]:
    """Fit the objective under test and score it.

    Args:
        folder: of this unit
        config: the resolved config
        fold: always 0: the collection says what is trained and what is tested
        part: always 0
        seed: of weights, order and dropout

    Returns:
        facts for `done.json`; `score` is the mean reciprocal rank of the best epoch
    """
    experiment = experiment_in_process(json.dumps(config))
    pairs = experiment.collection()
    torch.manual_seed(seed)
    objective = experiment.objective()
    fitted = fit_towers(
        experiment.build_towers(objective),
        objective,
        replace(pairs, galleries=validation_galleries(pairs)),
        experiment.optimizer,
        folder,
        folder.parents[1] / "features",
        seed,
        experiment.fit,
        experiment.trainer,
    )
    return {"best_epoch": fitted.best_epoch, "score": float(fitted.epochs["validation_mrr"].max())}


TUNING = Tuning(run, "mean reciprocal rank on the validation galleries", 1, "objective", ("pairs",))
