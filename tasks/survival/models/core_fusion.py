"""Whatever modalities the cohort has, through the core: each an encoder, its reads a line in the config."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from data.cohort.batch import CohortSizes, PatientBatch
from encoders.covariates import CovariateTokens
from encoders.genes import GroupTokens
from encoders.slide import PatchTokens
from fusion.block import Block, FeedForward
from fusion.core import FusionCore, Stream
from fusion.operators.co_attention import CoAttention
from fusion.summary import GatedPooling
from fusion.tokens import Tokens
from tasks.survival.head import SurvivalHead
from tasks.survival.models.base import Prediction, SurvivalModel


class CoreFusion(SurvivalModel):
    """Streams `slide`, `genes` and `covariates`, those that the cohort has, read one another in the order given.

    Genes and age through the core: `CoreFusion(sizes, streams=["genes", "covariates"], reads=["genes <- covariates"])`.
    Each read is a block (attention and feed-forward, both residual); each stream ends in a gated-pooling summary; the
    summaries are concatenated. A stream that a patient does not have is a learned vector.

    Args:
        sizes: what the prepared cohort holds
        streams: which modalities to use; default all that the cohort has
        reads: who reads whom, in order; default every other stream reads the slide, without slides the genes
        width: token width
        heads: attention heads
        dropout: probability of dropping an activation
        gene_hidden: width of the first layer over the genes
    """

    def __init__(
        self,
        sizes: CohortSizes,
        *,
        streams: Sequence[str] | None = None,
        reads: Sequence[str] | None = None,
        width: int = 128,
        heads: int = 4,
        dropout: float = 0.25,
        gene_hidden: int = 128,
    ):
        super().__init__(sizes)
        there = [
            name
            for name, has in (
                ("slide", sizes.patch_width is not None),
                ("genes", bool(sizes.gene_groups)),
                ("covariates", bool(sizes.covariates)),
            )
            if has
        ]
        self.streams = there if streams is None else list(streams)
        if missing := [name for name in self.streams if name not in there]:
            raise ValueError(
                f"CoreFusion: no stream {missing[0]!r} in this cohort; it has {', '.join(there) or 'none'}"
            )
        if not self.streams:
            raise ValueError("CoreFusion: no streams; name at least one of slide, genes, covariates")
        self.encoders = nn.ModuleDict({name: self._encoder(name, width, gene_hidden, dropout) for name in self.streams})
        lines = default_reads(self.streams) if reads is None else list(reads)
        self.core = FusionCore(
            width,
            {name: Stream(summary=GatedPooling(width, width, dropout)) for name in self.streams},
            {
                line: Block(width, CoAttention(width, heads), FeedForward(width, 2 * width, dropout), dropout=dropout)
                for line in lines
            },
        )
        self.head = SurvivalHead(len(self.streams), width, sizes.outputs)

    def _encoder(self, name: str, width: int, gene_hidden: int, dropout: float) -> nn.Module:
        if name == "slide":
            return PatchTokens(self.patch_width(), (width,), dropout)
        if name == "genes":
            return GroupTokens(self.gene_groups(), (gene_hidden, width), dropout)
        return CovariateTokens(self.sizes.covariates, width)

    def forward(self, batch: PatientBatch) -> Prediction:
        fused = self.core({name: self._tokens(name, batch) for name in self.streams})
        return Prediction(self.head([fused.summaries[name] for name in self.streams]))

    def _tokens(self, name: str, batch: PatientBatch) -> Tokens:
        encoder = self.encoders[name]
        if name == "slide":
            return encoder(batch.patches, batch.slide_keep)
        if name == "genes":
            return encoder(batch.genes, batch.genes_present)
        return encoder(batch.covariates)


def default_reads(streams: Sequence[str]) -> list[str]:
    """The shorter streams read the longest one, then it is read no more."""
    source = next((name for name in ("slide", "genes", "covariates") if name in streams), None)
    return [f"{name} <- {source}" for name in streams if name != source]
