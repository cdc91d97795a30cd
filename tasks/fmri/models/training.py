"""How brain samples become batches and batches become a loss: STTM's training (arXiv 2403.06361, its code)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from tasks.fmri.models.losses import Mixed, Schedule, contrastive, same_target, soft_contrastive
from tasks.fmri.models.low_level import LowLevel
from tasks.fmri.models.prior import DiffusionPrior
from tasks.fmri.models.sttm import STTM, Decoded


@dataclass(frozen=True)
class BrainBatch:
    """Samples of several subjects.

    Attributes:
        voxels: subject -> `[its samples, its voxels]`, standardised
        which: the candidate of each sample, one subject after the other
    """

    voxels: dict[str, Float[Tensor, "_ _"]]
    which: Int[Tensor, " b"]

    def __len__(self) -> int:
        return len(self.which)

    def to(self, device: torch.device) -> BrainBatch:
        """The same samples on a device."""
        return BrainBatch({s: x.to(device) for s, x in self.voxels.items()}, self.which.to(device))


class BrainSamples(Dataset[BrainBatch]):
    """Everybody's training samples; an item is a whole batch.

    Args:
        voxels: subject -> its samples, standardised
        which: subject -> the candidate of each
    """

    def __init__(self, voxels: Mapping[str, Float[Tensor, "_ _"]], which: Mapping[str, Int[Tensor, " _"]]):
        self.voxels, self.which = dict(voxels), dict(which)

    def __getitem__(self, rows: dict[str, list[int]]) -> BrainBatch:
        return BrainBatch(
            {subject: self.voxels[subject][at] for subject, at in rows.items()},
            torch.cat([self.which[subject][at] for subject, at in rows.items()]),
        )

    @property
    def sizes(self) -> dict[str, int]:
        """Samples of each subject."""
        return {subject: len(x) for subject, x in self.voxels.items()}


class SubjectBatches(Sampler[dict[str, list[int]]]):
    """The same number of samples of every subject in each batch, in an order given by seed and epoch alone.

    An epoch visits every sample of the subject with most samples once; the others start over as often as it takes.

    Args:
        samples: subject -> how many
        batch: per subject and batch
        seed: of the unit
    """

    def __init__(self, samples: Mapping[str, int], batch: int, seed: int):
        self.samples, self.batch, self.seed, self.epoch = dict(samples), batch, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-max(self.samples.values()) // self.batch)

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        most = max(self.samples.values())
        orders = {}
        for subject, count in self.samples.items():
            rounds = [torch.randperm(count, generator=generator) for _ in range(-(-most // count))]
            orders[subject] = torch.cat(rounds)[:most].tolist()
        for start in range(0, most, self.batch):
            # A small subject may come round within one batch: a sample is in it once.
            yield {s: list(dict.fromkeys(order[start : start + self.batch])) for s, order in orders.items()}


@dataclass(frozen=True)
class TargetTensors:
    """`TargetSet` as tensors: image tokens `[k, t, e]`, texts `[k, c, v]`, latents `[k, c, i, j]`."""

    tokens: Float[Tensor, "k t e"]
    texts: Float[Tensor, "k c v"] | None = None
    latents: Float[Tensor, "k c2 i j"] | None = None

    def to(self, device: torch.device) -> TargetTensors:
        """The same targets on a device."""
        return TargetTensors(*(None if x is None else x.to(device) for x in (self.tokens, self.texts, self.latents)))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Optimisation:
    """AdamW with a one-cycle rate. The paper's values are in brackets, where they differ.

    Attributes:
        rate: highest learning rate (3e-4)
        decay: weight decay, of matrices only
        warm_up: epochs until the highest rate
        noise: standard deviation of noise on the standardised voxels (.01)
        prior_weight: of the prior's loss before the two losses share a random weight
    """

    rate: float = 5e-3
    decay: float = 1e-2
    warm_up: int = 2
    noise: float = 0.5
    prior_weight: float = 30.0


class BrainTask(L.LightningModule):
    """Decode what was seen from anybody's brain.

    Args:
        model: adapters, trunk, heads
        targets: what each candidate should be decoded to
        schedule: MixCo first, soft targets later
        optimisation: rates and noise
        prior: trained along, from brain tokens to target tokens
        low_level: trained along, guided by the trunk
        new: subjects whose adapters alone are fitted; None = everything is
    """

    def __init__(
        self,
        model: STTM,
        targets: TargetTensors,
        schedule: Schedule,
        optimisation: Optimisation,
        prior: DiffusionPrior | None = None,
        low_level: LowLevel | None = None,
        new: list[str] | None = None,
    ):
        super().__init__()
        self.model, self.prior, self.low_level, self.new = model, prior, low_level, new
        self.targets, self.schedule, self.optimisation = targets, schedule, optimisation
        if new is not None:
            model.freeze_all_but(new)
            if prior is not None:
                prior.requires_grad_(False)
            if low_level is not None:
                low_level.requires_grad_(False)
                for subject in new:
                    low_level.adapters[subject].requires_grad_(True)

    def on_train_start(self) -> None:
        self.targets = self.targets.to(self.device)

    def on_train_epoch_start(self) -> None:
        if self.new is None:
            return
        # What is frozen does not drop anything either: the adapter meets the trunk that will be used.
        for part in (self.model, self.prior, self.low_level):
            if part is not None:
                part.eval()
        for adapters in (self.model.adapters, *([] if self.low_level is None else [self.low_level.adapters])):
            for subject in self.new:
                adapters[subject].train()

    def training_step(self, batch: BrainBatch, _: int) -> Tensor:
        progress = self.current_epoch / max(self.trainer.max_epochs or 1, 1)
        loss = self.loss(batch, progress)
        self.log("train_loss", loss, batch_size=len(batch), on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def loss(self, batch: BrainBatch, progress: float) -> Float[Tensor, ""]:
        """Loss of a batch at a point of the training, 0 = start, 1 = end."""
        mixing = self.schedule.mixing(progress)
        voxels, mixed = {}, Mixed.nothing(0, self.device)
        for subject, x in batch.voxels.items():
            drawn = Mixed.nothing(len(x), self.device)
            if mixing:
                drawn = Mixed.draw(len(x), self.schedule.beta, self.schedule.mixed_part, self.device)
            voxels[subject] = drawn.apply(x + self.optimisation.noise * torch.randn_like(x))
            mixed = mixed.joined(drawn)
        decoded = self.model(voxels)
        wanted = self.targets.tokens[batch.which]
        text = self._drawn_texts(batch.which)
        if mixing:
            loss = self._hard(decoded, wanted, text, batch, mixed)
        else:
            loss = self._soft(decoded, wanted, text, self.schedule.soft_temperature(progress))
        if self.prior is not None:
            share = torch.randn(2, device=self.device).softmax(dim=0)
            denoised = self.prior.loss(decoded.tokens, mixed.apply(wanted))
            loss = share[0] * loss + share[1] * self.optimisation.prior_weight * denoised
        if self.low_level is not None and self.targets.latents is not None:
            latents = mixed.apply(self.targets.latents[batch.which])
            loss = loss + self.low_level.loss(voxels, decoded.shared.detach(), latents)
        return loss

    def transfer_batch_to_device(self, batch: BrainBatch, device: torch.device, dataloader_idx: int) -> BrainBatch:
        return batch.to(device)

    def configure_optimizers(self) -> Any:
        learning = [p for p in self.parameters() if p.requires_grad]
        how = self.optimisation
        groups = [
            {"params": [p for p in learning if p.dim() > 1], "weight_decay": how.decay},
            {"params": [p for p in learning if p.dim() <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], how.rate)
        steps = int(self.trainer.estimated_stepping_batches)
        warm = min(how.warm_up / max(self.trainer.max_epochs or 1, 1), 0.5) * steps
        cycle = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step, warm, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}

    def _hard(
        self, decoded: Decoded, wanted: Tensor, text: Tensor | None, batch: BrainBatch, mixed: Mixed
    ) -> Float[Tensor, ""]:
        """MixCo; the negatives of a sample are of its own subject (the first stage gathers nothing)."""
        temperature, total, start = self.schedule.temperature, wanted.new_zeros(()), 0
        for x in batch.voxels.values():
            own = slice(start, start + len(x))
            drawn = Mixed(mixed.share[own], mixed.partner[own] - start)
            weights = drawn.weights(same_target(batch.which[own]))
            losses = [
                contrastive(a[own].flatten(1), b[own].flatten(1), weights, temperature)
                for a, b in _pairs(decoded, wanted, text)
            ]
            total = total + len(x) * _weighted(losses, self.schedule.mix_global)
            start += len(x)
        return total / start

    def _soft(self, decoded: Decoded, wanted: Tensor, text: Tensor | None, temperature: float) -> Float[Tensor, ""]:
        """Soft targets over the samples of all subjects together."""
        losses = [soft_contrastive(a.flatten(1), b.flatten(1), temperature) for a, b in _pairs(decoded, wanted, text)]
        return _weighted(losses, self.schedule.soft_global)

    def _drawn_texts(self, which: Int[Tensor, " b"]) -> Float[Tensor, "b v"] | None:
        """One of the texts of each sample's candidate."""
        texts = self.targets.texts
        if texts is None:
            return None
        return texts[which, torch.randint(texts.shape[1], (len(which),), device=which.device)]


