"""Late fusion: every modality predicts alone, and the logits are averaged over those a patient has."""

from __future__ import annotations

import torch
from torch import nn

from data.cohort.batch import CohortSizes, PatientBatch
from tasks.survival.models.abmil import ABMIL
from tasks.survival.models.base import Prediction, SurvivalModel, mean_of_present
from tasks.survival.models.snn import SNN


class LateFusion(SurvivalModel):
    """ABMIL on slides, SNN on genes, a linear layer on covariates; the mean of their logits.

    A patient with none of them gets learned logits.

    Args:
        sizes: what the prepared cohort holds
        dropout: probability of dropping an activation
    """

    def __init__(self, sizes: CohortSizes, *, dropout: float = 0.25):
        super().__init__(sizes)
        self.slide = ABMIL(sizes, dropout=dropout) if sizes.patch_width is not None else None
        self.genes = SNN(sizes, dropout=dropout) if sizes.gene_groups else None
        self.covariates = nn.Linear(len(sizes.covariates), sizes.outputs) if sizes.covariates else None
        if self.slide is None and self.genes is None and self.covariates is None:
            raise ValueError("LateFusion: the cohort has no slides, no genes and no covariates; nothing to learn from")
        self.absent = nn.Parameter(torch.zeros(sizes.outputs))

    def forward(self, batch: PatientBatch) -> Prediction:
        votes, present = [], []
        if self.slide is not None:
            votes.append(self.slide(batch).logits)
            present.append(batch.slide_keep.any(dim=1))
        if self.genes is not None:
            votes.append(self.genes(batch).logits)
            present.append(batch.genes_present)
        if self.covariates is not None:
            votes.append(self.covariates(batch.covariates))
            present.append(torch.ones_like(batch.genes_present))
        return Prediction(mean_of_present(votes, present, self.absent))
