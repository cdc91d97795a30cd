"""TransMIL: patches read one another through landmarks, a class token decides (Shao 2021, arXiv 2106.00908)."""

from __future__ import annotations

import torch
from torch import nn

from data.cohort.batch import CohortSizes, PatientBatch
from encoders.slide import PatchTokens
from fusion.block import Block
from fusion.class_token import ClassTokenStream, RepeatToSquare
from fusion.core import FusionCore
from fusion.grid_convolution import GridConvolution
from fusion.operators.nystrom import Nystrom
from fusion.operators.nystrom_zero_padded import ZeroPaddedNystrom
from tasks.survival.models.base import Prediction, SurvivalModel
from tasks.survival.models.cmta import Variant


class TransMIL(SurvivalModel):
    """Slides alone. `exact` and `published` differ as they do in CMTA.

    Args:
        sizes: what the prepared cohort holds
        variant: `published` = zero padding that is read, repeated first patches, a grid in file order
        width: token width
        heads: attention heads
        dropout: probability of dropping an activation after the patches were embedded
        read_dropout: the same after they have read one another
    """

    def __init__(
        self,
        sizes: CohortSizes,
        *,
        variant: Variant = "exact",
        width: int = 512,
        heads: int = 8,
        dropout: float = 0.0,
        read_dropout: float = 0.1,
    ):
        super().__init__(sizes)
        if variant not in ("exact", "published"):
            raise ValueError(f"TransMIL: variant={variant!r}; expected 'exact' or 'published'")
        self.exact = variant == "exact"
        reader = Nystrom if self.exact else ZeroPaddedNystrom
        first, second = (
            Block(width, reader(width, heads, landmarks=width // 2), dropout=read_dropout) for _ in range(2)
        )
        arrange = None if self.exact else RepeatToSquare()
        self.slide = PatchTokens(self.patch_width(), (width,), dropout, placed=self.exact)
        self.core = FusionCore(
            width, {"slide": ClassTokenStream(width, first, second, GridConvolution(width), arrange)}, {}
        )
        self.classify = nn.Linear(width, sizes.outputs)

    def forward(self, batch: PatientBatch) -> Prediction:
        if self.exact:
            fused = self.core({"slide": self.slide(batch.patches, batch.slide_keep, batch.grid, batch.slide)})
            return Prediction(self.classify(fused.summaries["slide"]))
        logits = []
        for case, patches, keep in zip(batch.case_id, batch.patches, batch.slide_keep, strict=True):
            if not bool(keep.any()):
                raise ValueError(f"TransMIL: patient {case} has no slides; variant='published' needs them, use 'exact'")
            slide = self.slide(patches[keep][None], keep[keep][None])
            logits.append(self.classify(self.core({"slide": slide}).summaries["slide"]))
        return Prediction(torch.cat(logits))
