"""Contrastive losses of STTM (arXiv 2403.06361, its code) and the schedule that goes from MixCo to soft targets.

Rows are brain samples, columns their targets; both are unit vectors, S = p t'. Every loss is the mean of both
directions: samples choose among targets, targets among samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Mixed:
    """How the samples of a batch were mixed: sample i is `share[i] x_i + (1 - share[i]) x_partner[i]`."""

    share: Float[Tensor, " b"]
    partner: Int[Tensor, " b"]

    @classmethod
    def nothing(cls, samples: int, device: torch.device | None = None) -> Mixed:
        """Every sample is itself."""
        return cls(torch.ones(samples, device=device), torch.arange(samples, device=device))

    @classmethod
    def draw(cls, samples: int, beta: float = 0.15, part: float = 0.5, device: torch.device | None = None) -> Mixed:
        """MixCo (Kim et al. 2020, arXiv 2010.06300): Beta(beta, beta) shares for a random part of the samples.

        Args:
            samples: in the batch
            beta: both parameters of the distribution
            part: probability that a sample is mixed at all
            device: of the batch
        """
        drawn = torch.distributions.Beta(beta, beta).sample((samples,))
        share = torch.where(torch.rand(samples) < part, drawn, torch.ones(samples))
        return cls(share.to(device), torch.randperm(samples).to(device))

    def apply(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """The mixed samples."""
        share = self.share.to(x.dtype).view(-1, *[1] * (x.dim() - 1))
        return share * x + (1 - share) * x[self.partner]

    def weights(self, same: Float[Tensor, "b b"]) -> Float[Tensor, "b b"]:
        """Which targets a sample should find, and how much of each.

        Args:
            same: `same_target` of the batch
        """
        share = self.share.to(same.dtype)[:, None]
        return share * same + (1 - share) * same[self.partner]

    def joined(self, other: Mixed) -> Mixed:
        """Two batches below one another, each mixed within itself."""
        return Mixed(torch.cat([self.share, other.share]), torch.cat([self.partner, other.partner + len(self.share)]))


def same_target(which: Int[Tensor, " b"]) -> Float[Tensor, "b b"]:
    """1 / (number of samples with this target) where two samples have the same target; the identity when all differ.

    # Paper: the identity, since each image is in a batch once. Here samples of one class may share a target, which
    # must not count as a negative of itself.
    """
    same = (which[:, None] == which).float()
    return same / same.sum(dim=1, keepdim=True)


def contrastive(
    predicted: Float[Tensor, "b e"], target: Float[Tensor, "b e"], weights: Float[Tensor, "b b"], temperature: float
) -> Float[Tensor, ""]:
    """`-mean_i sum_j W_ij log softmax_j(S_ij / tau)` and the same with W', S', averaged; W = identity is InfoNCE.

    Args:
        predicted: one row per brain sample, of any length
        target: what each should resemble, of any length
        weights: which targets a sample should find; `Mixed.weights` or `same_target`
        temperature: tau
    """
    scores = _cosines(predicted, target) / temperature
    forward = -(weights * scores.log_softmax(dim=1)).sum(dim=1).mean()
    backward = -(weights.T * scores.T.log_softmax(dim=1)).sum(dim=1).mean()
    return (forward + backward) / 2


def soft_contrastive(
    predicted: Float[Tensor, "b e"],
    target: Float[Tensor, "b e"],
    temperature: float,
    target_temperature: float | None = None,
) -> Float[Tensor, ""]:
    """InfoNCE whose labels are the targets' own resemblance, softmax(t t' / tau); tau -> 0 gives InfoNCE.

    Args:
        predicted: one row per brain sample
        target: what each should resemble
        temperature: of the scores
        target_temperature: of the labels; None = the same
    """
    label_temperature = temperature if target_temperature is None else target_temperature
    labels = (_cosines(target, target) / label_temperature).softmax(dim=1)
    scores = _cosines(predicted, target) / temperature
    forward = -(labels * scores.log_softmax(dim=1)).sum(dim=1).mean()
    backward = -(labels * scores.T.log_softmax(dim=1)).sum(dim=1).mean()
    return (forward + backward) / 2


@dataclass(frozen=True)
class Schedule:
    """First MixCo against hard targets, then soft targets; what holds at a point of the training.

    # Paper: tau .006 and .004 to .006, for 768-wide targets of thousands of images. Default here: .1 and .06 to .1, for
    # tens of candidates; the published values are `Schedule(temperature=.006, soft_from=.004, soft_to=.006)`.

    Args:
        mix_share: part of the epochs with MixCo
        temperature: tau while mixing
        soft_from: tau of the soft loss at its beginning; it follows a cosine
        soft_to: tau of the soft loss at the end
        mix_global: weight of the global terms (first token, text) while mixing
        soft_global: their weight afterwards
        beta: of the mixing shares
        mixed_part: part of the samples that are mixed
    """

    mix_share: float = 0.35
    temperature: float = 0.1
    soft_from: float = 0.06
    soft_to: float = 0.1
    mix_global: float = 0.5
    soft_global: float = 0.2
    beta: float = 0.15
    mixed_part: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.mix_share <= 1:
            raise ValueError(f"schedule.mix_share: expected 0 to 1, found {self.mix_share}")
        for name in ("temperature", "soft_from", "soft_to", "beta"):
            if getattr(self, name) <= 0:
                raise ValueError(f"schedule.{name}: expected above 0, found {getattr(self, name)}")

    def mixing(self, progress: float) -> bool:
        """Whether samples are mixed at this point, 0 = start, 1 = end."""
        return progress < self.mix_share

    def soft_temperature(self, progress: float) -> float:
        """tau of the soft loss: half a cosine from `soft_from` to `soft_to` over the second stage."""
        stage = (progress - self.mix_share) / (1 - self.mix_share) if self.mix_share < 1 else 1.0
        return self.soft_to + (self.soft_from - self.soft_to) * (1 + math.cos(math.pi * min(max(stage, 0.0), 1.0))) / 2


def _cosines(a: Float[Tensor, "b e"], b: Float[Tensor, "m e"]) -> Float[Tensor, "b m"]:
    return F.normalize(a.float(), dim=1) @ F.normalize(b.float(), dim=1).T
