"""One objective with one seed: fit the towers on training pairs, rank every test gallery, write both down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from data.errors import DataError
from data.pairs.items import Gallery, Pairs
from tasks.experiment.folder import write_whole
from tasks.retrieval import trained
from tasks.retrieval.experiment import RetrievalExperiment, experiment_of
from tasks.retrieval.feed import encode
from tasks.retrieval.fit_unit import Fitted, fit_towers
from tasks.retrieval.metrics import per_query
from tasks.retrieval.scores import Score, scores_of
from tasks.retrieval.two_towers import Encoded

POOLED = "pooled"
"""Name of the baseline in every table: the same towers ranked by their pooled vectors alone."""


@lru_cache(maxsize=2)
def experiment_in_process(config: str) -> RetrievalExperiment:
    """The experiment of a config; a process that runs several units reads its collection once."""
    return experiment_of(json.loads(config))


def run(folder: Path, config: dict[str, Any], arm: str, fold: int, seed: int) -> dict[str, Any]:
    """Fit and rank.

    Args:
        folder: of this unit
        config: the resolved config
        arm: one of `RetrievalExperiment.objectives`
        fold: always 0: the collection says what is trained and what is tested
        seed: of weights, order and dropout

    Returns:
        facts for `done.json`
    """
    experiment = experiment_in_process(json.dumps(config))
    pairs = experiment.pairs.load()
    torch.manual_seed(seed)
    fitted = fit_towers(
        experiment.build_towers(),
        experiment.objectives[arm](),
        pairs,
        experiment.optimizer,
        folder,
        folder.parents[1] / "features",
        seed,
        experiment.fit,
        experiment.trainer,
    )
    write_whole(folder / "epochs.csv", fitted.epochs.to_csv(index=False))
    trained.save(folder, fitted.towers, fitted.objective)
    write_whole(folder / "queries.csv", ranked(fitted, pairs).to_csv(index=False))
    return {"best_epoch": fitted.best_epoch, "score": fitted.objective.score}


def ranked(fitted: Fitted, pairs: Pairs) -> pd.DataFrame:
    """Every query of every test gallery in both directions, by the objective's score and by the pooled vectors.

    Returns:
        gallery, direction (`image -> text`), score (own or pooled), query (its id) and the columns of `per_query`

    Raises:
        DataError: the collection has no test gallery
    """
    galleries = [gallery for gallery in pairs.galleries if gallery.split == "test"]
    if not galleries:
        raise DataError(f"{pairs.name}: no test items, so nothing can be measured; give some items the split test")
    left = Side.of(fitted, "left", [g.left_queries for g in galleries] + [g.left_gallery for g in galleries])
    right = Side.of(fitted, "right", [g.right_queries for g in galleries] + [g.right_gallery for g in galleries])
    own: tuple[Score, float] = fitted.objective.score, float(fitted.objective.global_share)
    ways: dict[str, tuple[Score, float]] = {"own": own} if own[0] == "global" else {"own": own, POOLED: ("global", 1.0)}
    parts = []
    for gallery in galleries:
        for name, (score, weight) in ways.items():
            parts += _both_ways(gallery, pairs, left, right, name, score, weight)
    return pd.concat(parts, ignore_index=True)


class Side:
    """Encoded items of one side, found by their row in the collection."""

    def __init__(self, items: Encoded, rows: Sequence[int]):
        self._items, self._at = items, {row: at for at, row in enumerate(rows)}

    @classmethod
    def of(cls, fitted: Fitted, side: str, wanted: Sequence[Sequence[int]]) -> Side:
        """Every row that any list wants."""
        rows = sorted({row for some in wanted for row in some})
        towers = fitted.towers
        embed, feed = (
            (towers.project_left, fitted.feeds[0]) if side == "left" else (towers.project_right, fitted.feeds[1])
        )
        return cls(encode(embed, feed, rows), rows)

    def __getitem__(self, rows: Sequence[int]) -> Encoded:
        return self._items[torch.tensor([self._at[row] for row in rows], dtype=torch.long)]


def _both_ways(
    gallery: Gallery, pairs: Pairs, left: Side, right: Side, name: str, score: Score, weight: float
) -> list[pd.DataFrame]:
    found = []
    for asking, searched, queries, items, turned in (
        (left, right, gallery.left_queries, gallery.right_gallery, False),
        (right, left, gallery.right_queries, gallery.left_gallery, True),
    ):
        relevance = pairs.relevance(items, queries).T if turned else pairs.relevance(queries, items)
        scores = scores_of(asking[queries], searched[items], score, weight)
        table = per_query(scores, torch.from_numpy(relevance.copy()))
        ids = (pairs.right if turned else pairs.left).ids
        ways = (pairs.right.name, pairs.left.name) if turned else (pairs.left.name, pairs.right.name)
        table.insert(0, "query", [ids[queries[at]] for at in table.index])
        table.insert(0, "score", name)
        table.insert(0, "direction", " -> ".join(ways))
        table.insert(0, "gallery_name", gallery.name)
        found.append(table)
    return found
