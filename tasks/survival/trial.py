"""One part of a trial: fit inside the training side of a fold, score patients of that side who were left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from data.cohort.cohort import Cohort
from data.cohort.splits import Split, stratified_splits
from tasks.experiment.task import Tuning
from tasks.survival.concordance import harrell
from tasks.survival.follow_up import FollowUp
from tasks.survival.trained import WEIGHTS
from tasks.survival.unit import Job, experiment_in_process

PARTS = 3


def inside(cohort: Cohort, split: Split) -> Cohort:
    """The training patients of a split, as if there were no others."""
    genes = None if cohort.genes is None else cohort.genes.loc[cohort.genes.index.isin(split.train)]
    return replace(cohort, patients=cohort.patients.loc[split.train], genes=genes)


def run(folder: Path, config: dict[str, Any], fold: int, part: int, seed: int) -> dict[str, Any]:
    """Fit the model under test and score it.

    Args:
        folder: of this unit
        config: the resolved config
        fold: of which only the training patients are read
        part: which third of them is scored
        seed: of the thirds, weights, order and dropout

    Returns:
        facts for `done.json`; `score` is the c-index
    """
    experiment = experiment_in_process(json.dumps(config))
    cohort = experiment.cohort.load()
    known = inside(cohort, experiment.cohort.splits()[fold])
    split = stratified_splits(known, PARTS, seed)[part]
    facts = Job(experiment, known, split, folder, seed).network(experiment.model)
    (folder / WEIGHTS).unlink()  # a trial is judged, never used
    scored = pd.read_csv(folder / "predictions.csv")
    outcome = FollowUp.of(scored["time"].to_numpy(), scored["event"].to_numpy())
    return {**facts, "score": float(harrell(outcome, scored["risk"].to_numpy())[0])}


TUNING = Tuning(run, "c-index on held-out thirds of the training side", PARTS, "model", ("cohort",))
