"""Causal self attention: a token reads itself and what came before it."""

from __future__ import annotations

from typing import ClassVar

import torch

from fusion.attention import Ability, MultiHead, Read, known
from fusion.cache import Cache
from fusion.tokens import Tokens


def refuse_source(op: MultiHead, query: Tokens, source: Tokens | None) -> None:
    """A causal reader has no source: the order of two sequences is not comparable."""
    if source is not None and source is not query:
        raise ValueError(
            f"{type(op).__name__} lets tokens read their own past and takes no source; "
            "leave source out, or use Dense to read another sequence"
        )


class Causal(MultiHead):
    """Multi-head softmax attention in which token i reads tokens 0..i, with a cached step for decoding.

    Options are those of `MultiHead`. Order is the order of the tokens in the tensor.
    """

    supports: ClassVar[frozenset[Ability]] = frozenset({"self", "causal", "padding", "decode"})
    cost: ClassVar[str] = "2 b h n n d; a decode step 4 b h s d"
    dense_when: ClassVar[str | None] = "the last token of a sequence"

    def forward(self, query: Tokens, source: Tokens | None = None) -> Read:
        refuse_source(self, query, source)
        query = query.zeroed()
        k, v = self.split_source(query.x)
        read = self.attend(self.split_query(query.x), k, v, keep=known(query), causal="bottom-right")
        return Read(self.join(read.out), read.lse)

    @torch.no_grad()
    def step(self, new: Tokens, cache: Cache | None = None) -> tuple[Read, Cache]:
        """Read the past and the new tokens (one or a whole prompt); `forward`'s last rows at a fraction of its cost."""
        cache = Cache() if cache is None else cache
        new = new.zeroed()
        k, v = self.split_source(new.x)
        past = cache.extend(k=k, v=v, keep=new.keep)
        causal = "bottom-right" if new.x.shape[1] > 1 else None
        read = self.attend(self.split_query(new.x), past["k"], past["v"], keep=past["keep"], causal=causal)
        return Read(self.join(read.out), read.lse), cache
