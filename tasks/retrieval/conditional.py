"""One item, many embeddings: a named condition asks the item's tokens (CCA, Song et al. 2023, arXiv 2307.13254)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from encoders.encoder import Encoder
from fusion.block import Block, FeedForward
from fusion.operators.conditional import ChannelGate, Conditional
from fusion.operators.dense import Dense
from fusion.summary import Mean
from fusion.tokens import Tokens


class Backbone(nn.Module):
    """What all conditions share: an encoder's tokens, a linear layer, transformer blocks.

    Args:
        source_width: width of the encoder's tokens
        width: of the tokens it gives
        blocks: transformer blocks
        heads: attention heads of each block; must divide width
        dropout: probability of dropping an input feature, a read or an activation while training
    """

    def __init__(self, source_width: int, width: int, blocks: int, heads: int, dropout: float):
        super().__init__()
        self.into = nn.Sequential(nn.Dropout(dropout), nn.Linear(source_width, width))
        self.blocks = nn.ModuleList(
            Block(width, Dense(width, heads), FeedForward(width, 2 * width, dropout), dropout=dropout)
            for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tokens) -> Tokens:
        tokens = tokens.zeroed()
        tokens = tokens.with_x(self.into(tokens.x))
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.with_x(self.norm(tokens.x))


READ_HEADS, READ_WIDTH = 16, 64
"""Heads of the read and channels of each: wide, so that conditions need not share channels."""


class LastBlock(nn.Module):
    """The block in which conditions ask: read, residual feed-forward, norm, linear, unit norm.

    Departs from the paper in two things. The condition also weighs the channels of what was read, of the feed-forward
    layer's input and of the last one: a frozen encoder's few tokens hold style and identity side by side, so that where
    to look tells them not apart. And the condition token is not added to what was read: it is the same for all items of
    a space, and drowned their differences. A single condition is an attention pool with a learned query, without gates.

    Args:
        conditions: how many
        width: of the item's tokens
        out: width of the embedding
        dropout: of the feed-forward layer
    """

    def __init__(self, conditions: int, width: int, out: int, dropout: float):
        super().__init__()
        several = conditions > 1
        self.read = Conditional(conditions, width, READ_HEADS, gated=several, head_width=READ_WIDTH)
        self.norm, self.feed_forward = nn.LayerNorm(width), FeedForward(width, 2 * width, dropout)
        self.last_norm, self.out = nn.LayerNorm(width), nn.Linear(width, out)
        self.gates = nn.ModuleList(ChannelGate(width, width) for _ in range(2 * several))

    def forward(self, item: Tokens, condition: Int[Tensor, "b k"]) -> Float[Tensor, "b k d"]:
        """Each item under each of its conditions."""
        asking = self.read.ask(condition)
        return self._embedded(self.read(asking, item).y, asking.x)

    def every(self, item: Tokens) -> Float[Tensor, "b k d"]:
        """Each item under all conditions."""
        return self._embedded(self.read.every(item).y, self.read.table)

    def _embedded(self, x: Float[Tensor, "b k w"], asking: Float[Tensor, "*b k w"]) -> Float[Tensor, "b k d"]:
        into, last = (gate(asking) for gate in self.gates) if self.gates else (1.0, 1.0)
        x = x + self.feed_forward(self.norm(x) * into)
        return F.normalize(self.out(self.last_norm(x) * last), dim=-1)


class AttributeEmbedder(nn.Module, ABC):
    """An encoder and a backbone that run once per item, and a space per condition.

    Args:
        encoder: raw items -> tokens
        conditions: names of the attributes that may be asked about
        width: of the embeddings
        hidden: of the backbone
        blocks: transformer blocks of the backbone
        heads: attention heads of the backbone; must divide hidden
        dropout: of backbone and head
    """

    def __init__(
        self,
        encoder: Encoder,
        conditions: Sequence[str],
        width: int = 128,
        hidden: int = 256,
        blocks: int = 1,
        heads: int = 4,
        dropout: float = 0.1,
    ):
        super().__init__()
        if not conditions or len(set(conditions)) != len(conditions):
            raise ValueError(f"conditions={list(conditions)}: expected at least one name, each once")
        self.encoder, self.conditions, self.width = encoder, tuple(conditions), width
        self.backbone = Backbone(encoder.width, hidden, blocks, heads, dropout)
        self.build(hidden, dropout)

    @abstractmethod
    def build(self, hidden: int, dropout: float) -> None:
        """Make what comes after the backbone."""

    @abstractmethod
    def spaces(self, item: Tokens) -> Float[Tensor, "b k d"]:
        """Unit embeddings under all conditions, from the backbone's tokens."""

    def one_space(self, item: Tokens, condition: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Unit embeddings, each item under its own condition."""
        return self.spaces(item)[torch.arange(len(condition), device=condition.device), condition]

    def number(self, condition: str) -> int:
        """The number of a condition.

        Raises:
            ValueError: this model was not trained for it
        """
        if condition not in self.conditions:
            raise ValueError(f"condition '{condition}': this model knows {', '.join(self.conditions)}")
        return self.conditions.index(condition)

    def embed(self, raw: Any, condition: str | Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Items under one condition, by name, or each under its own, by number."""
        return self.embed_tokens(self.encoder(raw), condition)

    def embed_all(self, raw: Any) -> Float[Tensor, "b k d"]:
        """Items under all conditions; encoder and backbone run once."""
        return self.spaces(self.backbone(self.encoder(raw)))

    def embed_tokens(self, tokens: Tokens, condition: str | Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """`embed` from the encoder's tokens.

        Raises:
            ValueError: a condition that the model lacks
        """
        if isinstance(condition, str):
            asked = torch.full((len(tokens.x),), self.number(condition), device=tokens.x.device)
        else:
            asked = condition
            outside = asked[(asked < 0) | (asked >= len(self.conditions))]
            if len(outside):
                known = len(self.conditions) - 1
                raise ValueError(f"condition {int(outside[0])}: this model knows 0 to {known}")
        return self.one_space(self.backbone(tokens), asked)


class ConditionalEmbedder(AttributeEmbedder):
    """A learned query per condition reads the item in the last block; every other weight is shared."""

    def build(self, hidden: int, dropout: float) -> None:
        self.last = LastBlock(len(self.conditions), hidden, self.width, dropout)

    def spaces(self, item: Tokens) -> Float[Tensor, "b k d"]:
        return self.last.every(item)

    def one_space(self, item: Tokens, condition: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        return self.last(item, condition[:, None])[:, 0]


class SharedEmbedder(AttributeEmbedder):
    """Baseline: one learned query for everything, so all conditions share one space."""

    def build(self, hidden: int, dropout: float) -> None:
        self.last = LastBlock(1, hidden, self.width, dropout)

    def spaces(self, item: Tokens) -> Float[Tensor, "b k d"]:
        return self.last.every(item).expand(-1, len(self.conditions), -1)


class SeparateHeads(AttributeEmbedder):
    """Baseline: a last block of its own for every condition, on the same backbone."""

    def build(self, hidden: int, dropout: float) -> None:
        self.last = nn.ModuleList(LastBlock(1, hidden, self.width, dropout) for _ in self.conditions)

    def spaces(self, item: Tokens) -> Float[Tensor, "b k d"]:
        return torch.cat([last.every(item) for last in self.last], dim=1)  # type: ignore[operator]


class MaskedEmbedder(AttributeEmbedder):
    """Baseline: one embedding times a learned mask per condition, at least 0 (CSN, Veit et al. 2017, 1603.07810)."""

    def build(self, hidden: int, dropout: float) -> None:
        self.mean = Mean()
        self.out = nn.Linear(hidden, self.width)
        self.mask = nn.Parameter(0.9 + 0.1 * torch.randn(len(self.conditions), self.width))

    def spaces(self, item: Tokens) -> Float[Tensor, "b k d"]:
        return F.normalize(self.out(self.mean(item))[:, None] * self.mask.relu(), dim=-1)
