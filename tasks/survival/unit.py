"""One arm on one fold with one seed: fit on the training patients, predict the scored ones, write both down."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from data.cohort.batch import CohortSizes, PatientBatch
from data.cohort.cohort import Cohort
from data.cohort.prepare import Prepared
from data.cohort.splits import Split, nested_split
from data.errors import DataError
from tasks.experiment.config import build
from tasks.experiment.fit import fit, forget
from tasks.experiment.folder import write_whole
from tasks.experiment.order import EpochOrder, balancing_weights
from tasks.experiment.signatures import ConfigError
from tasks.survival import trained
from tasks.survival.baselines import Baseline, out_of_fold_risk
from tasks.survival.curves import month_grid, survival_curves
from tasks.survival.experiment import SurvivalExperiment
from tasks.survival.models.base import SurvivalModel
from tasks.survival.task import ScoreEpochs, SurvivalTask, logits_of


@lru_cache(maxsize=2)
def experiment_in_process(config: str) -> SurvivalExperiment:
    """The experiment of a config; a process that runs several units reads its cohort once."""
    experiment: SurvivalExperiment = build(SurvivalExperiment, json.loads(config))
    return experiment


def run(folder: Path, config: dict[str, Any], arm: str, fold: int, seed: int) -> dict[str, Any]:
    """Fit and predict.

    Args:
        folder: of this unit
        config: the resolved config
        arm: one of `SurvivalExperiment.arms`
        fold: index of the split
        seed: of weights, order and dropout

    Returns:
        facts for `done.json`
    """
    experiment = experiment_in_process(json.dumps(config))
    cohort = experiment.cohort.load()
    splits = experiment.cohort.splits()
    if not 0 <= fold < len(splits):
        raise DataError(f"fold {fold}: cohort {cohort.name} has folds 0 to {len(splits) - 1}")
    split = splits[fold]
    if not cohort.patients.loc[split.train, "event"].any():
        raise DataError(
            f"fold {fold}: none of the {len(split.train)} training patients of {cohort.name} has an event, so nothing "
            "can be learned. Use fewer folds"
        )
    job = Job(experiment, cohort, split, folder, seed)
    if arm in experiment.baselines:
        return job.baseline(copy.deepcopy(experiment.baselines[arm]))
    return job.network(experiment.networks[arm])


@dataclass(frozen=True)
class Side:
    """A split made ready for a network."""

    split: Split
    prepared: Prepared
    model: SurvivalModel
    offset: pd.Series | None


@dataclass(frozen=True)
class Job:
    """What both kinds of arm share."""

    experiment: SurvivalExperiment
    cohort: Cohort
    split: Split
    folder: Path
    seed: int

    def baseline(self, model: Baseline) -> dict[str, Any]:
        """Fit and predict a statistical model."""
        prepared = self.experiment.prepare.fit(self.cohort, self.split.train)
        train, test = prepared.matrix(self.split.train), prepared.matrix(self.split.test)
        outcome = self.cohort.patients.loc[self.split.train]
        model.fit(train, outcome["time"], outcome["event"])
        months = month_grid(self.cohort)
        self._write(list(test.index), model.risk(test), model.survival(test, months), months)
        self._write_training(self.split.train, model.risk(train))
        return {}

    def network(self, factory: Callable[[CohortSizes], SurvivalModel]) -> dict[str, Any]:
        """Fit and predict a network, its number of epochs fixed or chosen inside the training patients."""
        epochs = self.experiment.trainer.max_epochs
        facts: dict[str, Any] = {"epochs": epochs}
        if self.experiment.fit.select == "nested":
            epochs = self._chosen_epochs(factory)
            facts = {"epochs": epochs, "chosen": "lowest loss on patients held out of the training side"}
        side = self._ready(self.split, factory)
        task, scores = self._trained(side, self.folder, epochs)
        case_ids, logits = logits_of(task.model, self._loader(side, self.split.test))
        train_ids, train_logits = logits_of(task.model, self._loader(side, self.split.train))
        risk = task.loss.risk(logits).double().numpy()
        months = month_grid(self.cohort)
        train_outcome = self.cohort.patients.loc[train_ids]
        curves = survival_curves(task.loss, logits, months, side.prepared.edges, train_logits, train_outcome)
        self._write(case_ids, risk, curves, months)
        _write_csv(self.folder / "epochs.csv", pd.DataFrame(scores.rows, columns=list(ScoreEpochs.COLUMNS)))
        self._write_training(train_ids, task.loss.risk(train_logits).double().numpy())
        trained.save(self.folder, task.model, side.prepared, self._fitted_offset(side))
        for fitted in (self.folder, self.folder / "nested"):
            forget(fitted)
        return facts

    def _chosen_epochs(self, factory: Callable[[CohortSizes], SurvivalModel]) -> int:
        """The number of epochs with the lowest loss on patients held out of the training side; 0 = untrained."""
        inner = nested_split(self.split, self.cohort, self.experiment.fit.nested_share, self.seed)
        side = self._ready(inner, factory)
        _, scores = self._trained(side, self.folder / "nested", self.experiment.trainer.max_epochs, choose=True)
        best = min(scores.rows, key=lambda row: row["held_out_loss"])
        return int(best["epoch"]) + 1

    def _ready(self, split: Split, factory: Callable[[CohortSizes], SurvivalModel]) -> Side:
        """Scalers and bins from the training side, an untrained model, and the offset if the model reads one."""
        prepared = self.experiment.prepare.fit(self.cohort, split.train)
        torch.manual_seed(self.seed)
        model = factory(prepared.sizes(self.experiment.loss.outputs))
        if not model.reads_slides:
            prepared = prepared.without_slides()
        return Side(split, prepared, model, self._offset(split, prepared) if model.reads_offset else None)

    def _offset(self, split: Split, prepared: Prepared) -> pd.Series:
        """The baseline's log risk: out of fold on the training side, from all of it elsewhere."""
        baseline = self.experiment.offset
        if baseline is None:
            raise ConfigError(
                "model reads the log risk of a baseline, but offset is null; give offset, e.g. a LinearBaseline"
            )
        outcome = self.cohort.patients.loc[split.train]
        train, test = out_of_fold_risk(
            lambda: copy.deepcopy(baseline),
            prepared.matrix(split.train),
            outcome["time"],
            outcome["event"],
            prepared.matrix(split.test),
            seed=self.seed,
        )
        return pd.concat([train, test])

    def _fitted_offset(self, side: Side) -> Baseline | None:
        """The offset baseline fitted on all training patients, for patients to come."""
        if side.offset is None:
            return None
        outcome = self.cohort.patients.loc[self.split.train]
        baseline = copy.deepcopy(self.experiment.offset)
        assert baseline is not None
        return baseline.fit(side.prepared.matrix(self.split.train), outcome["time"], outcome["event"])

    def _trained(self, side: Side, folder: Path, epochs: int, choose: bool = False) -> tuple[SurvivalTask, ScoreEpochs]:
        task = SurvivalTask(side.model, copy.deepcopy(self.experiment.loss), self.experiment.optimizer)
        held_out = self._loader(side, side.split.test)
        scores = ScoreEpochs(held_out, self._outcomes(side.prepared, side.split.test), before_training=choose)
        if epochs:
            training = self._loader(side, side.split.train, training=True)
            fit(task, training, folder, self.experiment.trainer, self.seed, (scores,), epochs)
        return task, scores

    def _loader(self, side: Side, ids: list[str], training: bool = False) -> DataLoader[Any]:
        dataset = side.prepared.dataset(ids, side.offset, training, self.seed)
        options = self.experiment.fit
        sampler = None
        if training:
            weights = None
            if options.sampling == "balanced":
                weights = balancing_weights(list(zip(dataset.bins.tolist(), dataset.event.tolist(), strict=True)))
            sampler = EpochOrder(len(ids), self.seed, weights)
        return DataLoader(dataset, options.batch_size, sampler=sampler, collate_fn=side.prepared.collate)

    def _outcomes(self, prepared: Prepared, ids: list[str]) -> PatientBatch:
        """All patients as one batch without patches: enough for a loss."""
        bare = prepared.without_slides()
        patients = bare.dataset(ids)
        return bare.collate([patients[i] for i in range(len(patients))])

    def _write(self, case_ids: list[str], risk: np.ndarray, survival: np.ndarray, months: np.ndarray) -> None:
        outcome = self.cohort.patients.loc[case_ids, ["time", "event"]].reset_index(names="case_id")
        _write_csv(self.folder / "predictions.csv", outcome.assign(risk=risk))
        grid = pd.DataFrame(survival, columns=[f"{month:g}" for month in months])
        grid.insert(0, "case_id", case_ids)
        _write_csv(self.folder / "curves.csv", grid)

    def _write_training(self, case_ids: list[str], risk: np.ndarray) -> None:
        """What the arm was trained on: censoring weights, horizons and baseline hazards come from it."""
        outcome = self.cohort.patients.loc[case_ids, ["time", "event"]].reset_index(names="case_id")
        _write_csv(self.folder / "training.csv", outcome.assign(risk=risk))


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    """Every digit, so that what is read back is what was computed."""
    write_whole(path, table.to_csv(index=False))
