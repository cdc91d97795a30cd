"""Order patients by risk from whichever modalities they have: how a batch becomes a loss, and what is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from jaxtyping import Float
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from data.cohort.batch import PatientBatch
from tasks.experiment.precision import converted
from tasks.experiment.ranks import gathered
from tasks.survival.concordance import harrell
from tasks.survival.follow_up import FollowUp
from tasks.survival.losses import SurvivalLoss
from tasks.survival.models.base import Prediction, SurvivalModel


class SurvivalTask(L.LightningModule):
    """A model, its loss and its optimiser.

    Args:
        model: patients to logits
        loss: logits to loss and risk
        optimizer: built from the parameters

    Attributes:
        parts: how many patients of the batch each rank has, told before every step; None in one process
    """

    joins_ranks = True
    parts: list[int] | None = None

    def __init__(self, model: SurvivalModel, loss: SurvivalLoss, optimizer: Callable[[Iterable[Tensor]], Optimizer]):
        super().__init__()
        self.model, self.loss, self.optimizer = model, loss, optimizer

    def on_train_epoch_start(self) -> None:
        # Random subsets of large bags are drawn anew every epoch.
        self.trainer.train_dataloader.dataset.set_epoch(self.current_epoch)  # type: ignore[union-attr]

    def training_step(self, batch: PatientBatch, _: int) -> Tensor:
        prediction = self.model(batch)
        if self.parts is not None:
            prediction, batch = of_all_ranks(prediction, batch, self.parts)
        loss = self.loss(prediction, batch)
        self.log("train_loss", loss, batch_size=len(batch), on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def transfer_batch_to_device(self, batch: PatientBatch, device: torch.device, dataloader_idx: int) -> PatientBatch:
        return batch.to(device)

    def configure_optimizers(self) -> Optimizer:
        return self.optimizer(self.parameters())


def of_all_ranks(prediction: Prediction, batch: PatientBatch, parts: Sequence[int]) -> tuple[Prediction, PatientBatch]:
    """What all ranks say about all patients of a batch, so that any loss of theirs is the loss of one process.

    Args:
        prediction: of this rank's patients
        batch: this rank's patients
        parts: how many patients each rank has; 0 = what it holds is a stand-in

    Returns:
        logits and terms of everybody, with gradients, and the outcomes and covariates of everybody without their
        patches, genes and names
    """
    own = parts[dist.get_rank()]
    logits = gathered(prediction.logits, parts)
    one_each = [1] * len(parts)
    losses = {}
    for name, term in prediction.losses.items():
        count = prediction.counted.get(name, torch.tensor(len(batch))).to(term) * (own > 0)
        weighted = gathered(torch.stack([term * count, count])[None], one_each).sum(dim=0)
        losses[name] = weighted[0] / weighted[1].clamp(min=1)
    fields = ("genes_present", "covariates", "offset", "time", "event", "bins")
    everyone = {name: gathered(getattr(batch, name), parts) for name in fields}
    bare = replace(
        batch,
        **everyone,
        case_id=[""] * sum(parts),
        patches=logits.new_zeros(sum(parts), 0, batch.patches.shape[2]),
        slide_keep=torch.zeros(sum(parts), 0, dtype=torch.bool, device=logits.device),
        grid=None,
        slide=None,
        genes={},
    )
    return Prediction(logits, losses), bare


@torch.no_grad()
def logits_of(model: SurvivalModel, batches: Iterable[PatientBatch]) -> tuple[list[str], Float[Tensor, "n k"]]:
    """Identifiers and logits of all patients, in evaluation mode; the mode is restored.

    Batches go to the model's device and take the width of its numbers; logits are float32 on the CPU.
    """
    training = model.training
    model.eval()
    weights = next(model.parameters())
    case_ids, logits = [], []
    for batch in batches:
        case_ids += batch.case_id
        logits.append(model(converted(batch.to(weights.device), weights.dtype)).logits.float().cpu())
    model.train(training)
    return case_ids, torch.cat(logits)


class ScoreEpochs(Callback):
    """After every epoch, write down the loss and the c-index on held-out patients.

    On the scored fold this only feeds the table that compares the last epoch with the best one; on patients held out
    of the training side it feeds the choice of the number of epochs.

    Args:
        batches: the held-out patients
        outcomes: one batch of all of them without patches, for a loss over everybody at once
        before_training: score the untrained model too, as epoch -1
    """

    COLUMNS = ("epoch", "train_loss", "held_out_loss", "c_index")

    def __init__(self, batches: Iterable[PatientBatch], outcomes: PatientBatch, before_training: bool = False):
        self.batches, self.outcomes, self.before_training = batches, outcomes, before_training
        self.rows: list[dict[str, float]] = []

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.before_training and not self.rows:
            self._score(-1, float("nan"), module)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._score(trainer.current_epoch, float(trainer.callback_metrics["train_loss"]), module)

    def _score(self, epoch: int, train_loss: float, module: Any) -> None:
        case_ids, logits = logits_of(module.model, self.batches)
        if case_ids != self.outcomes.case_id:
            raise ValueError("ScoreEpochs: the batches and the outcomes hold different patients")
        loss = float(module.loss(Prediction(logits), self.outcomes))
        outcome = FollowUp.of(self.outcomes.time.numpy(), self.outcomes.event.numpy())
        ranking = float(harrell(outcome, module.loss.risk(logits).double().numpy())[0])
        row = {"epoch": float(epoch), "train_loss": train_loss, "held_out_loss": loss, "c_index": ranking}
        self.rows = [*(r for r in self.rows if r["epoch"] < epoch), row]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
