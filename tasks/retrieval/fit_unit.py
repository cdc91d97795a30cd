"""Fit two towers on the training pairs of a collection; the epoch is chosen on its validation galleries."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from data.errors import DataError
from data.pairs.items import Gallery, Pairs
from tasks.experiment.fit import fit, forget
from tasks.experiment.order import EpochOrder
from tasks.experiment.signatures import ConfigError
from tasks.experiment.trainer import TrainerOptions
from tasks.retrieval.feed import Feed, feeds, learn, shown
from tasks.retrieval.objectives import Objective
from tasks.retrieval.task import ChunkedRetrievalTask, KeepBest, RetrievalTask
from tasks.retrieval.two_towers import TwoTowers


@dataclass(frozen=True)
class FitOptions:
    """The config's `fit`.

    Attributes:
        batch_size: pairs per step; all others of the batch are negatives
        chunk: pairs embedded at once, for batches that do not fit into memory; null = the whole batch
        warmup: steps in which the learning rate rises; it then falls along a half cosine to 0 at the last epoch
        patience: stop after so many epochs without a better validation score; null = train to the last epoch
    """

    batch_size: int = 128
    chunk: int | None = None
    warmup: int = 50
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ValueError(
                f"fit.batch_size: expected at least 2 (a batch holds the negatives), found {self.batch_size}"
            )
        for name in ("chunk", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"fit.{name}: expected at least 1 or null, found {value}")
        if self.warmup < 0:
            raise ValueError(f"fit.warmup: expected at least 0, found {self.warmup}")


@dataclass(frozen=True)
class Fitted:
    """Towers and objective with the weights of the best epoch, in evaluation mode.

    Attributes:
        towers, objective: as trained
        feeds: tokens of the left and right items
        epochs: one row per epoch: epoch, train_loss, validation_mrr
        best_epoch: the chosen one, from 0
    """

    towers: TwoTowers
    objective: Objective
    feeds: tuple[Feed, Feed]
    epochs: pd.DataFrame
    best_epoch: int


def training_pairs(pairs: Pairs) -> list[tuple[int, int]]:
    """Every match of which both sides are in the training split.

    Raises:
        DataError: fewer than two
    """
    left, right = (set(rows) for rows in pairs.rows("train"))
    found = [(a, b) for a, partners in enumerate(pairs.matches) if a in left for b in partners if b in right]
    if len(found) < 2:
        raise DataError(
            f"{pairs.name}: {len(found)} training pairs; at least 2 are needed. Give more items or another split"
        )
    return found


def validation_galleries(pairs: Pairs) -> list[Gallery]:
    """What the epoch is chosen on.

    Raises:
        DataError: there is none
    """
    found = [gallery for gallery in pairs.galleries if gallery.split == "val"]
    if not found:
        raise DataError(
            f"{pairs.name}: no validation items, so the epoch cannot be chosen without looking at the test items; "
            "give some items the split val"
        )
    return found


def fit_towers(
    towers: TwoTowers,
    objective: Objective,
    pairs: Pairs,
    optimizer: Callable[[Iterable[Any]], Optimizer],
    folder: Path,
    features: Path,
    seed: int,
    options: FitOptions,
    trainer: TrainerOptions = TrainerOptions(),  # noqa: B008
) -> Fitted:
    """Train, from the newest checkpoint in `folder` when there is one, and keep the epoch that is best on validation.

    Args:
        towers: encoders and projections; weights are changed in place
        objective: loss, and what the validation galleries are ranked by
        pairs: the collection; its test items are never looked at
        optimizer: built from parameter groups
        folder: for checkpoints and logs; removed from again at the end
        features: where tokens of frozen encoders are kept, shared by all units of a run
        seed: of order and dropout; draw the weights of the towers from it before
        options: batches and stopping
        trainer: epochs, device, precision

    Raises:
        DataError: no training pairs or no validation items
        ConfigError: a batch cannot be shared out evenly to the devices
    """
    matched, galleries = training_pairs(pairs), validation_galleries(pairs)
    training = [sorted(set(rows)) for rows in zip(*matched, strict=True)]
    fed = feeds(towers, pairs, features)
    for encoder, projection, feed, rows in zip(
        (towers.left, towers.right), (towers.left_projection, towers.right_projection), fed, training, strict=True
    ):
        learn(encoder, feed.side, rows)
        if projection.standardize is not None:
            projection.standardize.learn(shown(feed, rows))
    size = min(options.batch_size, len(matched))
    if size % trainer.devices:
        raise ConfigError(
            f"fit.batch_size: {size} pairs cannot be shared out evenly to trainer.devices={trainer.devices}"
        )
    steps = trainer.max_epochs * (len(matched) // size)
    parts = towers, objective, optimizer, fed, pairs, options.warmup, steps
    task = RetrievalTask(*parts) if options.chunk is None else ChunkedRetrievalTask(*parts, chunk=options.chunk)
    dataset: Any = matched
    order = EpochOrder(len(matched), seed)
    loader: DataLoader[Any] = DataLoader(dataset, size, sampler=order, collate_fn=_rows, drop_last=True)
    best = KeepBest(task, galleries, options.patience)
    with warnings.catch_warnings():
        # A frozen encoder is in evaluation mode on purpose.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        fit(task, loader, folder, trainer, seed, (best,))
    task.load_state_dict(best.best, strict=False)
    forget(folder)
    towers.eval()
    objective.eval()
    epochs = pd.DataFrame(best.rows, columns=list(KeepBest.COLUMNS))
    return Fitted(towers, objective, task.feeds, epochs, best.best_epoch)


def _rows(matched: Sequence[tuple[int, int]]) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"]]:
    left, right = torch.tensor(matched).unbind(dim=1)
    return left, right
