"""Two towers: an encoder per modality, each followed by a projection into one space of unit tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from encoders.encoder import Encoder
from fusion.block import Block, FeedForward
from fusion.operators.dense import Dense
from fusion.summary import Mean
from fusion.tokens import Tokens

Which = Literal["left", "right"]


@dataclass(frozen=True)
class Encoded:
    """Items of one side in the shared space.

    Attributes:
        tokens: unit-norm tokens `[b, n, d]` and which of them are real
        global_vector: unit norm `[b, d]`, the direction of the mean over real tokens before they are normalised; of
            separate ones under `SeparateProjections`
    """

    tokens: Tokens
    global_vector: Float[Tensor, "b d"]

    def __len__(self) -> int:
        return len(self.global_vector)

    @property
    def x(self) -> Float[Tensor, "b n d"]:
        return self.tokens.x

    @property
    def keep(self) -> Bool[Tensor, "b n"]:
        return self.tokens.keep

    def __getitem__(self, rows: slice | Tensor) -> Encoded:
        """Some of the items; where tokens stand is not carried along."""
        return Encoded(Tokens(self.x[rows], self.keep[rows]), self.global_vector[rows])

    def to(self, target: torch.device | torch.dtype) -> Encoded:
        """On another device, or as another float type."""
        keep = self.keep.to(target) if isinstance(target, torch.device) else self.keep
        return Encoded(Tokens(self.x.to(target), keep), self.global_vector.to(target))

    def detach(self) -> Encoded:
        """The same values without their history."""
        return Encoded(self.tokens.with_x(self.x.detach()), self.global_vector.detach())


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Items one after another; shorter ones are padded to the longest."""
    longest = max(part.x.shape[1] for part in parts)
    pads = [(0, longest - part.x.shape[1]) for part in parts]
    x = torch.cat([F.pad(part.x, (0, 0, *pad)) for part, pad in zip(parts, pads, strict=True)])
    keep = torch.cat([F.pad(part.keep, pad) for part, pad in zip(parts, pads, strict=True)])
    return Encoded(Tokens(x, keep), torch.cat([part.global_vector for part in parts]))


class ChannelDropout(nn.Dropout):
    """Drop a feature from all tokens of an item at once; one random number per item and feature, not per token."""

    def forward(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        if not self.training or self.p == 0:
            return x
        return x * super().forward(x.new_ones(len(x), 1, x.shape[-1]))


class Standardize(nn.Module):
    """Features less their mean over training tokens, in units of their standard deviation plus a tenth of the mean one.

    A rare feature of a pretrained encoder then counts as much as a common one; one that hardly varies is not blown up.

    Args:
        width: of the tokens
    """

    mean: Float[Tensor, " w"]
    scale: Float[Tensor, " w"]

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def learn(self, batches: Iterable[Tokens]) -> None:
        """Take mean and deviation from the real tokens of training items; tokens that never vary stay as they are."""
        total, squares, n = (torch.zeros_like(self.mean, dtype=torch.float64) for _ in range(3))
        for tokens in batches:
            real = tokens.x[tokens.keep].double()
            total, squares, n = total + real.sum(dim=0), squares + real.square().sum(dim=0), n + len(real)
        mean = total / n
        spread = (squares / n - mean.square()).clamp(min=0).sqrt()
        if spread.any():
            self.mean.copy_(mean)
            self.scale.copy_(1 / (spread + spread.mean() / 10))

    def forward(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        return (x - self.mean) * self.scale


class Projection(nn.Module):
    """An encoder's tokens -> unit tokens of the shared space: linear, transformer blocks or a GELU, norm, linear.

    With `residual` that is a change, 0 at the start, which is added to the encoder's tokens: the shared space begins as
    the encoder's own, and what a pretrained encoder knows of items that are not learnt from is kept.

    Args:
        source_width: width of the encoder's tokens
        width: width of the shared space
        hidden: width of the blocks
        blocks: transformer blocks in between; 0 = a GELU, and every token by itself
        heads: attention heads of each block; must divide hidden
        dropout: probability of dropping an input feature of an item, a read or an activation while training
        residual: add the encoder's tokens; width must be theirs
        standardize: read tokens in units of their spread, see `Standardize`
    """

    def __init__(
        self,
        source_width: int,
        width: int,
        hidden: int = 256,
        blocks: int = 1,
        heads: int = 4,
        dropout: float = 0.1,
        residual: bool = False,
        standardize: bool = False,
    ):
        super().__init__()
        self.standardize = Standardize(source_width) if standardize else None
        self.into = nn.Sequential(ChannelDropout(dropout), nn.Linear(source_width, hidden))
        if not blocks:
            self.into.extend([nn.GELU(), nn.Dropout(dropout)])
        self.blocks = nn.ModuleList(
            Block(hidden, Dense(hidden, heads), FeedForward(hidden, 2 * hidden, dropout), dropout=dropout)
            for _ in range(blocks)
        )
        self.out = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, width))
        self.residual = residual
        if residual:
            for weight in self.out[1].parameters():
                nn.init.zeros_(weight)
        self.mean = Mean()

    def forward(self, tokens: Tokens) -> Encoded:
        """Items in the shared space; raises as `put` does."""
        put = self.put(tokens)
        vector = self.direction(put)
        return Encoded(_units(put), vector)

    def put(self, tokens: Tokens) -> Tokens:
        """Tokens in the shared space, before they are normalised.

        Raises:
            ValueError: an item keeps no token, so it has no place in the space
        """
        if not bool(tokens.present.all()):
            item = int(tokens.present.to(torch.uint8).argmin())
            raise ValueError(f"item {item} of the batch keeps no token and cannot be embedded; drop it")
        read = tokens if self.standardize is None else tokens.with_x(self.standardize(tokens.x))
        put = self._among_others(read) if self.blocks else self._each_alone(read)
        return put.with_x(tokens.zeroed().x + put.x) if self.residual else put

    def direction(self, put: Tokens) -> Float[Tensor, "b d"]:
        """Of the mean of an item's tokens, unit norm."""
        vector: Tensor = F.normalize(self.mean(put), dim=-1)
        return vector

    def _among_others(self, tokens: Tokens) -> Tokens:
        tokens = tokens.zeroed()
        tokens = tokens.with_x(self.into(tokens.x))
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.with_x(self.out(tokens.x))

    def _each_alone(self, tokens: Tokens) -> Tokens:
        """Real tokens only: of short and long captions in one batch more than half are padding."""
        kept = self.out(self.into[1:](self.into[0](tokens.x)[tokens.keep]))
        x = kept.new_zeros(*tokens.keep.shape, kept.shape[-1])
        return tokens.with_x(x.masked_scatter(tokens.keep[..., None], kept))


