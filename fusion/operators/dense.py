"""Dense softmax attention: every query reads every kept source token."""

from __future__ import annotations

from typing import ClassVar

from fusion.attention import Ability, MultiHead, Read, known
from fusion.tokens import Tokens


class Dense(MultiHead):
    """Multi-head softmax attention, `out(softmax(q k' / sqrt(d)) v)`; the yardstick of every other operator.

    Options are those of `MultiHead`. A query with nothing to read gets zeros before the last projection.
    """

    supports: ClassVar[frozenset[Ability]] = frozenset({"self", "cross", "padding"})
    cost: ClassVar[str] = "4 b h n s d"
    dense_when: ClassVar[str | None] = "always"

    def forward(self, query: Tokens, source: Tokens | None = None) -> Read:
        source = (query if source is None else source).zeroed()
        k, v = self.split_source(source.x)
        read = self.attend(self.split_query(query.zeroed().x), k, v, keep=known(source))
        return Read(self.join(read.out), read.lse)
