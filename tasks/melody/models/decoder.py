"""A causal decoder whose scores may know distances: Music Transformer (Huang et al., ICLR 2019, arXiv 1809.04281).

Relative attention, global or in blocks, further relations by pitch and time, or no relative term at all; sinusoids of
the place added to or put beside what is read (papers/music-transformer.md). Pre-norm blocks are our choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fusion.block import Block, FeedForward
from fusion.dropout import Dropout
from fusion.operators.relative import Relative
from fusion.tokens import Place, Tokens

Sinusoids = Literal["none", "added", "beside"]


@dataclass(frozen=True)
class DecoderOptions:
    """Size and kind of a decoder.

    Attributes:
        width: of the tokens
        layers: blocks
        heads: attention heads of each block; must divide width
        feed_forward: width between the two linear layers of a block
        reach: distances 0 .. reach-1 have a vector each, farther ones share the last; null = no relative term
        block: null = a token reads its whole past; N = blocks of N read themselves and the whole block before
        relations: further distances, `time` or `grid` (time or pitch, one table per axis) -> reach
        sinusoids: of the place: none, added, or beside the token (a linear layer brings both to the width)
        dropout: of what is read, of the blocks' two halves, never of attention weights
    """

    width: int = 256
    layers: int = 5
    heads: int = 4
    feed_forward: int = 1024
    reach: int | None = 256
    block: int | None = None
    relations: dict[str, int] = field(default_factory=dict)
    sinusoids: Sinusoids = "none"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.heads, self.feed_forward) < 1 or self.width % (2 * self.heads):
            raise ValueError(
                f"decoder: width={self.width}, layers={self.layers}, heads={self.heads}, "
                f"feed_forward={self.feed_forward}; expected at least 1 each and an even width that heads divide"
            )


DECODER = DecoderOptions()
NOWHERE = Place()


class Decoder(nn.Module):
    """Blocks of causal self attention over tokens that are already vectors.

    Args:
        options: size and kind
    """

    def __init__(self, options: DecoderOptions = DECODER):
        super().__init__()
        o = self.options = options
        self.join = nn.Linear(2 * o.width, o.width) if o.sinusoids == "beside" else None
        self.dropout = Dropout(o.dropout)
        self.blocks = nn.ModuleList(
            Block(
                o.width,
                Relative(o.width, o.heads, reach=o.reach, block=o.block, relations=o.relations),
                nn.Sequential(FeedForward(o.width, o.feed_forward, activation="relu"), Dropout(o.dropout)),
                dropout=o.dropout,
            )
            for _ in range(o.layers)
        )
        self.norm = nn.LayerNorm(o.width)

    def forward(
        self, x: Float[Tensor, "b n w"], keep: Bool[Tensor, "b n"] | None = None, place: Place = NOWHERE
    ) -> Float[Tensor, "b n w"]:
        """What each token knows of itself and its past.

        Args:
            x: tokens
            keep: which are real; None = all
            place: what the relations compare
        """
        x = self._placed(x, 0)
        tokens = Tokens.full(x, place) if keep is None else Tokens(x, keep, place)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens.x)

    def step(
        self, x: Float[Tensor, "b n w"], memory: Memory | None = None, place: Place = NOWHERE
    ) -> tuple[Float[Tensor, "b n w"], Memory]:
        """`forward`'s last rows: the new tokens after those in memory, which is changed in place.

        Args:
            x: new tokens, one or many
            memory: of the tokens before; None = these are the first
            place: of the new tokens
        """
        memory = Memory(0, [None] * len(self.blocks)) if memory is None else memory
        tokens = Tokens.full(self._placed(x, memory.length), place)
        for at, block in enumerate(self.blocks):
            tokens, memory.states[at] = block.step(tokens, memory.states[at])  # type: ignore[operator]
        memory.length += x.shape[1]
        return self.norm(tokens.x), memory

    def _placed(self, x: Tensor, start: int) -> Tensor:
        if self.options.sinusoids != "none":
            wave = sinusoids(start, x.shape[1], x.shape[2]).to(x)
            x = x + wave if self.join is None else self.join(torch.cat([x, wave.expand_as(x)], dim=-1))
        return self.dropout(x)


@dataclass
class Memory:
    """What a decoder remembers between steps.

    Attributes:
        length: tokens read
        states: of each block
    """

    length: int
    states: list[Any]


def sinusoids(start: int, n: int, width: int) -> Float[Tensor, "n w"]:
    """Sines, then cosines, of the places start .. start+n-1; waves of 2 pi to 20,000 pi (Vaswani et al., 2017)."""
    slowing = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = torch.arange(start, start + n)[:, None] * slowing
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def relations_of(options: DecoderOptions, places: Mapping[str, Tensor]) -> Place:
    """The coordinates that the decoder's relations ask for, of those that can be had.

    Raises:
        ValueError: a relation has no coordinate here
    """
    if unknown := options.relations.keys() - places.keys():
        raise ValueError(f"decoder: relations {sorted(unknown)}; expected some of {', '.join(sorted(places))}")
    return Place(**{name: places[name] for name in options.relations})
