"""Alignment distances against their definitions; the original gets no gradient; absent items do not count."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fusion.alignment import Alignment

DEFINITION = {
    "l1": lambda a, b: F.l1_loss(b, a),
    "mse": lambda a, b: F.mse_loss(b, a),
    "cosine": lambda a, b: (1 - F.cosine_similarity(a, b)).mean(),
    "kl": lambda a, b: (a.softmax(1) * (a.softmax(1).log() - b.softmax(1).log())).sum(1).mean(),
}


@pytest.mark.parametrize("distance", DEFINITION)
def test_alignment_is_its_definition_over_present_items(distance: str, rng: torch.Generator):
    a, b = (torch.randn(5, 8, generator=rng, requires_grad=True) for _ in range(2))
    present = torch.tensor([True, False, True, True, False])
    loss = Alignment(distance, weight=3.0)(a, b, present)  # type: ignore[arg-type]
    torch.testing.assert_close(loss, 3 * DEFINITION[distance](a[present], b[present]))
    loss.backward()
    assert a.grad is None
    assert (b.grad[~present] == 0).all()
    assert (b.grad[present] != 0).any()


@pytest.mark.parametrize("distance", DEFINITION)
def test_nobody_present_costs_nothing_whatever_the_values(distance: str):
    b = torch.full((2, 4), float("nan"), requires_grad=True)
    loss = Alignment(distance)(b.detach(), b, torch.zeros(2, dtype=torch.bool))  # type: ignore[arg-type]
    loss.backward()
    assert loss == 0
    assert (b.grad == 0).all()


@pytest.mark.unchecked
def test_an_unknown_distance_is_named():
    with pytest.raises(ValueError, match="distance='l3'; expected l1, mse, cosine or kl"):
        Alignment("l3")  # type: ignore[arg-type]
