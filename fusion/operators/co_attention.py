"""Co-attention: a short stream and a long one read each other, and the long one is never projected.

With few tokens on one side, the projections of the other side can be moved over: `(x Wq)(y Wk)' = x (y Wk Wq')'`.
For 6 gene groups and 8,000 patches of width 256 that is 40 times less work than projecting the patches, at the same
result to rounding (MCAT: Chen 2021, ICCV; CMTA: arXiv 2309.12855, section 3.2, in both directions).
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from fusion.attention import Ability, MultiHead, Read, known
from fusion.tokens import Tokens


class CoAttention(MultiHead):
    """Dense softmax attention that moves projections to the shorter side where that is less work.

    Options are those of `MultiHead`; one head of full width is what MCAT and CMTA use.
    """

    supports: ClassVar[frozenset[Ability]] = frozenset({"self", "cross", "padding"})
    cost: ClassVar[str] = "4 b h n s w when h n or h s is small beside w, else that of Dense"
    dense_when: ClassVar[str | None] = "always"

    def forward(self, query: Tokens, source: Tokens | None = None) -> Read:
        source = (query if source is None else source).zeroed()
        x = query.zeroed().x
        inner = self.heads * self.head_width
        if 2 * self.heads * x.shape[1] <= inner and x.shape[1] < source.x.shape[1]:
            return self._few_queries(x, source)
        if 2 * self.heads * source.x.shape[1] <= inner and isinstance(self.out, nn.Linear):
            return self._few_sources(x, source)
        k, v = self.split_source(source.x)
        read = self.attend(self.split_query(x), k, v, keep=known(source))
        return Read(self.join(read.out), read.lse)

    def _few_queries(self, x: Float[Tensor, "b n w"], source: Tokens) -> Read:
        """Queries carry the key projection to the source; the value projection follows the average.

        The heads' queries stand in one row of queries, for all of them read the same unprojected source. A key bias
        adds the same to every score of a query, so the softmax does not see it.
        """
        to_key, to_value = rearrange(self.to_source.weight, "(two h d) w -> two h d w", two=2, h=self.heads)
        carried = torch.einsum("bhnd,hdw->bhnw", self.split_query(x), to_key)
        carried = rearrange(carried, "b h n w -> b 1 (h n) w")
        plain = source.x[:, None]
        read = self.attend(carried, plain, plain, keep=known(source), scale=self.head_width**-0.5)
        average = rearrange(read.out, "b 1 (h n) w -> b h n w", h=self.heads)
        y = torch.einsum("bhnw,hdw->bhnd", average, to_value)
        if self.to_source.bias is not None:
            bias = rearrange(self.to_source.bias, "(two h d) -> two h 1 d", two=2, h=self.heads)[1]
            y = y + bias * source.present[:, None, None, None]
        return Read(self.join(y), None)

    def _few_sources(self, x: Float[Tensor, "b n w"], source: Tokens) -> Read:
        """Keys carry the query projection, values the output projection; a 1 beside the query carries its bias."""
        k, v = self.split_source(source.x)
        to_query = rearrange(self.to_query.weight, "(h d) w -> h d w", h=self.heads)
        keys = torch.einsum("bhsd,hdw->bhsw", k, to_query)
        values = torch.einsum("bhsd,whd->bhsw", v, rearrange(self.out.weight, "w (h d) -> w h d", h=self.heads))
        if self.to_query.bias is not None:
            bias = rearrange(self.to_query.bias, "(h d) -> h d", h=self.heads)
            keys = torch.cat([keys, torch.einsum("bhsd,hd->bhs", k, bias)[..., None]], dim=-1)
            x = F.pad(x, (0, 1), value=1.0)
        queries = x[:, None].expand(-1, self.heads, -1, -1)
        read = self.attend(queries, keys, values, keep=known(source), scale=self.head_width**-0.5)
        return Read(read.out.sum(dim=1) + cast(Tensor, self.out.bias), read.lse)
