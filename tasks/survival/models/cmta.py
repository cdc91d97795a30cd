"""CMTA: two modalities build stand-ins for one another's summary (Zhou & Chen 2023, arXiv 2309.12855)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from data.cohort.batch import CohortSizes, PatientBatch
from encoders.genes import GroupTokens
from encoders.slide import PatchTokens
from fusion.alignment import Alignment, Distance
from fusion.attention import AttentionOp, MultiHead
from fusion.block import Block
from fusion.class_token import ClassTokenStream, RepeatToSquare
from fusion.core import FusionCore
from fusion.grid_convolution import GridConvolution
from fusion.operators.co_attention import CoAttention
from fusion.operators.nystrom import Nystrom
from fusion.operators.nystrom_zero_padded import ZeroPaddedNystrom
from fusion.tokens import Tokens
from tasks.survival.head import Fusion, SurvivalHead
from tasks.survival.models.base import Prediction, SurvivalModel, initialise_xavier, mean_of_present

Variant = Literal["exact", "published"]
WIDTH = 256
PATCH_WIDTHS = {"small": (256, 256), "large": (512, 256)}
GENE_WIDTHS = {"small": (1024, 256), "large": (1024, 1024, 1024, 256)}


class CMTA(SurvivalModel):
    """Slides and genes, each with an encoder; a decoder per modality builds its stand-in from the other one.

    `exact`: padding is masked, short sequences are read exactly, the convolution follows the patches' true coordinates
    (without coordinates there is none), runs of patches follow the slide instead of the file, several patients make a
    batch, and either modality may be missing: the other one decides, and a learned vector stands for the missing
    summary.

    `published`: the authors' computation to float32 rounding, given the same weights (`cmta_weights.from_reference`):
    unmasked zero padding, repeated first patches, a grid in file order. Both modalities must be there. Patients of a
    batch change nothing for one another; those whose patches fill squares of one size are computed together.

    Args:
        sizes: what the prepared cohort holds
        variant: see above
        size: width of the hidden layers of the two encoders
        fusion: how the two summaries meet
        alignment: weight of the alignment loss (the paper's alpha: BLCA 1, BRCA 100, GBMLGG 1, LUAD 1e-4, UCEC 1)
        distance: between an original and its stand-in
        dropout: probability of dropping an activation of the encoders
        read_dropout: probability of dropping an activation after a stream has read itself
        landmarks: of `exact`, for streams too long to be read exactly (about 1,000 tokens). On 2,500 patches of an
            untrained model, 64 moved a logit by .015 from exact attention, 128 by .013; the authors use 128
    """

    def __init__(
        self,
        sizes: CohortSizes,
        *,
        variant: Variant = "exact",
        size: Literal["small", "large"] = "small",
        fusion: Fusion = "concat",
        alignment: float = 1.0,
        distance: Distance = "l1",
        dropout: float = 0.25,
        read_dropout: float = 0.1,
        landmarks: int = 64,
    ):
        super().__init__(sizes)
        if variant not in ("exact", "published"):
            raise ValueError(f"CMTA: variant={variant!r}; expected 'exact' or 'published'")
        if size not in PATCH_WIDTHS:
            raise ValueError(f"CMTA: size={size!r}; expected 'small' or 'large'")
        self.exact = variant == "exact"
        self.slide = PatchTokens(self.patch_width(), PATCH_WIDTHS[size], dropout, placed=self.exact)
        self.genes = GroupTokens(self.gene_groups(), GENE_WIDTHS[size], dropout)
        self.square = RepeatToSquare()

        def reader() -> AttentionOp:
            return Nystrom(WIDTH, 8, landmarks=landmarks) if self.exact else ZeroPaddedNystrom(WIDTH, 8)

        def stream(of_patches: bool, arrange: nn.Module | None = None) -> ClassTokenStream:
            first, second = (Block(WIDTH, reader(), dropout=read_dropout) for _ in range(2))
            return ClassTokenStream(WIDTH, first, second, GridConvolution(WIDTH) if of_patches else None, arrange)

        self.core = FusionCore(
            WIDTH,
            {
                "slide": stream(True, None if self.exact else self.square),
                "genes": stream(False),
                "slide_from_genes": stream(True),
                "genes_from_slide": stream(False),
            },
            {
                "slide_from_genes = slide <- genes": CoAttention(WIDTH, 1, bias=True),
                "genes_from_slide = genes <- slide": CoAttention(WIDTH, 1, bias=True),
            },
            learn_absent=False,
        )
        self.align = Alignment(distance, alignment)
        self.head = SurvivalHead(2, WIDTH, sizes.outputs, fusion)
        if self.exact:
            self.slide_absent = nn.Parameter(torch.zeros(WIDTH))
            self.genes_absent = nn.Parameter(torch.zeros(WIDTH))
        self._initialise()

    def _initialise(self) -> None:
        """As the authors start: query, key and value weights are drawn as one matrix, uniform for the co-attention."""
        initialise_xavier(self)
        for reader in self.modules():
            if isinstance(reader, MultiHead):
                spread = (2 / (reader.width + 3 * reader.heads * reader.head_width)) ** 0.5
                for layer in (reader.to_query, reader.to_source):
                    if isinstance(reader, Nystrom | ZeroPaddedNystrom):
                        nn.init.normal_(layer.weight, std=spread)
                    else:
                        nn.init.uniform_(layer.weight, -spread * 3**0.5, spread * 3**0.5)

    def forward(self, batch: PatientBatch) -> Prediction:
        if self.exact:
            slide = self.slide(batch.patches, batch.slide_keep, batch.grid, batch.slide)
            return self._predict(slide, self.genes(batch.genes, batch.genes_present))
        genes = self.genes(batch.genes, batch.genes_present)
        rows, parts = self._by_square(batch)
        logits: list[Tensor] = []
        losses: dict[str, Tensor] = {}
        for at, slide in zip(rows, parts, strict=True):
            part = self._predict(slide, Tokens.full(genes.x[at]))
            logits.append(part.logits)
            for name, term in part.losses.items():
                losses[name] = losses.get(name, term.new_zeros(())) + term * (len(at) / len(batch))
        return Prediction(torch.cat(logits)[torch.cat(rows).argsort()], losses)

    def _by_square(self, batch: PatientBatch) -> tuple[list[Tensor], list[Tokens]]:
        """Patients whose patches fill squares of one size, without padding: which ones, and their patch tokens."""
        embedded = self.slide(batch.patches, batch.slide_keep).x
        squares: dict[int, tuple[list[int], list[Tensor]]] = {}
        for i, case in enumerate(batch.case_id):
            real = batch.slide_keep[i].nonzero()[:, 0]
            if not len(real) or not bool(batch.genes_present[i]):
                missing = "genes" if len(real) else "slides"
                raise ValueError(f"CMTA: patient {case} has no {missing}; variant='published' needs both, use 'exact'")
            square = self.square(Tokens.full(embedded[i, real][None])).x
            at, own = squares.setdefault(square.shape[1], ([], []))
            at.append(i)
            own.append(square)
        rows = [torch.tensor(at, device=embedded.device) for at, _ in squares.values()]
        return rows, [Tokens.full(torch.cat(own)) for _, own in squares.values()]

    def _predict(self, slide: Tokens, genes: Tokens) -> Prediction:
        fused = self.core({"slide": slide, "genes": genes})
        vectors, losses, counted = [], {}, {}
        for name, stand_in in (("slide", "slide_from_genes"), ("genes", "genes_from_slide")):
            pair = [fused.summaries[name], fused.summaries[stand_in]]
            there = [fused.present[name], fused.present[stand_in]]
            absent = getattr(self, f"{name}_absent") if self.exact else pair[0].new_zeros(WIDTH)
            vectors.append(mean_of_present(pair, there, absent))
            losses[f"align_{name}"] = self.align(*pair, there[0] & there[1])
            counted[f"align_{name}"] = (there[0] & there[1]).sum()
        return Prediction(self.head(vectors), losses, counted=counted)
