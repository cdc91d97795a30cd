"""STTM (Liu et al., AAAI 2025, arXiv 2403.06361), high-level pipeline: voxels of anybody -> tokens of what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from encoders.brain import ResidualTrunk, SubjectAdapters, VoxelTokens
from fusion.block import Block, FeedForward
from fusion.core import FusionCore, Stream
from fusion.dropout import Dropout
from fusion.operators.dense import Dense
from fusion.tokens import Tokens


@dataclass(frozen=True)
class BrainSizes:
    """What a model is built for.

    Attributes:
        voxels: subject -> how many
        tokens: image tokens per candidate; the first is the global one
        width: of an image token
        text_width: of a text embedding; None = there are no texts
    """

    voxels: dict[str, int] = field(default_factory=dict)
    tokens: int = 1
    width: int = 8
    text_width: int | None = None


@dataclass(frozen=True)
class Architecture:
    """How wide and how deep the model is.

    Defaults are for about a hundred samples, chosen on simulated brains; the paper's are in brackets.

    Attributes:
        shared: width of the shared space (4096)
        blocks: residual blocks of the trunk (4)
        voxel_tokens: how many tokens the shared vector is cut into (257)
        token_width: of a voxel token and a query (128)
        heads: attention heads (8)
        projector: width of the projector's hidden layers (2048)
        adapter_dropout: after an adapter's first layer (.5)
        dropout: everywhere else (.15)
    """

    shared: int = 128
    blocks: int = 2
    voxel_tokens: int = 4
    token_width: int = 32
    heads: int = 4
    projector: int = 64
    adapter_dropout: float = 0.2
    dropout: float = 0.15


@dataclass(frozen=True)
class Decoded:
    """What the model reads from a batch of brain samples.

    Attributes:
        shared: output of the shared trunk, which guides the low-level pipeline, `[b, w]`
        tokens: image tokens in the space of the targets, for the diffusion prior, `[b, t, e]`
        projected: the same, projected for comparison with targets, `[b, t, e]`
        text: text embedding, projected, `[b, v]`
    """

    shared: Float[Tensor, "b w"]
    tokens: Float[Tensor, "b t e"]
    projected: Float[Tensor, "b t e"]
    text: Float[Tensor, "b v"] | None = None


class STTM(nn.Module):
    """Adapters, shared residual trunk, query tokens that read voxel tokens, heads to image and text tokens.

    Reads `"targets <- voxels"` of the core: one learned query per image token, and one for the text.

    # Paper: tokens are the slices of one linear layer, which then attend to one another. Here: the slices are voxel
    # tokens that attend to one another, and query tokens read them, so that targets of any number of tokens fit.

    Args:
        sizes: what to build it for
        build: how wide and how deep
    """

    def __init__(self, sizes: BrainSizes, build: Architecture | None = None):
        build = build or Architecture()
        shared, token_width, heads, dropout = build.shared, build.token_width, build.heads, build.dropout
        super().__init__()
        self.sizes = sizes
        self.adapters = SubjectAdapters(sizes.voxels, shared, build.adapter_dropout, dropout)
        self.trunk = ResidualTrunk(shared, build.blocks, dropout)
        self.voxel_tokens = VoxelTokens(shared, build.voxel_tokens, token_width)
        asked = sizes.tokens + (sizes.text_width is not None)
        self.queries = nn.Parameter(torch.randn(asked, token_width) / token_width**0.5)
        self.core = FusionCore(
            token_width,
            {"voxels": Stream(Block(token_width, Dense(token_width, heads))), "targets": Stream()},
            {
                "targets <- voxels": Block(
                    token_width, Dense(token_width, heads), FeedForward(token_width, 2 * token_width, dropout)
                )
            },
        )
        self.head = _head(token_width, 2 * token_width, sizes.width, dropout)
        self.project = _projector(sizes.width, build.projector)
        if sizes.text_width is not None:
            self.text_head = _head(token_width, 2 * token_width, sizes.text_width, dropout)
            self.text_project = _projector(sizes.text_width, build.projector)

    def forward(self, voxels: Mapping[str, Float[Tensor, "_ _"]]) -> Decoded:
        """Decode everybody's samples, one subject after the other.

        Args:
            voxels: subject -> `[samples, its voxels]`, standardised as in training

        Raises:
            MissingAdapter: a subject has no adapter
        """
        shared = self.trunk(self.adapters(voxels))
        queries = Tokens.full(self.queries.expand(len(shared), -1, -1))
        read = self.core({"voxels": self.voxel_tokens(shared), "targets": queries}).tokens["targets"].x
        tokens = self.head(read[:, : self.sizes.tokens])
        text = None
        if self.sizes.text_width is not None:
            text = self.text_head(read[:, -1])
            text = text + self.text_project(text)
        return Decoded(shared, tokens, tokens + self.project(tokens), text)

    def freeze_all_but(self, subjects: list[str]) -> list[nn.Parameter]:
        """Leave the adapters of these subjects to learn, and nothing else; give their parameters."""
        self.requires_grad_(False)
        for subject in subjects:
            self.adapters[subject].requires_grad_(True)
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


def match(
    decoded: Decoded, tokens: Float[Tensor, "k t e"], text: Float[Tensor, "k v"] | None = None
) -> Float[Tensor, "b k"]:
    """How well each sample matches each candidate: cosine of all image tokens laid end to end, plus that of the text.

    Args:
        decoded: of b samples
        tokens: image tokens of k candidates
        text: their text embeddings, when the model reads texts
    """
    scores = F.normalize(decoded.projected.flatten(1), dim=1) @ F.normalize(tokens.flatten(1), dim=1).T
    if decoded.text is not None and text is not None:
        scores = scores + F.normalize(decoded.text, dim=1) @ F.normalize(text, dim=1).T
    return scores


def _head(wide_in: int, hidden: int, out: int, dropout: float) -> nn.Sequential:
    """LN, linear, LN, GELU, dropout, linear: a token's way to the target's width."""
    return nn.Sequential(
        nn.LayerNorm(wide_in),
        nn.Linear(wide_in, hidden),
        nn.LayerNorm(hidden),
        nn.GELU(),
        Dropout(dropout),
        nn.Linear(hidden, out),
    )


def _projector(width: int, hidden: int) -> nn.Sequential:
    """Twice LN, GELU, linear to `hidden`, then back to `width` (MindEye's projector)."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.GELU(),
        nn.Linear(width, hidden),
        nn.LayerNorm(hidden),
        nn.GELU(),
        nn.Linear(hidden, hidden),
        nn.LayerNorm(hidden),
        nn.GELU(),
        nn.Linear(hidden, width),
    )
