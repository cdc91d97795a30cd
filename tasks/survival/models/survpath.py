"""SurvPath: hundreds of pathways and thousands of patches in one attention layer (Jaume 2024, arXiv 2304.06819)."""

from __future__ import annotations

import torch
from torch import nn

from data.cohort.batch import CohortSizes, PatientBatch
from encoders.genes import GroupTokens
from fusion.core import FusionCore, Stream
from fusion.operators.dense import Dense
from fusion.summary import Mean
from fusion.tokens import Tokens
from tasks.survival.models.base import Prediction, SurvivalModel


class AfterRead(nn.Module):
    """Layer norm, linear, GELU, dropout, linear, layer norm, on each token and without a residual.

    Args:
        width: token width
        dropout: probability of dropping an activation
    """

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.LayerNorm(width),
        )

    def forward(self, tokens: Tokens) -> Tokens:
        return tokens.with_x(self.layers(tokens.x))


class SurvPath(SurvivalModel):
    """Pathways read pathways and patches in one softmax; patches read pathways only, so no patch sees another.

    Without genes nothing is read: such a patient gets learned vectors. Patches may be sampled while training, as the
    authors do; predictions use all of them.

    Args:
        sizes: what the prepared cohort holds; its gene groups are the pathways
        width: width of the tokens before attention; attention has one head of half that width
        sample: patches drawn per patient and step while training; 0 = all
        dropout: probability of dropping an activation after the read
        gene_dropout: alpha dropout in the pathway encoders
    """

    def __init__(
        self,
        sizes: CohortSizes,
        *,
        width: int = 256,
        sample: int = 4096,
        dropout: float = 0.1,
        gene_dropout: float = 0.25,
    ):
        super().__init__(sizes)
        self.sample = sample
        self.slide = nn.Linear(self.patch_width(), width)
        self.genes = GroupTokens(self.gene_groups(), (width, width), gene_dropout)
        self.norm = nn.LayerNorm(width)
        half = width // 2
        reader, after = Dense(width, 1, head_width=half, project=False), AfterRead(half, dropout)
        reader.site = "pathways <- pathways + slide, slide <- pathways"
        self.core = FusionCore(
            half,
            {
                "slide": Stream(),
                "pathways": Stream(),
                "pathways_read": Stream(after, summary=Mean()),
                "slide_read": Stream(after, summary=Mean()),
            },
            {
                "pathways_read = pathways <- pathways + slide": reader,
                "slide_read = slide <- pathways": reader,
            },
        )
        self.head = nn.Sequential(nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, sizes.outputs))

    def forward(self, batch: PatientBatch) -> Prediction:
        slide = self._drawn(batch)
        pathways = self.genes(batch.genes, batch.genes_present)
        fused = self.core(
            {
                "slide": slide.with_x(self.norm(self.slide(slide.x))),
                "pathways": pathways.with_x(self.norm(pathways.x)),
            }
        )
        vectors = [fused.summaries["pathways_read"], fused.summaries["slide_read"]]
        return Prediction(self.head(torch.cat(vectors, dim=1)))

    def _drawn(self, batch: PatientBatch) -> Tokens:
        """The patches of this step: a random subset of each patient's own ones while training."""
        slide = Tokens(batch.patches, batch.slide_keep).zeroed()
        if not self.training or self.sample <= 0 or batch.patches.shape[1] <= self.sample:
            return slide
        lottery = torch.rand(batch.slide_keep.shape, device=slide.x.device).masked_fill(~slide.keep, 2.0)
        rows = lottery.argsort(dim=1)[:, : self.sample]
        return Tokens(slide.x.gather(1, rows[..., None].expand(-1, -1, slide.width)), slide.keep.gather(1, rows))
