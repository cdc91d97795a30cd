"""One arm with one seed: fit towers on pairs or spaces on attributes, rank the test items, write both down."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from data.pairs.items import Pairs
from tasks.experiment.folder import write_whole
from tasks.retrieval import space_unit, trained
from tasks.retrieval.experiment import RetrievalExperiment, experiment_of
from tasks.retrieval.fit_rerank import fit_cross_encoder
from tasks.retrieval.fit_unit import Fitted, fit_towers
from tasks.retrieval.ranking import Beside, ranked
from tasks.retrieval.rerank import CrossEncoder


@lru_cache(maxsize=2)
def experiment_in_process(config: str) -> RetrievalExperiment:
    """The experiment of a config; a process that runs several units reads its collection once."""
    return experiment_of(json.loads(config))


def run(folder: Path, config: dict[str, Any], arm: str, fold: int, seed: int) -> dict[str, Any]:
    """Fit and rank.

    Args:
        folder: of this unit
        config: the resolved config
        arm: one of `RetrievalExperiment.arms`
        fold: always 0: the collection says what is trained and what is tested
        seed: of weights, order and dropout

    Returns:
        facts for `done.json`
    """
    experiment = experiment_in_process(json.dumps(config))
    features = folder.parents[1] / "features"
    if arm in experiment.embedders:
        return space_unit.run(folder, experiment, arm, seed, features)
    pairs = experiment.collection()
    torch.manual_seed(seed)
    objective = experiment.objectives[arm]()
    fitted = fit_towers(
        experiment.build_towers(objective),
        objective,
        pairs,
        experiment.optimizer,
        folder,
        features,
        seed,
        experiment.fit,
        experiment.trainer,
    )
    write_whole(folder / "epochs.csv", fitted.epochs.to_csv(index=False))
    trained.save(folder, fitted.towers, fitted.objective)
    cross, top = None, 0
    if experiment.rerank is not None and arm == experiment.name:
        cross, top = _cross_encoder(folder, experiment, fitted, pairs, seed), experiment.rerank.top
    beside = Beside(cross, top, experiment.prompts, features)
    write_whole(folder / "queries.csv", ranked(fitted, pairs, beside).to_csv(index=False))
    return {"best_epoch": fitted.best_epoch, "score": fitted.objective.score}


def _cross_encoder(
    folder: Path, experiment: RetrievalExperiment, fitted: Fitted, pairs: Pairs, seed: int
) -> CrossEncoder:
    """Fit the one that reads the first hits of the arm under test again, and keep it."""
    assert experiment.rerank is not None
    torch.manual_seed(seed)
    model = experiment.build_cross_encoder(fitted.towers)
    epochs = fit_cross_encoder(model, fitted, pairs, experiment.optimizer, seed, experiment.rerank)
    write_whole(folder / "rerank_epochs.csv", epochs.to_csv(index=False))
    trained.save_state(folder / trained.CROSS_ENCODER, model.state_dict())
    return model
