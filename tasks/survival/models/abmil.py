"""ABMIL: gated attention pooling over the patches of a patient (Ilse 2018, arXiv 1802.04712; as in MCAT's AMIL)."""

from __future__ import annotations

from torch import nn

from data.cohort.batch import CohortSizes, PatientBatch
from encoders.slide import PatchTokens
from fusion.core import FusionCore, Stream
from fusion.summary import GatedPooling
from tasks.survival.models.base import Prediction, SurvivalModel


class ABMIL(SurvivalModel):
    """Slides alone; patches have no order. Cost grows with the number of patches.

    Args:
        sizes: what the prepared cohort holds
        width: width of a patch token
        hidden: width of the attention gate and of the layer before the logits
        dropout: probability of dropping an activation
    """

    def __init__(self, sizes: CohortSizes, *, width: int = 512, hidden: int = 256, dropout: float = 0.25):
        super().__init__(sizes)
        self.slide = PatchTokens(self.patch_width(), (width,), dropout)
        self.pooling = GatedPooling(width, hidden, dropout)
        self.core = FusionCore(width, {"slide": Stream(summary=self.pooling)}, {})
        self.head = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, sizes.outputs)
        )

    def forward(self, batch: PatientBatch) -> Prediction:
        fused = self.core({"slide": self.slide(batch.patches, batch.slide_keep, batch.grid, batch.slide)})
        return Prediction(self.head(fused.summaries["slide"]))
