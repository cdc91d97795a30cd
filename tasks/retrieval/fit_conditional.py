"""Fit an attribute embedder on the training items of a collection; the epoch is chosen on its validation items."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from jaxtyping import Float, Int
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from data.errors import DataError
from data.pairs.items import Pairs
from tasks.experiment.fit import fit, forget
from tasks.experiment.order import EpochOrder
from tasks.experiment.schedule import risen_and_fallen, without_decay
from tasks.experiment.trainer import TrainerOptions
from tasks.retrieval.attributes import mean_average_precision
from tasks.retrieval.conditional import AttributeEmbedder
from tasks.retrieval.feed import Feed, learn
from tasks.retrieval.triplets import Values, triplet_loss


@dataclass(frozen=True)
class TripletOptions:
    """How an embedder is trained.

    Attributes:
        batch_size: items per step
        margin: by which a positive is to be nearer than a negative
        warmup: steps in which the learning rate rises; it then falls along a half cosine
    """

    batch_size: int = 128
    margin: float = 0.2
    warmup: int = 50

    def __post_init__(self) -> None:
        if self.batch_size < 3 or self.warmup < 0 or not 0 < self.margin <= 2:
            raise ValueError(
                f"batch_size={self.batch_size}, warmup={self.warmup}, margin={self.margin}: expected at least 3, "
                "at least 0, and above 0 up to 2"
            )


class TripletTask(L.LightningModule):
    """An embedder and its optimiser; the weights of a frozen encoder are in no checkpoint."""

    def __init__(
        self,
        embedder: AttributeEmbedder,
        feed: Feed,
        values: Values,
        optimizer: Callable[[Iterable[Any]], Optimizer],
        options: TripletOptions,
        steps: int,
    ):
        super().__init__()
        self.embedder, self.optimizer, self.options, self.steps = embedder, optimizer, options, steps
        self.feed, self.codes = feed, torch.from_numpy(values.codes)
        self.strict_loading = False

    def training_step(self, rows: Int[Tensor, " b"], _: int) -> Tensor:
        spaces = self.embedder.spaces(self.embedder.backbone(self.feed(rows.tolist())))
        loss = triplet_loss(spaces, self.codes[rows.cpu()].to(spaces.device), self.options.margin)
        self.log("train_loss", loss, batch_size=len(rows), on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(without_decay(self))
        warmup = self.options.warmup
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: risen_and_fallen(step, warmup, self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = self._without_frozen(checkpoint["state_dict"])

    def trained_state(self) -> dict[str, Any]:
        """A copy of everything that training changes."""
        kept = self._without_frozen(self.state_dict())
        return {name: value.clone() if isinstance(value, Tensor) else value for name, value in kept.items()}

    def _without_frozen(self, state: dict[str, Any]) -> dict[str, Any]:
        if not self.embedder.encoder.frozen:
            return state
        return {name: value for name, value in state.items() if not name.startswith("embedder.encoder.")}


class KeepBestSpaces(Callback):
    """After every epoch, take the mean of all attributes' mAP on validation items; keep the best weights.

    Args:
        task: what is trained
        values: of all items
        rows: of the validation items
        ids: of the same items
    """

    COLUMNS = ("epoch", "train_loss", "validation_map")

    def __init__(self, task: TripletTask, values: Values, rows: Sequence[int], ids: Sequence[str]):
        self.task, self.values, self.of, self.ids = task, values, rows, ids
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Any] = {}

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        spaces = all_spaces(self.task.embedder, self.task.feed, self.of)
        found = mean_average_precision(spaces, self.values, self.of, self.ids)
        score = sum(float(table["average_precision"].mean()) for table in found.values()) / len(found)
        before = [row for row in self.rows if row["epoch"] < trainer.current_epoch]
        if not before or score > max(row["validation_map"] for row in before):
            self.best = self.task.trained_state()
        loss = float(trainer.callback_metrics["train_loss"])
        self.rows = [*before, {"epoch": float(trainer.current_epoch), "train_loss": loss, "validation_map": score}]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.best = list(state_dict["rows"]), dict(state_dict["best"])


@torch.no_grad()
def all_spaces(
    embedder: AttributeEmbedder, feed: Feed, rows: Sequence[int], batch: int = 256
) -> Float[Tensor, "n k d"]:
    """Items under every condition, from one pass of the backbone, on the CPU; in evaluation mode, which is restored."""
    training = embedder.training
    embedder.eval()
    parts = [
        embedder.spaces(embedder.backbone(feed(rows[start : start + batch]))).cpu()
        for start in range(0, len(rows), batch)
    ]
    embedder.train(training)
    return torch.cat(parts)


def fit_embedder(
    embedder: AttributeEmbedder,
    pairs: Pairs,
    optimizer: Callable[[Iterable[Any]], Optimizer],
    folder: Path,
    features: Path,
    seed: int,
    options: TripletOptions,
    trainer: TrainerOptions,
) -> tuple[Feed, pd.DataFrame]:
    """Train on the left items of a collection and keep the epoch that is best on its validation items.

    Args:
        embedder: changed in place; its conditions are columns of `pairs.table`
        pairs: the collection; its test items are never looked at
        optimizer: built from parameter groups
        folder: for checkpoints and logs; removed from again at the end
        features: where tokens of a frozen encoder are kept
        seed: of order, triplets and dropout; draw the weights from it before
        options: batches and margin
        trainer: epochs, device, precision

    Returns:
        tokens of the left items, and one row per epoch: epoch, train_loss, validation_map

    Raises:
        DataError: an attribute is missing, or there are too few training or no validation items
    """
    values = Values.of(pairs.table, embedder.conditions)
    train, validation = pairs.rows("train")[0], pairs.rows("val")[0]
    if len(train) < 3 or not validation:
        raise DataError(
            f"{pairs.name}: {len(train)} training and {len(validation)} validation items; 3 and 1 are needed"
        )
    learn(embedder.encoder, pairs.left, train)
    feed = Feed(embedder.encoder, pairs.left, features)
    size = min(options.batch_size, len(train))
    task = TripletTask(embedder, feed, values, optimizer, options, trainer.max_epochs * (len(train) // size))
    dataset: Any = train
    loader: DataLoader[Any] = DataLoader(dataset, size, sampler=EpochOrder(len(train), seed), drop_last=True)
    best = KeepBestSpaces(task, values, validation, [pairs.left.ids[row] for row in validation])
    with warnings.catch_warnings():
        # A frozen encoder is in evaluation mode on purpose.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        fit(task, loader, folder, trainer, seed, (best,))
    task.load_state_dict(best.best, strict=False)
    forget(folder)
    embedder.eval()
    return feed, pd.DataFrame(best.rows, columns=list(KeepBestSpaces.COLUMNS))
