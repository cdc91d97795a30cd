"""The attention interface: an `AttentionOp` says what it can do and when it is plain softmax attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from jaxtyping import Bool, Float
from torch import Tensor, nn

from fusion.tokens import Tokens
from kernels.attention import Attended, attend

Ability = Literal["self", "cross", "causal", "padding", "decode"]


@dataclass(frozen=True)
class Read:
    """What a reader took from a source.

    Attributes:
        y: one row per query token, `[b, n, w]`
        lse: log-sum-exp of the scores per head and query, `[b, h, n]`, when the mechanism has one
        extras: what an observer asked for, by name (`mass`, `entropy`, `peak`, `group_mass`, ...)
        losses: auxiliary training losses, by name
    """

    y: Float[Tensor, "b n w"]
    lse: Float[Tensor, "b h n"] | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)


class AttentionOp(nn.Module, ABC):
    """One way for tokens to read tokens.

    Subclasses declare:
        supports: the abilities the mechanism has
        cost: floating-point operations in words and symbols of `fusion.shapes`
        dense_when: the setting at which it equals dense softmax attention exactly (None = never)

    Attributes:
        site: where in a model this reader stands ("genes <- slide/0"), for observers; set by whoever builds the model
    """

    site: str = ""
    supports: ClassVar[frozenset[Ability]]
    cost: ClassVar[str]
    dense_when: ClassVar[str | None]

    @abstractmethod
    def forward(self, query: Tokens, source: Tokens | None = None) -> Read:
        """Let `query` read `source` (or itself, when `source` is None)."""


def known(source: Tokens) -> Bool[Tensor, "b s"] | None:
    """The mask a kernel needs: None when every token is real, which is the fast way through."""
    return None if source.complete else source.keep


class MultiHead(AttentionOp):
    """The projections and heads that operators share: subclasses decide who reads whom in `forward`.

    Args:
        width: width of the query tokens and of the result
        heads: attention heads
        source_width: width of the source tokens; default `width`
        head_width: width of one head; default width / heads
        bias: whether the query, key and value projections have a bias
        dropout: probability of dropping an attention weight while training
        project: False leaves out the last projection (the result is then heads * head_width wide)
    """

    def __init__(
        self,
        width: int,
        heads: int = 8,
        *,
        source_width: int | None = None,
        head_width: int | None = None,
        bias: bool = False,
        dropout: float = 0.0,
        project: bool = True,
    ):
        super().__init__()
        if head_width is None and width % heads:
            raise ValueError(f"heads={heads} must divide width={width}; or give head_width")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} must be at least 0 and below 1")
        self.width, self.heads, self.dropout = width, heads, dropout
        self.head_width = head_width or width // heads
        self.source_width = source_width or width
        inner = heads * self.head_width
        self.to_query = nn.Linear(width, inner, bias=bias)
        self.to_source = nn.Linear(self.source_width, 2 * inner, bias=bias)
        self.out = nn.Linear(inner, width) if project else nn.Identity()

    def split_query(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b h n d"]:
        """Queries of each head."""
        return self._by_head(self.to_query(x))

    def split_source(self, x: Float[Tensor, "b s w2"]) -> tuple[Float[Tensor, "b h s d"], Float[Tensor, "b h s d"]]:
        """Keys and values of each head."""
        keys, values = self.to_source(x).chunk(2, dim=-1)
        return self._by_head(keys), self._by_head(values)

    def _by_head(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b h n d"]:
        # Views, not einops: a decoded token passes here so often that rearrange would take a tenth of its time.
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **how: Any) -> Attended:
        """The one place where an operator calls the kernel; `how` goes to `kernels.attention.attend`."""
        return attend(q, k, v, dropout=self.dropout if self.training else 0.0, **how)

    def join(self, heads: Float[Tensor, "b h n e"]) -> Float[Tensor, "b n w"]:
        """Heads side by side, projected to the model width."""
        return self.out(heads.transpose(1, 2).flatten(2))