def _pairs(decoded: Decoded, wanted: Tensor, text: Tensor | None) -> list[tuple[Tensor, Tensor]]:
    """What is compared with what: all tokens laid end to end, then the global token and the text."""
    pairs = [(decoded.projected, wanted)]
    if wanted.shape[1] > 1:
        pairs.append((decoded.projected[:, 0], wanted[:, 0]))
    if decoded.text is not None and text is not None:
        pairs.append((decoded.text, text))
    return pairs


def _weighted(losses: list[Tensor], weight: float) -> Float[Tensor, ""]:
    """The fine-grained loss, and the global ones with a weight."""
    return losses[0] + weight * sum(losses[1:], losses[0].new_zeros(()))


def one_cycle(step: int, warm: float, steps: int) -> float:
    """Part of the highest rate: half a cosine up from 1/25, then half a cosine down to 1/25,000.

    Args:
        step: from 0
        warm: steps until the highest rate
        steps: of the whole training
    """
    if step < warm:
        low, done = 1 / 25, step / warm
        return low + (1 - low) * (1 - math.cos(math.pi * done)) / 2
    last = 1 / 25_000
    done = min((step - warm) / max(steps - warm, 1.0), 1.0)
    return last + (1 - last) * (1 + math.cos(math.pi * done)) / 2
