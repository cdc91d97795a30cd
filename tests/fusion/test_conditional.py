"""Conditional cross attention: one pass of the backbone, every condition's embedding."""

from __future__ import annotations

import pytest
import torch

from fusion.operators import Conditional
from fusion.tokens import Tokens

B, S, W, H, K = 3, 7, 16, 4, 5


@pytest.fixture
def op() -> Conditional:
    torch.manual_seed(1)
    return Conditional(K, W, H).double()


def items(rng: torch.Generator) -> Tokens:
    keep = torch.ones(B, S, dtype=torch.bool)
    keep[0, 4:] = False
    return Tokens(torch.randn(B, S, W, generator=rng, dtype=torch.float64), keep)


def test_every_condition_at_once_is_each_condition_alone(op: Conditional, rng: torch.Generator):
    source = items(rng)
    together = op.every(source).y
    for condition in range(K):
        alone = op(op.ask(torch.full((B, 1), condition)), source).y[:, 0]
        torch.testing.assert_close(together[:, condition], alone)


def test_a_gate_weighs_channels_and_is_open_for_a_condition_of_zeros(rng: torch.Generator):
    torch.manual_seed(1)
    gated, source = Conditional(K, W, H, gated=True, head_width=8).double(), items(rng)
    plain = Conditional(K, W, H, head_width=8).double()
    plain.load_state_dict({name: value for name, value in gated.state_dict().items() if "gate" not in name})
    assert not torch.allclose(gated.every(source).y, plain.every(source).y)
    alone = gated(gated.ask(torch.tensor([[3]] * B)), source).y[:, 0]
    torch.testing.assert_close(gated.every(source).y[:, 3], alone)
    with torch.no_grad():
        for op in (gated, plain):
            op.table.zero_()
    torch.testing.assert_close(gated.every(source).y, plain.every(source).y)


def test_one_condition_is_an_unconditional_pool_with_a_learned_query(rng: torch.Generator):
    op, source = Conditional(1, W, H).double(), items(rng)
    assert torch.equal(op.every(source).y, op(op.ask(torch.zeros(B, 1, dtype=torch.long)), source).y)


def test_a_silent_query_projection_makes_all_conditions_the_mean(op: Conditional, rng: torch.Generator):
    source = items(rng)
    with torch.no_grad():
        op.to_query.weight.zero_()
    values = op.to_source(source.x)[..., W:]
    mean = torch.stack([values[b][source.keep[b]].mean(0) for b in range(B)])
    torch.testing.assert_close(op.every(source).y, op.out(mean)[:, None].expand(-1, K, -1))


def test_a_condition_leaves_the_other_rows_without_gradient(op: Conditional, rng: torch.Generator):
    op(op.ask(torch.tensor([[2], [2], [4]])), items(rng)).y.square().sum().backward()
    touched = op.table.grad.abs().sum(1) > 0
    assert touched.tolist() == [False, False, True, False, True]


def test_renaming_the_conditions_changes_nothing(op: Conditional, rng: torch.Generator):
    source, ids = items(rng), torch.tensor([[0, 3], [1, 1], [4, 2]])
    before = op(op.ask(ids), source).y
    order = torch.randperm(K, generator=rng)
    with torch.no_grad():
        op.table.copy_(op.table[order])
    torch.testing.assert_close(op(op.ask(order.argsort()[ids]), source).y, before)


@pytest.mark.parametrize("wrong", [-1, K])
def test_an_unknown_condition_is_refused(op: Conditional, wrong: int):
    with pytest.raises(ValueError, match=rf"condition {wrong} is unknown; expected 0\.\.4"):
        op.ask(torch.tensor([[0], [wrong]]))


def test_no_conditions_at_all_are_refused():
    with pytest.raises(ValueError, match="conditions=0 must be at least 1"):
        Conditional(0, W, H)