def _units(put: Tokens) -> Tokens:
    return put.with_x(F.normalize(put.x, dim=-1)).zeroed()


class SeparateProjections(nn.Module):
    """Tokens from one projection and the pooled vector from another: two losses then share no weight but an encoder's.

    Over a frozen encoder that is an ensemble of two small networks. Both read the encoder's tokens in the same units.

    Args:
        tokens: gives the tokens
        pooled: gives the global vector
    """

    def __init__(self, tokens: Projection, pooled: Projection):
        super().__init__()
        self.tokens, self.pooled = tokens, pooled
        self.pooled.standardize = self.tokens.standardize

    @property
    def standardize(self) -> Standardize | None:
        return self.tokens.standardize

    def forward(self, tokens: Tokens) -> Encoded:
        """Items in the shared space; raises as `Projection.put` does."""
        return Encoded(_units(self.tokens.put(tokens)), self.pooled.direction(self.pooled.put(tokens)))


class TwoTowers(nn.Module):
    """Two encoders of any modality with one shared space.

    The tokens of a frozen encoder may be computed once and given to `project_left` and `project_right`.

    Args:
        left: encoder of the left side
        right: encoder of the right side
        width: width of the shared space
        hidden: width of the projections' blocks
        blocks: transformer blocks of each projection
        heads: attention heads of each block; must divide hidden
        dropout: of the projections
        residual: sides whose projection adds to their encoder's tokens; the shared width must be theirs
        standardize: sides whose projection reads features in units of their spread; their encoder must be frozen
        separate_pooled: pooled vectors come from projections of their own, see `SeparateProjections`; the objective
            says whether
    """

    def __init__(
        self,
        left: Encoder,
        right: Encoder,
        width: int = 128,
        hidden: int = 256,
        blocks: int = 1,
        heads: int = 4,
        dropout: float = 0.1,
        residual: Collection[Which] = (),
        standardize: Collection[Which] = (),
        separate_pooled: bool = False,
    ):
        super().__init__()
        if width < 1:
            raise ValueError(f"TwoTowers: width={width}; expected at least 1")
        self.left, self.right, self.width = left, right, width
        for which, encoder in (("left", left), ("right", right)):
            name = type(encoder).__name__
            if which in residual and encoder.width != width:
                raise ValueError(
                    f"towers.residual: {which}, but tokens of {name} are {encoder.width} wide and towers.width={width}"
                    f"; set towers.width={encoder.width} or leave {which} out of towers.residual"
                )
            if which in standardize and not encoder.frozen:
                raise ValueError(
                    f"towers.standardize: {which}, but the features of {name} move, because it is trained; "
                    f"leave {which} out of towers.standardize"
                )

        def projection(which: Which, encoder: Encoder) -> Projection:
            options = hidden, blocks, heads, dropout
            return Projection(encoder.width, width, *options, which in residual, which in standardize)

        def projections(which: Which, encoder: Encoder) -> Projection | SeparateProjections:
            given = projection(which, encoder)
            return SeparateProjections(given, projection(which, encoder)) if separate_pooled else given

        self.left_projection = projections("left", left)
        self.right_projection = projections("right", right)

    def encode_left(self, raw: Any) -> Encoded:
        """Left items from what their encoder takes."""
        return self.project_left(self.left(raw))

    def encode_right(self, raw: Any) -> Encoded:
        """Right items from what their encoder takes."""
        return self.project_right(self.right(raw))

    def project_left(self, tokens: Tokens) -> Encoded:
        """Left items from their encoder's tokens."""
        return self.left_projection(tokens)

    def project_right(self, tokens: Tokens) -> Encoded:
        """Right items from their encoder's tokens."""
        return self.right_projection(tokens)

    def forward(self, left: Any, right: Any) -> tuple[Encoded, Encoded]:
        """Both sides of a batch of raw items."""
        return self.encode_left(left), self.encode_right(right)
