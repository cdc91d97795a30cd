"""Two towers and an objective: how a batch of pairs becomes a loss, and how the best epoch is found on validation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import lightning as L
import torch
from jaxtyping import Int
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from data.pairs.items import Gallery, Pairs
from tasks.experiment.schedule import risen_and_fallen, without_decay
from tasks.retrieval.cached_gradients import backward_in_chunks
from tasks.retrieval.feed import Feed, encode
from tasks.retrieval.metrics import per_query
from tasks.retrieval.objectives import Objective
from tasks.retrieval.scores import scores_of
from tasks.retrieval.two_towers import Encoded, TwoTowers

Rows = tuple[Int[Tensor, " b"], Int[Tensor, " b"]]


class RetrievalTask(L.LightningModule):
    """Towers, their objective and their optimiser; the weights of frozen encoders are in no checkpoint.

    Args:
        towers: both sides
        objective: the loss of a batch of pairs
        optimizer: built from parameter groups, norms and biases without weight decay
        feeds: tokens of the left and right items
        pairs: who belongs to whom
        warmup: steps in which the learning rate rises to its value; it then falls along a half cosine
        steps: of the whole training
    """

    joins_ranks = True

    def __init__(
        self,
        towers: TwoTowers,
        objective: Objective,
        optimizer: Callable[[Iterable[Any]], Optimizer],
        feeds: tuple[Feed, Feed],
        pairs: Pairs,
        warmup: int,
        steps: int,
    ):
        super().__init__()
        self.towers, self.objective, self.optimizer = towers, objective, optimizer
        self.feeds, self.pairs, self.warmup, self.steps = feeds, pairs, warmup, steps
        self.strict_loading = False

    def training_step(self, batch: Rows, _: int) -> Tensor:
        left, right = (feed(rows.tolist()) for feed, rows in zip(self.feeds, batch, strict=True))
        embedded = self.towers.project_left(left), self.towers.project_right(right)
        return self._noted(self.objective(*embedded, *batch, self.pairs.relevance), len(batch[0]))

    def _noted(self, loss: Tensor, pairs: int) -> Tensor:
        self.log("train_loss", loss, batch_size=pairs, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(without_decay(self))
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: risen_and_fallen(step, self.warmup, self.steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if not self.is_frozen(k)}

    def is_frozen(self, name: str) -> bool:
        """Whether an entry of the state belongs to an encoder that is not trained."""
        sides = {"towers.left.": self.towers.left, "towers.right.": self.towers.right}
        return any(name.startswith(prefix) and encoder.frozen for prefix, encoder in sides.items())

    def trained_state(self) -> dict[str, Any]:
        """A copy of everything that training changes."""
        return {k: copy.deepcopy(v) for k, v in self.state_dict().items() if not self.is_frozen(k)}


class ChunkedRetrievalTask(RetrievalTask):
    """The same training step at the memory of one chunk of the batch (gradient caching).

    Args:
        chunk: pairs that are embedded at once
        options: those of `RetrievalTask`
    """

    joins_ranks = False

    def __init__(self, *options: Any, chunk: int):
        super().__init__(*options)
        self.automatic_optimization, self.chunk = False, chunk

    def training_step(self, batch: Rows, _: int) -> Tensor:
        optimizer: Any = self.optimizers()
        rate: Any = self.lr_schedulers()
        optimizer.zero_grad()
        left, right = ([part.tolist() for part in rows.split(self.chunk)] for rows in batch)
        loss = backward_in_chunks(
            (lambda rows: self.towers.project_left(self.feeds[0](rows)), left),
            (lambda rows: self.towers.project_right(self.feeds[1](rows)), right),
            lambda a, b: self.objective(a, b, *batch, self.pairs.relevance),
        )
        optimizer.step()
        rate.step()
        return self._noted(loss, len(batch[0]))


class KeepBest(Callback):
    """After every epoch, score the validation galleries; keep the weights of the epoch with the highest mean MRR.

    Args:
        task: what is trained
        galleries: of the validation split
        patience: stop after so many epochs without a better one; None = train to the end
    """

    COLUMNS = ("epoch", "train_loss", "validation_mrr")

    def __init__(self, task: RetrievalTask, galleries: list[Gallery], patience: int | None):
        self.task, self.galleries, self.patience = task, galleries, patience
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Any] = {}

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        epoch = trainer.current_epoch
        score = validation_score(self.task, self.galleries)
        before = [row["validation_mrr"] for row in self.rows if row["epoch"] < epoch]
        loss = float(trainer.callback_metrics["train_loss"])
        row = {"epoch": float(epoch), "train_loss": loss, "validation_mrr": score}
        self.rows = [*(r for r in self.rows if r["epoch"] < epoch), row]
        if not before or score > max(before):
            self.best = self.task.trained_state()
        if self.patience is not None and epoch - self.best_epoch >= self.patience:
            trainer.should_stop = True

    @property
    def best_epoch(self) -> int:
        """The first epoch with the highest score."""
        return int(max(self.rows, key=lambda row: row["validation_mrr"])["epoch"])

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.best = list(state_dict["rows"]), dict(state_dict["best"])


def validation_score(task: RetrievalTask, galleries: list[Gallery]) -> float:
    """Mean reciprocal rank over both directions and all galleries, by what the objective ranks by.

    Where two scores are mixed and the mixture is open, the best one is settled.
    """
    training, objective = task.towers.training, task.objective
    task.towers.eval()
    shares = objective.shares()
    found: list[list[float]] = [[] for _ in shares]
    for gallery in galleries:
        left = encode(task.towers.project_left, task.feeds[0], gallery.left_queries)
        right = encode(task.towers.project_right, task.feeds[1], gallery.right_queries)
        truth = torch.from_numpy(task.pairs.relevance(gallery.left_queries, gallery.right_queries))
        for asking, searched, partner in ((left, right, truth), (right, left, truth.T)):
            for ranks, scores in zip(found, _candidates(objective, shares, asking, searched), strict=True):
                ranks.append(float(per_query(scores, partner)["reciprocal_rank"].mean()))
    task.towers.train(training)
    means = [sum(ranks) / len(ranks) for ranks in found]
    best = max(range(len(means)), key=lambda choice: means[choice])
    objective.settle(best)
    return means[best]


def _candidates(objective: Objective, shares: list[float], asking: Encoded, searched: Encoded) -> list[Tensor]:
    """Scores under every share of the pooled one; both parts are computed once."""
    if objective.score != "both":
        return [scores_of(asking, searched, objective.score)]
    pooled, tokens = scores_of(asking, searched, "global"), scores_of(asking, searched, "tokens")
    return [share * pooled + (1 - share) * tokens for share in shares]
