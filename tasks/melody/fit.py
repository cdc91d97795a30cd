"""Fit one network of music: weights are averaged over steps, and the epoch is chosen on the validation pieces."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from tasks.experiment.fit import fit, forget
from tasks.experiment.schedule import risen_and_fallen, without_decay
from tasks.experiment.trainer import TrainerOptions


@dataclass(frozen=True)
class FitOptions:
    """How a network of music is trained: AdamW, a warm-up, half a cosine down to 0.

    Attributes:
        rate: highest learning rate
        decay: weight decay, of matrices only
        warmup: steps in which the rate rises
        batch: pieces per step
        average: share of the old weights in the moving average that is measured and kept; 0 = the last weights
        patience: stop after so many epochs without a better validation figure; null = train to the last epoch
    """

    rate: float = 1e-3
    decay: float = 0.05
    warmup: int = 200
    batch: int = 8
    average: float = 0.99
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.rate <= 0 or self.decay < 0:
            raise ValueError(
                f"fit: rate={self.rate}, decay={self.decay}; expected a rate above 0 and a decay from 0 up"
            )
        if not 0 <= self.average < 1:
            raise ValueError(f"fit.average: expected at least 0 and below 1, found {self.average}")
        for name, least in (("batch", 1), ("warmup", 0), ("patience", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"fit.{name}: expected at least {least}, found {value}")


FIT = FitOptions()


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves beside the weights.

    Attributes:
        epochs: one row per epoch: epoch, train_loss, valid
        best_epoch: the one whose weights the network holds, from 0
    """

    epochs: pd.DataFrame
    best_epoch: int


class NetworkTask(L.LightningModule):
    """A network, the loss of a batch, and the optimiser.

    Args:
        network: what is trained
        loss: of the network on one batch, mean nats
        options: rate, decay, warm-up
        steps: of the whole training
    """

    def __init__(
        self, network: nn.Module, loss: Callable[[nn.Module, Any], torch.Tensor], options: FitOptions, steps: int
    ):
        super().__init__()
        self.network, self.loss, self.options, self.steps = network, loss, options, steps

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        loss = self.loss(self.network, batch)
        self.log("train_loss", loss, batch_size=1, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        how = self.options
        optimizer = torch.optim.AdamW(without_decay(self.network), how.rate, (0.9, 0.98), weight_decay=how.decay)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: risen_and_fallen(step, how.warmup, self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


class AverageAndKeepBest(Callback):
    """Average the weights over steps; after every epoch measure the average and keep it when it is the best so far.

    Args:
        network: what is trained
        score: mean nats of the network on the validation pieces, lower is better
        options: how slowly the average moves, and when to stop
    """

    COLUMNS = ("epoch", "train_loss", "valid")

    def __init__(self, network: nn.Module, score: Callable[[nn.Module], float], options: FitOptions):
        self.network, self.score, self.options = network, score, options
        self.averaged = copy.deepcopy(network).requires_grad_(False).eval()
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Any] = {}
        self.steps = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps += 1
        # A young average moves faster, so that the first random weights are soon forgotten.
        old = min(self.options.average, self.steps / (self.steps + 9)) if self.options.average else 0.0
        with torch.no_grad():
            for average, now in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
                average.lerp_(now, 1 - old)
            for kept, fixed in zip(self.averaged.buffers(), self.network.buffers(), strict=True):
                kept.copy_(fixed)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.averaged.to(module.device)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        epoch = trainer.current_epoch
        with torch.autocast(module.device.type, enabled=False), torch.no_grad():
            valid = self.score(self.averaged)
        before = [row["valid"] for row in self.rows if row["epoch"] < epoch]
        loss = float(trainer.callback_metrics["train_loss"])
        row = {"epoch": float(epoch), "train_loss": loss, "valid": valid}
        self.rows = [*(r for r in self.rows if r["epoch"] < epoch), row]
        trainer.callback_metrics["valid"] = torch.tensor(valid)
        if not before or valid < min(before):
            self.best = copy.deepcopy(self.averaged.state_dict())
        if self.options.patience is not None and epoch - self.best_epoch >= self.options.patience:
            trainer.should_stop = True

    @property
    def best_epoch(self) -> int:
        """The first epoch with the lowest figure."""
        return int(min(self.rows, key=lambda row: row["valid"])["epoch"])

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "best": self.best, "averaged": self.averaged.state_dict(), "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.best = list(state_dict["rows"]), dict(state_dict["best"])
        self.averaged.load_state_dict(state_dict["averaged"])
        self.steps = int(state_dict["steps"])


def fit_network(
    network: nn.Module,
    loss: Callable[[nn.Module, Any], torch.Tensor],
    score: Callable[[nn.Module], float],
    loader: Any,
    folder: Path,
    seed: int,
    options: FitOptions = FIT,
    trainer: TrainerOptions = TrainerOptions(),  # noqa: B008
) -> Fitted:
    """Train, from the newest checkpoint in `folder` when there is one; the network ends with the best epoch's average.

    Args:
        network: weights are changed in place; draw them from the seed before
        loss: of the network on one batch, mean nats
        score: mean nats of a network on the validation pieces, lower is better; never of the test pieces
        loader: training batches, whose order depends on seed and epoch alone
        folder: for checkpoints and logs; the checkpoints are removed at the end
        seed: of dropout
        options: optimiser, average, stopping
        trainer: epochs, device, precision
    """
    best = AverageAndKeepBest(network, score, options)
    task = NetworkTask(network, loss, options, trainer.max_epochs * len(loader))
    fit(task, loader, folder, trainer, seed, (best,))
    network.load_state_dict(best.best)
    network.eval()
    forget(folder)
    return Fitted(pd.DataFrame(best.rows, columns=list(AverageAndKeepBest.COLUMNS)), best.best_epoch)
