"""The settings at which operators are swept, and what each of them can be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from fusion.attention import AttentionOp, MultiHead
from fusion.operators import (
    AcrossPhrases,
    Causal,
    CoAttention,
    Conditional,
    Dense,
    JointSoftmax,
    Nystrom,
    Phrase,
    Relative,
    WithinPhrase,
    ZeroPaddedNystrom,
)
from fusion.tokens import Place, Tokens
from tests.fusion.operator_definitions import (
    H,
    N,
    S,
    W,
    define_across,
    define_joint,
    define_nystrom,
    define_phrase,
    define_relative,
    define_within,
    define_zero_padded,
    dense_of,
    naive,
    past_only,
    some_tokens,
)


@dataclass(frozen=True)
class Case:
    """An operator at one setting.

    Attributes:
        build: makes the operator
        define: its result by the definition
        cross: whether it is given a source
        source_width: width of that source
        any_order: whether the order of source tokens is meaningless (their places move with them)
        dense: the setting at which it is dense attention -> its result and dense attention's
        sizes: query and source tokens
        padded: whether it takes padding, as every operator without a paper's oddities does
        apart: whether queries, and items of a batch, are read each for itself
        graph: whether it compiles to one graph (no decision depends on the data)
        narrow: dtypes narrower than float64 that it runs in
    """

    build: Callable[[], AttentionOp]
    define: Callable[..., Tensor]
    cross: bool = True
    source_width: int = W
    any_order: bool = True
    dense: Callable[[torch.Generator], tuple[Tensor, Tensor]] | None = None
    sizes: tuple[int, int] = (N, S)
    padded: bool = True
    apart: bool = True
    graph: bool = True
    narrow: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)

    def make(self) -> AttentionOp:
        torch.manual_seed(3)
        op = self.build().double()
        with torch.no_grad():
            for p in op.parameters():
                if p.abs().max() == 0:
                    p.normal_()
        return op

    def tokens(self, rng: torch.Generator) -> tuple[Tokens, Tokens | None]:
        n, s = self.sizes
        query = some_tokens(rng, n, padded=self.padded)
        return query, some_tokens(rng, s, padded=self.padded, width=self.source_width) if self.cross else None


def last_token(op: MultiHead) -> Callable[[torch.Generator], tuple[Tensor, Tensor]]:
    def compare(rng: torch.Generator) -> tuple[Tensor, Tensor]:
        query = some_tokens(rng, N, padded=False)
        return op.double()(query).y[:, -1], dense_of(op, query, None)[:, -1]

    return compare


def whole(op: AttentionOp, reader: MultiHead | None = None) -> Callable[[torch.Generator], tuple[Tensor, Tensor]]:
    def compare(rng: torch.Generator) -> tuple[Tensor, Tensor]:
        query, source = some_tokens(rng, N), some_tokens(rng, S)
        one = [replace(t, place=Place(segment=torch.zeros_like(t.place.segment))) for t in (query, source)]
        return op.double()(*one).y, dense_of(reader or op, *one)

    return compare


def no_partner(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    op, query, source = JointSoftmax(W, H).double(), some_tokens(rng, N), some_tokens(rng, S)
    absent = op(query, replace(source, keep=torch.zeros_like(source.keep))).y
    plain = dense_of(op, query, None)
    torch.testing.assert_close(op(query).y, plain)
    return absent, plain


micro_only = Phrase(W, H, macro=False)
CASES: dict[str, Case] = {
    "Dense self": Case(lambda: Dense(W, H), lambda op, q, s: naive(op, q, q), cross=False),
    "Dense cross": Case(lambda: Dense(W, H, source_width=12), naive, source_width=12),
    "Causal": Case(
        lambda: Causal(W, H),
        lambda op, q, s: naive(op, q, q, past_only),
        cross=False,
        any_order=False,
        dense=last_token(Causal(W, H)),
    ),
    "Relative": Case(
        lambda: Relative(W, H, reach=4),
        define_relative,
        cross=False,
        any_order=False,
        dense=last_token(Relative(W, H, reach=None)),
    ),
    "Relative without a relative term": Case(
        lambda: Relative(W, H, reach=None), define_relative, cross=False, any_order=False
    ),
    "Relative local": Case(
        lambda: Relative(W, H, reach=3, block=2),
        define_relative,
        cross=False,
        any_order=False,
        dense=last_token(Relative(W, H, reach=None, block=N)),
    ),
    "Relative time and pitch": Case(
        lambda: Relative(W, H, reach=5, block=3, relations={"time": 8, "grid": 3}),
        define_relative,
        cross=False,
        any_order=False,
    ),
    "WithinPhrase": Case(lambda: WithinPhrase(W, H), define_within, dense=whole(WithinPhrase(W, H))),
    "WithinPhrase with neighbours": Case(
        lambda: WithinPhrase(W, H, reach=1), define_within, dense=whole(WithinPhrase(W, H, reach=1))
    ),
    "AcrossPhrases": Case(lambda: AcrossPhrases(W, H, far=1), define_across, dense=whole(AcrossPhrases(W, H))),
    "Phrase": Case(
        lambda: Phrase(W, H, phrases=4, source_width=12, far=2),
        define_phrase,
        source_width=12,
        dense=whole(micro_only, micro_only.micro),
    ),
    "Phrase self": Case(lambda: Phrase(W, H, phrases=4, reach=1), define_phrase, cross=False),
    "Conditional": Case(lambda: Conditional(3, W, H), naive, dense=whole(Conditional(3, W, H))),
    "JointSoftmax": Case(lambda: JointSoftmax(W, H), define_joint, dense=no_partner),
    "JointSoftmax own projections": Case(
        lambda: JointSoftmax(W, H, shared=False, source_width=12), define_joint, source_width=12
    ),
    "CoAttention of few queries": Case(lambda: CoAttention(W, 1, bias=True), naive, dense=whole(CoAttention(W, 1))),
    "CoAttention of few sources": Case(lambda: CoAttention(W, 1, bias=True), naive, sizes=(9, 8)),
    "CoAttention of many": Case(lambda: CoAttention(W, H), naive),
    "Nystrom while exact": Case(
        lambda: Nystrom(W, H), naive, dense=whole(Nystrom(W, H, landmarks=2, dense_up_to=8)), graph=False
    ),
    "Nystrom": Case(
        lambda: Nystrom(W, H, landmarks=3, dense_up_to=3),
        define_nystrom,
        graph=False,
        narrow=(torch.float32,),
    ),
    "ZeroPaddedNystrom": Case(
        lambda: ZeroPaddedNystrom(W, H, landmarks=3, kernel=3, steps=2),
        define_zero_padded,
        cross=False,
        any_order=False,
        padded=False,
        apart=False,
        graph=False,
    ),
}
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def among(**wanted: bool) -> pytest.MarkDecorator:
    """Only the cases with these settings."""
    chosen = {n: c for n, c in CASES.items() if all(getattr(c, key) == value for key, value in wanted.items())}
    return pytest.mark.parametrize("case", chosen.values(), ids=chosen.keys())
