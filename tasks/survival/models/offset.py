"""Our own: the linear baseline's risk is the start, and a fusion network learns what it can add."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from data.cohort.batch import CohortSizes, PatientBatch
from tasks.survival.models.abmil import ABMIL
from tasks.survival.models.base import Prediction, SurvivalModel
from tasks.survival.models.cmta import CMTA
from tasks.survival.models.core_fusion import CoreFusion
from tasks.survival.models.mcat import MCAT
from tasks.survival.models.snn import SNN

INNER: Mapping[str, type[SurvivalModel]] = {"core": CoreFusion, "cmta": CMTA, "mcat": MCAT, "abmil": ABMIL, "snn": SNN}


class OffsetFusion(SurvivalModel):
    """`logits = offset + network(patient)`, with the out-of-fold log risk of the ridge baseline as the offset.

    Cox: one logit, the offset itself plus the correction. Discrete hazards: the offset times a learned positive scale
    (1 at the start) shifts all logits of a patient alike, on top of learned logits per bin; with untrained weights
    patients are therefore ordered exactly as the baseline orders them.

    The network's last layer starts at exactly 0, and `shrinkage * mean(correction ** 2)` is added to the loss: depth
    has to earn its place against a linear model that is hard to beat on a few hundred patients. The correction is
    squashed to +-`reach`, so that no patient is moved by more than that in log hazard.

    Args:
        sizes: what the prepared cohort holds
        inner: the network: core, cmta, mcat, abmil or snn
        options: its options
        shrinkage: weight of the mean squared correction
        reach: largest correction, in log hazard
    """

    reads_offset = True

    def __init__(
        self,
        sizes: CohortSizes,
        *,
        inner: Literal["core", "cmta", "mcat", "abmil", "snn"] = "core",
        options: Mapping[str, object] | None = None,
        shrinkage: float = 1.0,
        reach: float = 2.0,
    ):
        super().__init__(sizes)
        if inner not in INNER:
            raise ValueError(f"OffsetFusion: inner={inner!r}; expected one of {', '.join(INNER)}")
        if shrinkage < 0 or reach <= 0:
            raise ValueError(f"OffsetFusion: shrinkage={shrinkage} must be at least 0 and reach={reach} above 0")
        self.network = INNER[inner](sizes, **dict(options or {}))
        self.shrinkage, self.reach = shrinkage, reach
        nn.init.zeros_(self.network.last_layer().weight)
        nn.init.zeros_(self.network.last_layer().bias)
        if sizes.outputs > 1:
            self.log_scale = nn.Parameter(torch.zeros(()))
            self.per_bin = nn.Parameter(torch.zeros(sizes.outputs))

    def forward(self, batch: PatientBatch) -> Prediction:
        inside = self.network(batch)
        correction = self.reach * torch.tanh(inside.logits / self.reach)
        losses = dict(inside.losses)
        losses["shrinkage"] = self.shrinkage * correction.square().mean()
        return Prediction(self._start(batch.offset) + correction, losses, inside.attention, inside.counted)

    def _start(self, offset: Tensor) -> Tensor:
        """The baseline's logits."""
        if self.sizes.outputs == 1:
            return offset[:, None]
        return offset[:, None] * self.log_scale.exp() + self.per_bin
