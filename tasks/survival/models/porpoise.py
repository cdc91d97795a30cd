"""PORPOISE: attention-pooled patches and a gene network, each gated by the other.

Chen 2022, Cancer Cell, doi:10.1016/j.ccell.2022.07.004.
"""

from __future__ import annotations

import torch
from torch import nn

from data.cohort.batch import CohortSizes, PatientBatch
from encoders.genes import GroupTokens
from encoders.slide import PatchTokens
from fusion.core import FusionCore, Stream
from fusion.summary import GatedPooling, Mean
from tasks.survival.head import GatedKronecker
from tasks.survival.models.base import Prediction, SurvivalModel


class Porpoise(SurvivalModel):
    """The outer product of both summaries, each gated by the other; either modality may be missing.

    Args:
        sizes: what the prepared cohort holds
        width: width of the summaries
        patch_hidden: width of a patch token
        dropout: probability of dropping an activation
        input_dropout: probability of dropping a patch feature
    """

    def __init__(
        self,
        sizes: CohortSizes,
        *,
        width: int = 256,
        patch_hidden: int = 512,
        dropout: float = 0.25,
        input_dropout: float = 0.1,
    ):
        super().__init__(sizes)
        self.input_dropout = nn.Dropout(input_dropout)
        self.slide = PatchTokens(self.patch_width(), (patch_hidden,), dropout)
        self.pooled = FusionCore(
            patch_hidden, {"slide": Stream(summary=GatedPooling(patch_hidden, width, dropout))}, {}
        )
        self.reduce = nn.Sequential(nn.Linear(patch_hidden, width), nn.ReLU(), nn.Dropout(dropout))
        self.genes = GroupTokens({"all genes": sum(self.gene_groups().values())}, (width, width), dropout)
        self.profile = FusionCore(width, {"genes": Stream(summary=Mean())}, {})
        self.fuse = GatedKronecker(width, skip=True, dropout=dropout, dropout_layers=0.0)
        self.classify = nn.Linear(width, sizes.outputs)

    def forward(self, batch: PatientBatch) -> Prediction:
        patches = self.input_dropout(batch.patches)
        slide = self.pooled({"slide": self.slide(patches, batch.slide_keep)}).summaries["slide"]
        everything = {"all genes": torch.cat(list(batch.genes.values()), dim=1)}
        genes = self.profile({"genes": self.genes(everything, batch.genes_present)}).summaries["genes"]
        return Prediction(self.classify(self.fuse([self.reduce(slide), genes])))
