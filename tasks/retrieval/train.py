"""Retrieval in the common orchestration: what is run on a collection, and what is said at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from data.pairs.items import Pairs, Side
from tasks.experiment.console import print_table
from tasks.experiment.same_data import digest, digest_of_files
from tasks.experiment.signatures import ConfigError
from tasks.experiment.task import Plan, Task
from tasks.retrieval import unit
from tasks.retrieval.evaluation import evaluate_run
from tasks.retrieval.experiment import RetrievalExperiment
from tasks.retrieval.feed import learn
from tasks.retrieval.metrics import recall_name
from tasks.retrieval.report import write as write_report
from tasks.retrieval.trial import TUNING

CUT_SHOWN = 5
SHOWN = ["gallery_name", "direction", "arm", "score", "value", "low", "high", "chance", "n", "gallery"]


class Retrieval(Task):
    """Train every objective of a config with every seed, then rank, compare and report."""

    name = "retrieval"
    unit = staticmethod(unit.run)
    tuning = TUNING

    def plan(self, experiment: RetrievalExperiment) -> Plan:
        pairs = experiment.collection()
        cut = _tried(experiment, pairs)
        return Plan(
            account="\n".join([*pairs.account, *cut, *pairs.attribution()]),
            data=f"collection {pairs.name}",
            folds=1,
            arms=experiment.arms,
            content={
                "items": digest(*pairs.left.ids, "and", *pairs.right.ids),
                "pairs": digest(json.dumps(pairs.matches)),
                "tables": digest(pairs.table.to_csv(), pairs.right_table.to_csv()),
                "texts": digest(*(text for side in (pairs.left, pairs.right) for text in _texts(side))),
                "files": digest_of_files([*pairs.left.files, *pairs.right.files]),
            },
        )

    def finish(self, experiment: RetrievalExperiment, run: Path, folds: Sequence[int], seeds: Sequence[int]) -> None:
        results = evaluate_run(run)
        assert results.summary is not None
        first = results.summary[results.summary["metric"] == recall_name(1)]
        print(f"{recall_name(1)}, mean over queries and seeds")
        print_table(first.to_dict("records"), SHOWN)
        print(f"report: {self.report(run)}")

    def report(self, run: Path) -> Path:
        return write_report(run)


def _texts(side: Side) -> list[str]:
    return list(side.load(range(len(side)))) if side.name == "text" else []


def _tried(experiment: RetrievalExperiment, pairs: Pairs) -> list[str]:
    """Build the towers and let both encoders read an item, so that what cannot be is named before any unit starts.

    Returns:
        one line on each of the first texts of which only a part is read, and how many more there are

    Raises:
        ConfigError: an encoder is of another modality than its side
        DataError: items are of another width than an encoder was told
    """
    towers, cut = experiment.build_towers(experiment.objective()).eval(), []
    for which, encoder, side, training in zip(
        ("left", "right"), (towers.left, towers.right), (pairs.left, pairs.right), pairs.rows("train"), strict=True
    ):
        if encoder.modality != side.name:
            raise ConfigError(
                f"{which}: {type(encoder).__name__} reads {encoder.modality}, but the {which} items of {pairs.name} "
                f"are {side.name}; give an encoder of these"
            )
        if side.name == "text":
            learn(encoder, side, training or [0])
            cut += [f"{side.ids[row]}: {line}" for row, line in encoder.cut(_texts(side)).items()]
        elif not encoder.frozen:
            encoder.learn(side.load([0]))
        if not encoder.frozen:
            encoder(side.load([0]))
    return cut if len(cut) <= CUT_SHOWN else [*cut[:CUT_SHOWN], f"{len(cut) - CUT_SHOWN} more texts are cut as well"]


TASK = Retrieval()
