"""Losses of a survival model, and how each of them orders patients.

Discrete hazards: Zadeh & Schmid 2020 (doi:10.1109/TPAMI.2020.2979450), as in MCAT and CMTA.
Cox: Breslow 1974 and Efron 1977 (doi:10.1080/01621459.1977.10480613) for tied times.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from data.cohort.batch import PatientBatch
from tasks.survival.models.base import Prediction


class SurvivalLoss(nn.Module, ABC):
    """How logits become a loss and a risk.

    Attributes:
        outputs: logits per patient that the loss expects
    """

    outputs: int

    def forward(self, prediction: Prediction, batch: PatientBatch) -> Float[Tensor, ""]:
        """Loss of a batch, the model's own terms included."""
        found = prediction.logits.shape[1]
        if found != self.outputs:
            raise ValueError(
                f"{type(self).__name__} expects {self.outputs} logits per patient, the model gave {found}; "
                f"build it with sizes.outputs={self.outputs}"
            )
        loss = self.likelihood(prediction.logits, batch)
        for term in prediction.losses.values():
            loss = loss + term
        return loss

    @abstractmethod
    def likelihood(self, logits: Float[Tensor, "b k"], batch: PatientBatch) -> Float[Tensor, ""]:
        """Negative log-likelihood of the outcomes."""

    @abstractmethod
    def risk(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
        """One number per patient; higher = worse."""


class DiscreteHazard(SurvivalLoss):
    """Mean negative log-likelihood of hazards per time bin.

    An event in bin y costs -(log S[y-1] + log h[y]), a patient censored in bin y costs -log S[y], with S[-1] = 1.

    Args:
        bins: time bins
        alpha: weight moved from all patients to the uncensored ones, 0 to 1: (1 - alpha) * nll + alpha * event part
        floor: probabilities are clamped here before the logarithm
    """

    def __init__(self, bins: int = 4, alpha: float = 0.0, floor: float = 1e-7):
        super().__init__()
        if bins < 1:
            raise ValueError(f"DiscreteHazard: bins={bins}; expected at least 1")
        if not 0 <= alpha <= 1:
            raise ValueError(f"DiscreteHazard: alpha={alpha}; expected 0 to 1")
        self.outputs, self.alpha, self.log_floor = bins, alpha, math.log(floor)

    def likelihood(self, logits: Float[Tensor, "b k"], batch: PatientBatch) -> Float[Tensor, ""]:
        if len(batch.bins) and not 0 <= int(batch.bins.min()) <= int(batch.bins.max()) < self.outputs:
            raise ValueError(
                f"DiscreteHazard: time bins reach from {int(batch.bins.min())} to {int(batch.bins.max())}; "
                f"expected 0 to {self.outputs - 1}: prepare the cohort with bins={self.outputs}"
            )
        return self.per_patient(logits, batch.bins, batch.event).mean()

    def per_patient(
        self, logits: Float[Tensor, "b k"], bins: Int[Tensor, " b"], event: Bool[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """The negative log-likelihood of each patient."""
        log_survival = F.pad(F.logsigmoid(-logits).cumsum(dim=1), (1, 0))
        at = bins[:, None]
        before, through = log_survival.gather(1, at)[:, 0], log_survival.gather(1, at + 1)[:, 0]
        hazard = F.logsigmoid(logits).gather(1, at)[:, 0]
        died = -(before.clamp(min=self.log_floor) + hazard.clamp(min=self.log_floor))
        alive = -through.clamp(min=self.log_floor)
        return torch.where(event, died, (1 - self.alpha) * alive)

    def survival(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """Probability of being alive at the end of each bin."""
        return F.logsigmoid(-logits).cumsum(dim=1).exp()

    def risk(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
        """Minus the expected number of bins survived, -sum_k S[k], between -k and 0."""
        return -self.survival(logits).sum(dim=1)


class CoxPartialLikelihood(SurvivalLoss):
    """Mean over events of the negative log partial likelihood, exact over the patients of the batch.

    A batch without events gives 0 and zero gradients. The sum runs over pairs of patients: b * b memory.

    Args:
        ties: how events at the same time share their risk set
    """

    outputs = 1

    def __init__(self, ties: Literal["efron", "breslow"] = "efron"):
        super().__init__()
        if ties not in ("efron", "breslow"):
            raise ValueError(f"CoxPartialLikelihood: ties={ties!r}; expected 'efron' or 'breslow'")
        self.ties = ties

    def likelihood(self, logits: Float[Tensor, "b k"], batch: PatientBatch) -> Float[Tensor, ""]:
        risk, time, event = logits[:, 0], batch.time, batch.event
        if not bool(event.any()):
            return risk.sum() * 0.0
        died = event.nonzero()[:, 0]
        when = time[died]
        at_risk = time >= when[:, None]
        tied = (when[:, None] == time) & event
        everyone = torch.where(at_risk, risk, -torch.inf).logsumexp(dim=1)
        if self.ties == "efron":
            order = (tied[:, died] & (died < died[:, None])).sum(dim=1)
            share = order / tied.sum(dim=1)
            the_dead = torch.where(tied, risk, -torch.inf).logsumexp(dim=1)
            everyone = everyone + torch.log1p(-share * (the_dead - everyone).exp().clamp(max=1.0))
        return (everyone - risk[died]).mean()

    def risk(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
        """The log hazard ratio itself."""
        return logits[:, 0]
