"""Conditional cross attention: a condition asks, the item's tokens answer (papers/conditional-cross-attention.md)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from fusion.attention import Ability, MultiHead, Read, known
from fusion.tokens import Tokens

SPREAD = 4.0
"""Standard deviation of a gate before the sigmoid, at the start."""


class ChannelGate(nn.Linear):
    """What a condition lets through of every channel: 0 to 2, and 1 for a condition of zeros.

    For condition tokens of unit variance most weights start near 0 or 2, so that conditions start in channels of their
    own: what one of them learns disturbs the others less.

    Args:
        width: of condition tokens
        channels: how many are weighed
    """

    def __init__(self, width: int, channels: int):
        super().__init__(width, channels, bias=False)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=SPREAD * self.in_features**-0.5)

    def forward(self, condition: Float[Tensor, "*items w"]) -> Float[Tensor, "*items c"]:
        return 2 * super().forward(condition).sigmoid()


class Conditional(MultiHead):
    """One learned token per condition reads the item: switching the condition switches the embedding space.

    The item's tokens come from one pass of the backbone; `every` reads them under all conditions at once.

    Args:
        conditions: how many conditions there are, numbered 0 .. conditions-1
        width: width of condition tokens and of the result
        heads: attention heads
        gated: the condition also weighs every channel of what the heads read, see `ChannelGate`. Where to look is one
            choice per head; the gate lets conditions keep channels of their own
        options: the other options of `MultiHead`
    """

    supports: ClassVar[frozenset[Ability]] = frozenset({"cross", "padding"})
    cost: ClassVar[str] = "4 b h n s d with n conditions"
    dense_when: ClassVar[str | None] = "always"

    def __init__(self, conditions: int, width: int, heads: int = 8, gated: bool = False, **options: Any):
        super().__init__(width, heads, **options)
        if conditions < 1:
            raise ValueError(f"conditions={conditions} must be at least 1")
        self.conditions = conditions
        self.table = nn.Parameter(torch.randn(conditions, width) * (1.0 if gated else width**-0.5))
        self.gate = ChannelGate(width, self.heads * self.head_width) if gated else None

    def ask(self, condition: Int[Tensor, "b n"]) -> Tokens:
        """The tokens of some conditions per item, as queries for `forward`."""
        if not torch.compiler.is_compiling() and condition.numel():
            low, high = int(condition.min()), int(condition.max())
            if low < 0 or high >= self.conditions:
                raise ValueError(
                    f"Conditional: condition {low if low < 0 else high} is unknown; expected 0..{self.conditions - 1}"
                )
        return Tokens.full(self.table[condition])

    def every(self, source: Tokens) -> Read:
        """The item under every condition, `[b, conditions, w]`."""
        return self.forward(Tokens.full(self.table.expand(source.x.shape[0], -1, -1)), source)

    def forward(self, query: Tokens, source: Tokens | None = None) -> Read:
        if source is None:
            raise ValueError("Conditional: conditions read an item; give the item's tokens as source")
        source = source.zeroed()
        k, v = self.split_source(source.x)
        asking = query.zeroed().x
        read = self.attend(self.split_query(asking), k, v, keep=known(source))
        if self.gate is None:
            return Read(self.join(read.out), read.lse)
        weight = rearrange(self.gate(asking), "b n (h e) -> b h n e", h=self.heads)
        return Read(self.join(read.out * weight), read.lse)
