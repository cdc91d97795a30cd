"""Joint softmax over two key sets: tokens weigh themselves against a partner in one softmax (PWCA, CVPR 2022)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fusion.attention import Ability, MultiHead, Read
from fusion.merge import merge, shares
from fusion.tokens import Tokens
from fusion.weights import exact_weights
from kernels.attention import Attended


class JointSoftmax(MultiHead):
    """Each query reads its own sequence and the source in ONE softmax: the two compete for the same unit of attention.

    `softmax([q k_own', q k_source'] / sqrt(d)) [v_own; v_source]`, merged exactly from two reads by their log-sum-exp,
    so the two key sets are never copied side by side. Without a source it is plain self attention (pair-wise cross
    attention at inference). `extras["share"]` is the mass that fell on the source, `[b, h, n]`.

    Args:
        width: width of the query tokens and of the result
        heads: attention heads
        shared: whether the source goes through the same key and value projections as the query's own tokens
        source_width: width of the source tokens; default `width`, and must be `width` when shared
        options: the other options of `MultiHead`
    """

    supports: ClassVar[frozenset[Ability]] = frozenset({"self", "cross", "padding"})
    cost: ClassVar[str] = "4 b h n (n + s) d"
    dense_when: ClassVar[str | None] = "no source is given, or every source token is padding"

    def __init__(
        self, width: int, heads: int = 8, *, shared: bool = True, source_width: int | None = None, **options: Any
    ):
        super().__init__(width, heads, **options)
        other = source_width or width
        if shared and other != width:
            raise ValueError(
                f"JointSoftmax: source_width={other} differs from width={width}, so the projections cannot be shared; "
                "set shared=False"
            )
        inner = self.heads * self.head_width
        self.to_partner = None if shared else nn.Linear(other, 2 * inner, bias=self.to_source.bias is not None)

    def split_partner(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the source, per head."""
        if self.to_partner is None:
            return self.split_source(x)
        both = self.to_partner(x).unflatten(-1, (2, self.heads, self.head_width))
        k, v = both.permute(2, 0, 3, 1, 4)
        return k, v

    def attend(self, q: Tensor, k: Any, v: Any, **how: Any) -> Attended:
        """One read per key set, merged; `k`, `v`, `keep` hold one tensor per set; `group_mass` `[b, h, n, sets]`."""
        parts = [
            super(JointSoftmax, self).attend(q, keys, values, keep=keep, want=frozenset({"lse"}))
            for keys, values, keep in zip(k, v, how["keep"], strict=True)
        ]
        joined = merge(parts)
        share, _ = shares([part.lse for part in parts if part.lse is not None])
        return joined._replace(group_mass=torch.stack(share, dim=-1))

    def row_weights(self, q: Tensor, k: Any, start: int, stop: int, *, keep: Any) -> Tensor:
        """Exact weights of some queries over the query's own tokens, then the source's."""
        return exact_weights(q, torch.cat(k, dim=2), start, stop, keep=torch.cat(keep, dim=1))

    def forward(self, query: Tokens, source: Tokens | None = None) -> Read:
        query = query.zeroed()
        sets = [(*self.split_source(query.x), query.keep)]
        if source is not None:
            source = source.zeroed()
            sets.append((*self.split_partner(source.x), source.keep))
        k, v, keep = zip(*sets, strict=True)
        read = self.attend(self.split_query(query.x), k, v, keep=keep)
        extras = {} if source is None or read.group_mass is None else {"share": read.group_mass[..., 1]}
        return Read(self.join(read.out), read.lse, extras)
