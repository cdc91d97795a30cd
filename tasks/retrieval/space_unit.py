"""One space per attribute as a unit of a run: fit an embedder, measure its spaces on test items, keep its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from data.errors import DataError
from data.pairs.items import Pairs
from encoders.frozen import encoder_hash
from tasks.experiment.folder import RunError, write_whole
from tasks.experiment.state import unit_table
from tasks.retrieval import trained
from tasks.retrieval.attributes import asked, entanglement, mean_average_precision, separation
from tasks.retrieval.conditional import AttributeEmbedder
from tasks.retrieval.experiment import RetrievalExperiment, experiment_of_run
from tasks.retrieval.feed import Feed
from tasks.retrieval.fit_conditional import all_spaces, fit_embedder
from tasks.retrieval.results import read
from tasks.retrieval.triplets import MISSING, Values

FILE = "spaces.pt"
PROBED = 3000
"""Training items that linear probes learn from, at most."""


class Judged(NamedTuple):
    """An embedder on the test items.

    Attributes:
        precision: attribute, query (its id) and the columns of `metrics.per_query`
        probes: as `attributes.entanglement`
        apart: as `attributes.separation`
    """

    precision: pd.DataFrame
    probes: pd.DataFrame
    apart: Float[Tensor, "k k"]


def run(folder: Path, experiment: RetrievalExperiment, arm: str, seed: int, features: Path) -> dict[str, Any]:
    """Fit and measure.

    Args:
        folder: of this unit
        experiment: whose pairs, left encoder and spaces
        arm: one of `RetrievalExperiment.embedders`
        seed: of weights, order, triplets and dropout
        features: where tokens of a frozen encoder are kept

    Returns:
        facts for `done.json`
    """
    options, pairs = experiment.spaces, experiment.collection()
    assert options is not None
    torch.manual_seed(seed)
    embedder = experiment.build_embedder(arm)
    trainer = replace(experiment.trainer, max_epochs=options.epochs)
    feed, epochs = fit_embedder(embedder, pairs, experiment.optimizer, folder, features, seed, options.fit, trainer)
    judged = judge(embedder, feed, pairs)
    write_whole(folder / "space_epochs.csv", epochs.to_csv(index=False))
    write_whole(folder / "probes.csv", judged.probes.to_csv(index=False))
    trained.save_state(folder / FILE, _kept(embedder))
    write_whole(folder / "spaces.csv", judged.precision.to_csv(index=False))
    return {"attributes": ", ".join(embedder.conditions)}


def judge(embedder: AttributeEmbedder, feed: Feed, pairs: Pairs) -> Judged:
    """Rank the test items of a collection under every attribute, and probe what each space tells.

    Raises:
        DataError: no test items
    """
    values = Values.of(pairs.table, embedder.conditions)
    learnt, test = pairs.rows("train")[0], pairs.rows("test")[0]
    if not test:
        raise DataError(f"{pairs.name}: no test items, so nothing can be measured; give some items the split test")
    learnt = learnt[:: max(1, len(learnt) // PROBED)]
    ids = [pairs.left.ids[row] for row in test]
    spaces = all_spaces(embedder, feed, test)
    found = mean_average_precision(spaces, values, test, ids)
    parts = []
    for k, (name, table) in enumerate(found.items()):
        known = np.flatnonzero((values.codes[test, k] != MISSING) & asked(ids))
        named = table.reset_index(drop=True)
        named.insert(0, "query", [ids[known[at]] for at in table.index])
        named.insert(0, "attribute", name)
        parts.append(named)
    seen = all_spaces(embedder, feed, learnt)
    probes = entanglement(seen, spaces, values.codes[learnt], values.codes[test], embedder.conditions)
    return Judged(pd.concat(parts, ignore_index=True), probes, separation(spaces))


@dataclass(frozen=True)
class TrainedSpaces:
    """The embedder of one finished unit, in evaluation mode.

    Attributes:
        run: the run folder
        unit: name of the unit within it
        experiment: what the run was
        embedder: as trained
        hash: of the embedder; an index made by it carries it
    """

    run: Path
    unit: str
    experiment: RetrievalExperiment
    embedder: AttributeEmbedder
    hash: str

    @classmethod
    def of(cls, run: Path, arm: str | None = None, seed: int | None = None) -> TrainedSpaces:
        """A finished unit.

        Args:
            run: the run folder
            arm: whose spaces; None = the first of the config
            seed: which training; None = the first that is finished

        Raises:
            RunError: no such run, it learnt no spaces, or the unit is not finished
        """
        experiment = experiment_of_run(run)
        if not experiment.embedders:
            raise RunError(f"{run}: learnt no space per attribute; train it with `spaces`, see retrieval/attributes")
        wanted = arm or next(iter(experiment.embedders))
        if wanted not in experiment.embedders:
            raise RunError(f"{run}: no spaces of an arm '{wanted}'; there are {', '.join(experiment.embedders)}")
        unit = trained.finished_unit(run, read(run).done, wanted, seed)
        attributes = list(dict.fromkeys(unit_table(run / unit, "spaces.csv", ["attribute"])["attribute"]))
        embedder = experiment.build_embedder(wanted, attributes)
        trained.load_state(run / unit / FILE, embedder, list(_kept(embedder)))
        embedder.eval()
        return cls(run, unit, experiment, embedder, encoder_hash(embedder))

    def condition(self, name: str) -> int:
        """Number of an attribute.

        Raises:
            DataError: this run lacks it
        """
        try:
            return self.embedder.number(name)
        except ValueError as fault:
            raise DataError(f"{self.run}: {fault}") from None


def _kept(embedder: AttributeEmbedder) -> dict[str, Any]:
    """What training changes."""
    frozen: Sequence[str] = ("encoder.",) if embedder.encoder.frozen else ()
    return {name: value for name, value in embedder.state_dict().items() if not name.startswith(tuple(frozen))}
