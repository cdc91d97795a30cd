"""MCAT: gene groups read the patches, then each set of tokens is summarised (Chen 2021, ICCV)."""

from __future__ import annotations

from torch import nn

from data.cohort.batch import CohortSizes, PatientBatch
from encoders.genes import GroupTokens
from encoders.slide import PatchTokens
from fusion.block import Block, FeedForward
from fusion.core import FusionCore, Stream
from fusion.operators.co_attention import CoAttention
from fusion.operators.dense import Dense
from fusion.summary import GatedPooling
from tasks.survival.head import Fusion, SurvivalHead
from tasks.survival.models.base import Prediction, SurvivalModel


class MCAT(SurvivalModel):
    """Six visual tokens, one per gene group, hold what each group found in the slide; cost grows with the patches.

    Without slides the visual summary is a learned vector. Without genes nobody asks the slide: both are.

    Args:
        sizes: what the prepared cohort holds
        width: token width
        layers: transformer layers over the visual tokens and over the gene tokens
        fusion: how the two summaries meet
        dropout: probability of dropping an activation
    """

    def __init__(
        self,
        sizes: CohortSizes,
        *,
        width: int = 256,
        layers: int = 2,
        fusion: Fusion = "concat",
        dropout: float = 0.25,
    ):
        super().__init__(sizes)
        self.slide = PatchTokens(self.patch_width(), (width,), dropout)
        self.genes = GroupTokens(self.gene_groups(), (width, width), dropout)

        def block() -> Block:
            feed_forward = FeedForward(width, 2 * width, dropout, "relu")
            return Block(width, Dense(width, 8, bias=True, dropout=dropout), feed_forward, "post", dropout)

        def stream() -> Stream:
            return Stream(*[block() for _ in range(layers)], summary=GatedPooling(width, width, dropout))

        self.core = FusionCore(
            width,
            {"slide": Stream(), "genes": Stream(), "found": stream(), "profile": stream()},
            {"found = genes <- slide": CoAttention(width, 1, bias=True)},
        )
        self.after = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout))
                for name in ("found", "profile")
            }
        )
        self.head = SurvivalHead(2, width, sizes.outputs, fusion)

    def forward(self, batch: PatientBatch) -> Prediction:
        genes = self.genes(batch.genes, batch.genes_present)
        slide = self.slide(batch.patches, batch.slide_keep)
        fused = self.core({"slide": slide, "genes": genes, "profile": genes})
        return Prediction(self.head([after(fused.summaries[name]) for name, after in self.after.items()]))
