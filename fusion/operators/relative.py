"""Relative attention: scores depend on how far apart tokens are (Music Transformer, papers/music-transformer.md).

s_ij = (q_i . k_j + q_i . E[min(i - j, reach - 1)] + sum_r q_i . T_r[a_i - a_j]) / sqrt(d),   j <= i
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, pad, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from fusion.attention import Ability, MultiHead, Read
from fusion.cache import Cache
from fusion.operators.causal import refuse_source
from fusion.tokens import Place, Tokens
from fusion.weights import exact_weights
from kernels.attention import Attended
from kernels.relative_attention import relative_attend
from kernels.relative_attention.reference import wide

RELATIONS = ("position", "segment", "time", "grid")
ROWS = 128


def relation_ids(place: Place, relations: Mapping[str, int]) -> Int[Tensor, "b n r"] | None:
    """Whole-number coordinates that the relation tables compare; `grid` gives one per axis."""
    columns = []
    for name in relations:
        value = getattr(place, name)
        if value is None:
            raise ValueError(
                f"Relative: relations name {name!r} but the tokens have no place.{name}; "
                f"give Tokens(x, keep, Place({name}=...)) or leave {name!r} out of relations"
            )
        columns.append((value if value.ndim == 3 else value[..., None]).round().long())
    return torch.cat(columns, dim=-1) if columns else None


class Relative(MultiHead):
    """Causal self attention with learned vectors for distances, global or in blocks.

    Args:
        width: width of tokens and result
        heads: attention heads; each has its own tables
        reach: distances 0 .. reach-1 have a vector each, farther ones share the last; None = no relative term
        block: None = read the whole past; N = blocks of N tokens read their own past and the whole previous block
        relations: further distances by field of `Place` (position, segment, time, grid) with their reach: differences
            -reach .. reach have a vector each, larger ones are clipped. Values are rounded to whole numbers; `grid`
            gets one table per axis (a piano roll: time and pitch)
        options: the other options of `MultiHead`
    """

    supports: ClassVar[frozenset[Ability]] = frozenset({"self", "causal", "padding", "decode"})
    cost: ClassVar[str] = "3 b h n n d; in blocks 6 b h n block d; a decode step 6 b h s d"
    dense_when: ClassVar[str | None] = (
        "the last token, with reach=None (or tables of zeros) and block=None or block >= n"
    )

    def __init__(
        self,
        width: int,
        heads: int = 8,
        *,
        reach: int | None = 512,
        block: int | None = None,
        relations: Mapping[str, int] | None = None,
        **options: Any,
    ):
        super().__init__(width, heads, **options)
        for name, value in {"reach": reach, "block": block}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1, or None for no {name} at all")
        self.relations = dict(relations or {})
        unknown = self.relations.keys() - set(RELATIONS)
        if unknown:
            raise ValueError(f"Relative: unknown relations {sorted(unknown)}; expected some of {', '.join(RELATIONS)}")
        self.reach, self.block = reach, block
        spread = self.head_width**-0.5
        self.distance = None if reach is None else nn.Parameter(torch.randn(heads, reach, self.head_width) * spread)
        limits = [limit for name, limit in self.relations.items() for _ in range(2 if name == "grid" else 1)]
        self.tables = nn.ParameterList(
            nn.Parameter(torch.randn(heads, 2 * limit + 1, self.head_width) * spread) for limit in limits
        )

    def forward(self, query: Tokens, source: Tokens | None = None) -> Read:
        refuse_source(self, query, source)
        query = query.zeroed()
        k, v = self.split_source(query.x)
        ids = relation_ids(query.place, self.relations)
        read = self.attend(self.split_query(query.x), k, v, keep=query.keep, ids=ids)
        return Read(self.join(read.out), read.lse)

    @torch.no_grad()
    def step(self, new: Tokens, cache: Cache | None = None) -> tuple[Read, Cache]:
        """Read the past and the new tokens (one or a whole prompt); `forward`'s last rows at a fraction of its cost."""
        cache = Cache() if cache is None else cache
        if not new.complete:
            new, cache.complete = new.zeroed(), False
        lean = self._lean(new.x) and cache.complete
        q, k, v = self._projected(new.x, cache) if lean else (self.split_query(new.x), *self.split_source(new.x))
        ids = relation_ids(new.place, self.relations)
        past = cache.extend(k=k, v=v, keep=new.keep, **({} if ids is None else {"ids": ids}))
        if lean:
            read = self._newest(q, past["k"], past["v"], cache)
        else:
            read = self.attend(q, past["k"], past["v"], keep=past["keep"], ids=past.get("ids"))
        return Read(self.join(read.out), read.lse), cache

    def _lean(self, x: Float[Tensor, "b n w"]) -> bool:
        """Whether one token reads its past by distances alone: preparing a kernel would cost more than the products."""
        here = x.device.type == "cpu" and x.element_size() >= 4 and not torch.is_autocast_enabled("cpu")
        return here and x.shape[1] == 1 and not self.tables

    def _projected(self, x: Float[Tensor, "b 1 w"], cache: Cache) -> Sequence[Float[Tensor, "b h 1 d"]]:
        """Query, key and value in one product."""
        layers = self.to_query, self.to_source
        weight = cache.prepared("weight", lambda: torch.cat([layer.weight for layer in layers]))
        biased = self.to_query.bias is not None
        bias = cache.prepared("bias", lambda: torch.cat([layer.bias for layer in layers])) if biased else None
        return linear(x, weight, bias).view(x.shape[0], 3, self.heads, 1, self.head_width).unbind(dim=1)

    def _newest(
        self, q: Float[Tensor, "b h 1 d"], k: Float[Tensor, "b h s d"], v: Float[Tensor, "b h s d"], cache: Cache
    ) -> Attended:
        """The last token reads its past, all of it real: the definition in as few products as it takes."""
        at, scale = k.shape[2] - 1, self.head_width**-0.5
        if self.block is not None:
            low = max(0, (at // self.block - 1) * self.block)
            k, v = k[:, :, low:], v[:, :, low:]
        distance = self.distance
        if distance is None:
            return Attended(scaled_dot_product_attention(q, k, v))
        b, h, s, d = k.shape
        near = min(s, distance.shape[1])
        farthest_first = cache.prepared("distance", lambda: distance.flip(1))
        terms = torch.bmm(q[:, :, 0].transpose(0, 1), farthest_first[:, -near:].mT)
        if s > near:
            terms = pad(terms, (s - near, 0), mode="replicate")
        terms = terms.transpose(0, 1).reshape(b * h, 1, s)
        q, k, v = (each.reshape(b * h, -1, d) for each in (q, k, v))
        shares = torch.baddbmm(terms, q, k.mT, beta=scale, alpha=scale).softmax(dim=-1)
        return Attended(torch.bmm(shares, v).view(b, h, 1, d))

    def attend(
        self, q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h s d"], v: Float[Tensor, "b h s d"], **how: Any
    ) -> Attended:
        """The last `n` of `s` tokens read their past; `keep` and relation `ids` come with all `s` of them."""
        keep, ids = how["keep"], how["ids"]
        if self.tables or (self.training and self.dropout):
            return self._slabs(q, k, v, keep, ids)
        if self.distance is None and self.block is None:
            return super().attend(q, k, v, keep=keep, causal="bottom-right")
        table = q.new_zeros(1, 1, self.head_width) if self.distance is None else self.distance
        return Attended(*relative_attend(q, k, v, table, keep=keep, local=self.block))

    def row_weights(
        self, q: Tensor, k: Tensor, start: int, stop: int, *, keep: Tensor, ids: Tensor | None = None
    ) -> Tensor:
        """Exact weights of some queries."""
        n, s = q.shape[2], k.shape[2]
        at = torch.arange(start, stop, device=q.device) + s - n
        key = torch.arange(s, device=q.device)
        allowed = key <= at[:, None]
        if self.block is not None:
            allowed = allowed & (key >= ((at // self.block - 1) * self.block)[:, None])
        q = q[:, :, start:stop]
        bias = self._bias(q, at, s, ids)
        return exact_weights(q, k, 0, stop - start, keep=keep, allowed=allowed[None, None], bias=bias)

    def _slabs(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor, ids: Tensor | None) -> Attended:
        """What the relative kernel does not know (other distances, dropout): a few rows at a time with their bias.

        The bias of a slab is built again in the backward pass, so that no n x s tensor ever exists. Results go into one
        tensor from the start: parts kept between slabs that grow would leave holes in the heap that nothing fits into.
        """
        n, s = q.shape[2], k.shape[2]
        out, lse, row = q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(q.shape[:3], dtype=wide(q.dtype)), 0
        while row < n:
            at, low, stop = s - n + row, 0, min(n, row + ROWS)
            if self.block is not None:
                block = at // self.block
                low, stop = max(0, (block - 1) * self.block), min(stop, (block + 1) * self.block - (s - n))
            near = slice(low, s - n + stop)
            slab = (
                q[:, :, row:stop],
                k[:, :, near],
                v[:, :, near],
                keep[:, near],
                None if ids is None else ids[:, near],
            )
            if torch.is_grad_enabled():
                read = Attended(*checkpoint(self._slab, *slab, use_reentrant=False))
            else:
                read = self._slab(*slab)
            assert read.lse is not None
            out[:, :, row:stop], lse[:, :, row:stop] = read.out, read.lse
            row = stop
        return Attended(out, lse)

    def _slab(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor, ids: Tensor | None) -> Attended:
        n, s = q.shape[2], k.shape[2]
        bias = self._bias(q, torch.arange(s - n, s, device=q.device), s, ids)
        return super().attend(q, k, v, keep=keep, bias=bias, causal="bottom-right", want=frozenset({"lse"}))

    def _bias(
        self, q: Float[Tensor, "b h n d"], at: Int[Tensor, " n"], s: int, ids: Int[Tensor, "b s r"] | None
    ) -> Float[Tensor, "b h n s"]:
        """Relative terms of the queries that stand at `at`, scaled."""
        b, h, n, _ = q.shape
        bias = q.new_zeros(b, h, n, s)
        if self.distance is not None and self.reach is not None:
            away = (at[:, None] - torch.arange(s, device=q.device)).clamp(0, self.reach - 1)
            bias = bias + (q @ self.distance.transpose(-1, -2)).gather(-1, away.expand(b, h, n, s))
        for column, table in enumerate(self.tables):
            assert ids is not None
            limit = table.shape[1] // 2
            a = ids[..., column]
            slot = (a[:, at, None] - a[:, None, :]).clamp(-limit, limit) + limit
            bias = bias + (q @ table.transpose(-1, -2)).gather(-1, slot[:, None].expand(b, h, n, s))
        return bias * self.head_width**-0.5
