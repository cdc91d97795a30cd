"""One sweep over every operator: what it is, when it is dense attention, and the laws all of them keep."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

import fusion.operators
from fusion.attention import Ability, AttentionOp
from fusion.operators import (
    JointSoftmax,
)
from fusion.tokens import Place, Tokens
from tests.fusion.operator_cases import CASES, Case, among, every
from tests.fusion.operator_definitions import N, S, some_tokens


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
