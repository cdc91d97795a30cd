"""The log-sum-exp merge: reads of disjoint key sets are one softmax, exactly, with its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusion.merge import merge, shares
from fusion.operators import JointSoftmax
from fusion.tokens import Tokens
from kernels.attention import Attended, attend

WANT = frozenset({"lse"})


def sets(rng: torch.Generator, *sizes: int) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    def draw(n: int) -> Tensor:
        return torch.randn(2, 3, n, 8, generator=rng, dtype=torch.float64).requires_grad_()

    return draw(5), [(draw(n), draw(n)) for n in sizes]


@pytest.mark.parametrize("sizes", [(7,), (1, 9), (4, 3, 6)])
def test_merged_sets_are_the_whole_with_gradients(sizes: tuple[int, ...], rng: torch.Generator):
    q, parts = sets(rng, *sizes)
    leaves = [q, *(t for part in parts for t in part)]
    merged = merge([attend(q, k, v, want=WANT) for k, v in parts])
    k, v = (torch.cat(side, dim=2) for side in zip(*parts, strict=True))
    whole = attend(q, k, v, want=WANT)
    torch.testing.assert_close(merged.out, whole.out)
    torch.testing.assert_close(merged.lse, whole.lse)
    found = [
        torch.autograd.grad(read.out.square().sum() + read.lse.square().sum(), leaves, retain_graph=True)
        for read in (merged, whole)
    ]
    torch.testing.assert_close(*found)


def test_the_order_of_sets_means_nothing(rng: torch.Generator):
    q, parts = sets(rng, 4, 6)
    reads = [attend(q, k, v, want=WANT) for k, v in parts]
    torch.testing.assert_close(merge(reads).out, merge(reads[::-1]).out)


def test_an_empty_set_adds_nothing_and_no_set_gives_zeros(rng: torch.Generator):
    q, [(k, v), (k2, v2)] = sets(rng, 4, 6)
    none = torch.zeros(2, 6, dtype=torch.bool)
    full, empty = attend(q, k, v, want=WANT), attend(q, k2, v2, keep=none, want=WANT)
    torch.testing.assert_close(merge([full, empty]).out, full.out)
    nothing = merge([empty, empty])
    assert nothing.out.eq(0).all()
    assert torch.isneginf(nothing.lse).all()
    grads = torch.autograd.grad(merge([empty, empty]).out.sum() + merge([full, empty]).out.sum(), [q, k2, v2])
    assert all(g.isfinite().all() for g in grads)


def test_shares_are_the_mass_on_each_set(rng: torch.Generator):
    lses = [torch.randn(2, 3, 5, generator=rng) * 40 for _ in range(3)]
    share, lse = shares(lses)
    torch.testing.assert_close(torch.stack(share), torch.stack(lses).softmax(0))
    torch.testing.assert_close(lse, torch.stack(lses).logsumexp(0))


def test_a_read_without_its_lse_cannot_be_merged(rng: torch.Generator):
    with pytest.raises(ValueError, match="a read has no lse; ask for it"):
        merge([Attended(torch.zeros(1, 1, 1, 1))])
    with pytest.raises(ValueError, match="no key set was given"):
        merge([])


def test_own_tokens_and_partner_compete_for_one_unit_of_attention(rng: torch.Generator):
    op = JointSoftmax(16, 4).double()
    own, other = (Tokens.full(torch.randn(2, n, 16, generator=rng, dtype=torch.float64)) for n in (3, 5))
    share = op(own, other).extras["share"]
    assert ((share > 0) & (share < 1)).all()
    twin = op(own, own).extras["share"]
    torch.testing.assert_close(twin, torch.full_like(twin, 0.5))


def test_a_source_of_another_width_needs_its_own_projections():
    with pytest.raises(ValueError, match=r"source_width=12 differs from width=16.*set shared=False"):
        JointSoftmax(16, 4, source_width=12)
