"""One sweep over every operator: what it is, when it is dense attention, and the laws all of them keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import get_args

import pytest
import torch
from torch import Tensor

import fusion.operators
from fusion.attention import Ability, AttentionOp, MultiHead
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

B, N, S, W, H = 2, 7, 9, 16, 4
Score = Callable[[int, int, int, int], float | Tensor | None]


def some_tokens(rng: torch.Generator, n: int, *, padded: bool = True, width: int = W) -> Tokens:
    """Tokens with every place filled in; the second item ends in two padding tokens."""
    keep = torch.ones(B, n, dtype=torch.bool)
    if padded:
        keep[1, -2:] = False
    place = Place(
        position=torch.arange(n).expand(B, n),
        segment=(torch.arange(n) // 3).expand(B, n),
        time=torch.randint(0, 12, (B, n), generator=rng).double().cumsum(1),
        grid=torch.randint(0, 6, (B, n, 2), generator=rng).double(),
    )
    return Tokens(torch.randn(B, n, width, generator=rng, dtype=torch.float64), keep, place)


def naive(op: MultiHead, query: Tokens, source: Tokens, score: Score = lambda b, h, i, j: 0.0) -> Tensor:
    """Attention by the book, one number at a time; `score` is added to q.k / sqrt(d), None = may not read."""
    q = op.to_query(query.x).unflatten(-1, (op.heads, -1))
    k, v = op.to_source(source.x).unflatten(-1, (2, op.heads, -1)).unbind(2)
    rows = torch.zeros(*q.shape, dtype=q.dtype)
    for b in range(q.shape[0]):
        for h in range(op.heads):
            for i in range(q.shape[1]):
                terms = {
                    j: q[b, i, h] @ k[b, j, h] / q.shape[-1] ** 0.5 + extra
                    for j in range(k.shape[1])
                    if source.keep[b, j] and (extra := score(b, h, i, j)) is not None
                }
                if terms:
                    weights = torch.stack(list(terms.values())).softmax(0)
                    rows[b, i, h] = weights @ v[b, list(terms), h]
    return op.out(rows.flatten(-2))


def dense_of(op: MultiHead, query: Tokens, source: Tokens | None) -> Tensor:
    """Dense attention with the weights of another operator."""
    biased = op.to_query.bias is not None
    yardstick = Dense(op.width, op.heads, head_width=op.head_width, source_width=op.source_width, bias=biased).double()
    own = yardstick.state_dict().keys()
    yardstick.load_state_dict({name: value for name, value in op.state_dict().items() if name in own})
    return yardstick(query, source).y


def past_only(b: int, h: int, i: int, j: int) -> float | None:
    return 0.0 if j <= i else None


def define_relative(op: Relative, query: Tokens, _: Tokens | None) -> Tensor:
    q = op.to_query(query.x).unflatten(-1, (H, -1))
    coordinates = {"time": query.place.time, "grid": query.place.grid, "segment": query.place.segment}
    columns = []
    for name in op.relations:
        value = coordinates[name]
        columns += list(value.unbind(-1)) if name == "grid" else [value]

    def score(b: int, h: int, i: int, j: int) -> Tensor | float | None:
        if j > i or (op.block is not None and j // op.block < i // op.block - 1):
            return None
        total = 0.0
        if op.distance is not None:
            total = total + q[b, i, h] @ op.distance[h, min(i - j, op.reach - 1)]
        for value, table in zip(columns, op.tables, strict=True):
            limit = table.shape[1] // 2
            away = int(value[b, i] - value[b, j])
            total = total + q[b, i, h] @ table[h, max(-limit, min(limit, away)) + limit]
        return total / q.shape[-1] ** 0.5

    return naive(op, query, query, score)


def define_within(op: WithinPhrase, query: Tokens, source: Tokens | None) -> Tensor:
    source = source or query
    near = (query.place.segment[:, :, None] - source.place.segment[:, None, :]).abs() <= op.reach
    y = naive(op, query, source, lambda b, h, i, j: 0.0 if near[b, i, j] else None)
    some = (near & source.keep[:, None, :]).any(-1)
    return torch.where(some[..., None], y, 0.0)


def define_across(op: AcrossPhrases, query: Tokens, source: Tokens) -> Tensor:
    def score(b: int, h: int, i: int, j: int) -> Tensor:
        away = int(query.place.segment[b, i] - source.place.segment[b, j])
        return op.away[h, max(-op.far, min(op.far, away)) + op.far]

    return naive(op, query, source, score)


def define_phrase(op: Phrase, query: Tokens, source: Tokens | None) -> Tensor:
    source = source or query
    micro = define_within(op.micro, query, source)
    if not op.with_macro:
        return micro
    number = torch.arange(op.phrases).expand(B, -1)
    asks = Tokens.full(op.asks.expand(B, op.phrases, -1), Place(segment=number))
    pooled = define_within(op.summary, asks, source)
    there = torch.stack([(source.place.segment == p).logical_and(source.keep).any(1) for p in range(op.phrases)], 1)
    macro = define_across(op.macro, query, Tokens(pooled, there, Place(segment=number)))
    return micro + torch.sigmoid(op.gate(torch.cat([query.x, macro], -1))) * macro


def define_joint(op: JointSoftmax, query: Tokens, source: Tokens | None) -> Tensor:
    if source is None:
        return naive(op, query, query)
    q = op.to_query(query.x).unflatten(-1, (H, -1))
    projections = op.to_source, op.to_source if op.to_partner is None else op.to_partner
    both = [to(t.x).unflatten(-1, (2, H, -1)) for to, t in zip(projections, (query, source), strict=True)]
    k, v = torch.cat(both, dim=1).unbind(2)
    scores = torch.einsum("bnhd,bshd->bhns", q, k) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(~torch.cat([query.keep, source.keep], 1)[:, None, None], float("-inf"))
    return op.out(torch.einsum("bhns,bshe->bnhe", scores.softmax(-1), v).flatten(-2))


def define_nystrom(op: Nystrom, query: Tokens, source: Tokens) -> Tensor:
    """Every item alone, padding cut off, runs by position; the inverse in its textbook form."""
    rows = torch.zeros(B, query.x.shape[1], op.width, dtype=torch.float64)
    for b in range(B):
        order = source.place.position[b][source.keep[b]].argsort()
        x = source.x[b][source.keep[b]][order]
        run = torch.arange(len(x)) * op.landmarks // len(x)
        means = torch.stack([x[run == r].mean(0) for r in range(op.landmarks)])
        heads = []
        for h in range(op.heads):
            columns = slice(h * op.head_width, (h + 1) * op.head_width)

            def attention(asking: Tensor, asked: Tensor, columns: slice = columns) -> Tensor:
                q, k = op.to_query(asking)[:, columns], op.to_source(asked)[:, columns]
                return (q @ k.T / op.head_width**0.5).softmax(-1)

            a = attention(means, means)
            inverse = torch.linalg.inv(a.T @ a + op.ridge * torch.eye(op.landmarks)) @ a.T
            v = op.to_source(x)[:, op.heads * op.head_width :][:, columns]
            heads.append(attention(query.x[b], means) @ inverse @ attention(means, x) @ v)
        rows[b] = op.out(torch.cat(heads, -1))
    return rows


def define_zero_padded(op: ZeroPaddedNystrom, query: Tokens, _: Tokens | None) -> Tensor:
    """Steps (i) to (vi) of the CMTA sheet, zero tokens and all."""
    n = query.x.shape[1]
    fill = -n % op.landmarks
    x = torch.cat([query.x.new_zeros(B, fill, W), query.x], 1)
    k, v = op.to_source(x).unflatten(-1, (2, H, -1)).permute(2, 0, 3, 1, 4)
    q = op.to_query(x).unflatten(-1, (H, -1)).transpose(1, 2) * op.head_width**-0.5
    q_mean, k_mean = (t.unflatten(2, (op.landmarks, -1)).mean(3) for t in (q, k))
    first, a, last = ((s @ t.mT).softmax(-1) for s, t in ((q, k_mean), (q_mean, k_mean), (q_mean, k)))
    z = a.mT / (a.sum(-1).amax((1, 2)) * a.sum(-2).amax((1, 2)))[:, None, None, None]
    eye = torch.eye(op.landmarks, dtype=torch.float64)
    for _ in range(op.steps):
        z = z @ (13 * eye - a @ z @ (15 * eye - a @ z @ (7 * eye - a @ z))) / 4
    padded = torch.nn.functional.pad(v, (0, 0, op.kernel // 2, op.kernel // 2))
    filtered = sum(op.filter[:, t, None, None] * padded[:, :, t : t + n + fill] for t in range(op.kernel))
    return op.out((first @ z @ (last @ v) + filtered).transpose(1, 2).flatten(-2)[:, fill:])


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


def kept(y: Tensor, query: Tokens) -> Tensor:
    return y[query.keep]


def garbled(tokens: Tokens | None, value: float) -> Tokens | None:
    return None if tokens is None else tokens.with_x(tokens.x.masked_fill(~tokens.keep[..., None], value))


def test_every_operator_is_swept():
    swept = {type(case.build()) for case in CASES.values()}
    offered = {getattr(fusion.operators, name) for name in fusion.operators.__all__}
    assert {op for op in offered if isinstance(op, type) and issubclass(op, AttentionOp)} <= swept


@every
def test_what_an_operator_declares(case: Case):
    op = case.build()
    assert op.supports <= set(get_args(Ability))
    assert op.cost
    assert op.dense_when is None or op.dense_when
    assert ("decode" in op.supports) == hasattr(op, "step")
    assert ("cross" if case.cross else "self") in op.supports


@every
def test_an_ability_that_is_not_declared_is_refused(case: Case, rng: torch.Generator):
    op, query = case.make(), some_tokens(rng, N)
    if "causal" in op.supports:
        with pytest.raises(ValueError, match="takes no source"):
            op(query, some_tokens(rng, S))
    if "self" not in op.supports:
        with pytest.raises(ValueError, match="source"):
            op(query)


@every
def test_the_result_is_the_definition(case: Case, rng: torch.Generator):
    op, (query, source) = case.make(), case.tokens(rng)
    want = case.define(op, query.zeroed(), None if source is None else source.zeroed())
    torch.testing.assert_close(kept(op(query, source).y, query), kept(want, query))


@pytest.mark.parametrize(
    "case", [c for c in CASES.values() if c.dense], ids=[name for name, c in CASES.items() if c.dense]
)
def test_at_the_declared_setting_it_is_dense_attention(case: Case, rng: torch.Generator):
    assert case.dense is not None
    ours, dense = case.dense(rng)
    torch.testing.assert_close(ours, dense)


@every
@pytest.mark.parametrize("value", [1e9, float("nan"), float("inf")])
def test_what_stands_in_padding_reaches_nothing(case: Case, value: float, rng: torch.Generator):
    if not case.padded:
        assert "padding" not in case.build().supports
        return
    op, (query, source) = case.make(), case.tokens(rng)
    before = kept(op(query, source).y, query)
    after = kept(op(garbled(query, value), garbled(source, value)).y, query)
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@among(padded=True)
def test_padding_is_the_same_as_a_shorter_sequence(case: Case, rng: torch.Generator):
    op, (query, source) = case.make(), case.tokens(rng)
    second = [
        None if t is None else Tokens(t.x[1:, :-2], t.keep[1:, :-2], _item(t.place[:-2])) for t in (query, source)
    ]
    torch.testing.assert_close(op(*second).y[0], op(query, source).y[1, :-2])


def _item(place: Place) -> Place:
    return Place(place.position[1:], place.grid[1:], place.segment[1:], place.time[1:])


@among(apart=True)
def test_an_item_does_not_depend_on_its_batch_neighbours(case: Case, rng: torch.Generator):
    op, (query, source) = case.make(), case.tokens(rng)
    before = op(query, source).y[1]
    changed = [None if t is None else t.with_x(torch.cat([t.x[:1] * 3 + 1, t.x[1:]])) for t in (query, source)]
    torch.testing.assert_close(op(*changed).y[1], before, rtol=0, atol=0)


@among(padded=True)
def test_with_nothing_to_read_values_and_gradients_stay_finite(case: Case, rng: torch.Generator):
    op, (query, source) = case.make(), case.tokens(rng)
    read_from = query if source is None else source
    nothing = replace(read_from, keep=torch.zeros_like(read_from.keep), x=read_from.x.clone().requires_grad_())
    read = op(nothing) if source is None else op(query, nothing)
    read.y.sum().backward()
    assert read.y.isfinite().all()
    assert nothing.x.grad.eq(0).all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in op.parameters())


@among(any_order=True, cross=True)
def test_the_order_of_source_tokens_means_nothing(case: Case, rng: torch.Generator):
    op, (query, source) = case.make(), case.tokens(rng)
    assert source is not None
    order = torch.randperm(case.sizes[1], generator=rng)
    shuffled = Tokens(source.x[:, order], source.keep[:, order], source.place[order])
    torch.testing.assert_close(op(query, shuffled).y, op(query, source).y)


@among(any_order=True, apart=True)
def test_queries_are_read_each_for_itself(case: Case, rng: torch.Generator):
    op, (query, source) = case.make(), case.tokens(rng)
    order = torch.randperm(case.sizes[0], generator=rng)
    shuffled = Tokens(query.x[:, order], query.keep[:, order], query.place[order])
    torch.testing.assert_close(kept(op(shuffled, source).y, shuffled), kept(op(query, source).y[:, order], shuffled))


@among(apart=True)
def test_a_causal_reader_never_sees_what_comes_later(case: Case, rng: torch.Generator):
    op, (query, source) = case.make(), case.tokens(rng)
    if "causal" not in op.supports:
        changed = query.with_x(torch.cat([query.x[:, :-1], query.x[:, -1:] + 1], dim=1))
        same = torch.equal(op(changed, source).y[0, 0], op(query, source).y[0, 0])
        assert same == (case.cross and not isinstance(op, JointSoftmax))
        return
    before = op(query).y
    for t in range(1, N):
        later = query.with_x(torch.cat([query.x[:, :t], torch.randn_like(query.x[:, t:])], dim=1))
        torch.testing.assert_close(op(later).y[:, :t], before[:, :t], rtol=0, atol=0)


@every
def test_gradients_are_those_of_finite_differences(case: Case, rng: torch.Generator):
    op, (query, source) = case.make(), case.tokens(rng)
    leaves = [p for p in op.parameters() if p.requires_grad]
    inputs = [query.x.requires_grad_(), *([] if source is None else [source.x.requires_grad_()]), *leaves]

    def run(*_: Tensor) -> Tensor:
        return kept(op(query, source).y, query)

    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


@every
@pytest.mark.parametrize(("dtype", "ratio"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_narrow_numbers_stay_close_to_wide_ones(case: Case, dtype: torch.dtype, ratio: float, rng: torch.Generator):
    op, (query, source) = case.make(), case.tokens(rng)
    if dtype not in case.narrow:
        with pytest.raises(RuntimeError, match="not implemented for"):
            op.to(dtype)(query.with_x(query.x.to(dtype)))
        return
    wide = kept(op(query, source).y, query)
    narrow = op.to(dtype)(
        query.with_x(query.x.to(dtype)), None if source is None else source.with_x(source.x.to(dtype))
    )
    assert narrow.y.dtype == dtype
    assert (kept(narrow.y, query).double() - wide).norm() <= ratio * wide.norm()


FIRST = {type(case.build()): name for name, case in reversed(CASES.items())}


@pytest.mark.parametrize("case", [CASES[name] for name in FIRST.values()], ids=FIRST.values())
def test_compiled_equals_eager_with_gradients(case: Case, rng: torch.Generator):
    op, (query, source) = case.make(), case.tokens(rng)
    torch._dynamo.reset()
    compiled = torch.compile(op, backend="aot_eager" if case.graph else "eager", fullgraph=case.graph)
    found = []
    for reader in (op, compiled):
        op.zero_grad()
        y = reader(query, source).y
        y[query.keep].square().sum().backward()
        found.append([y, *(p.grad.clone() for p in op.parameters() if p.grad is not None)])
    torch.testing.assert_close(found[1], found[0])


def decoders() -> pytest.MarkDecorator:
    chosen = {name: case for name, case in CASES.items() if {"decode", "causal"} <= case.build().supports}
    return pytest.mark.parametrize("case", chosen.values(), ids=chosen.keys())


@decoders()
@pytest.mark.parametrize("pieces", [[1] * N, [4, 1, 1, 1], [2, 3, 2], [N]])
def test_decoding_step_by_step_is_the_full_forward(case: Case, pieces: list[int], rng: torch.Generator):
    op, (query, _) = case.make(), case.tokens(rng)
    whole_read, cache, start, rows = op(query), None, 0, []
    for size in pieces:
        part = slice(start, start + size)
        read, cache = op.step(Tokens(query.x[:, part], query.keep[:, part], query.place[part]), cache)
        rows.append(read.y)
        start += size
    assert cache.length == N
    torch.testing.assert_close(kept(torch.cat(rows, 1), query), kept(whole_read.y, query))


@decoders()
def test_a_cache_outgrows_its_first_storage(case: Case, rng: torch.Generator):
    op, long = case.make(), some_tokens(rng, 150)
    cache, rows = None, []
    for start in range(0, 150, 50):
        part = slice(start, start + 50)
        read, cache = op.step(Tokens(long.x[:, part], long.keep[:, part], long.place[part]), cache)
        rows.append(read.y)
    torch.testing.assert_close(kept(torch.cat(rows, 1), long), kept(op(long).y, long))
