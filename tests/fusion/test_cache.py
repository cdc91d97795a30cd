"""The decoder's memory: what was put in comes out, in order, whatever the pieces."""

from __future__ import annotations

import pytest
import torch

from fusion.cache import Cache


def piece(rng: torch.Generator, n: int, batch: int = 2) -> dict[str, torch.Tensor]:
    return {
        "k": torch.randn(batch, 3, n, 4, generator=rng),
        "keep": torch.rand(batch, n, generator=rng) > 0.5,
        "ids": torch.randint(0, 9, (batch, n, 2), generator=rng),
    }


@pytest.mark.parametrize("sizes", [[1] * 70, [100, 1, 100], [3, 0, 61, 1]])
def test_what_comes_out_is_what_went_in(sizes: list[int], rng: torch.Generator):
    cache, pieces = Cache(), [piece(rng, n) for n in sizes]
    for part in pieces:
        held = cache.extend(**part)
    assert cache.length == sum(sizes)
    for name, axis in (("k", 2), ("keep", 1), ("ids", 1)):
        assert torch.equal(held[name], torch.cat([part[name] for part in pieces], dim=axis))


def test_rows_can_be_repeated_for_a_beam(rng: torch.Generator):
    cache, first = Cache(), piece(rng, 5)
    cache.extend(**first)
    cache.reorder(torch.tensor([1, 1, 0]))
    held = cache.extend(**piece(rng, 1, batch=3))
    assert torch.equal(held["k"][:, :, :5], first["k"][[1, 1, 0]])


def test_a_form_of_the_weights_is_made_once():
    cache, weight = Cache(), torch.ones(3, requires_grad=True)
    made = cache.prepared("twice", lambda: weight * 2)
    assert cache.prepared("twice", lambda: weight * 3) is made
    assert not made.requires_grad


def test_stored_tensors_carry_no_gradient(rng: torch.Generator):
    part = piece(rng, 2)
    part["k"].requires_grad_()
    assert not Cache().extend(**part)["k"].requires_grad


def test_what_does_not_fit_is_named(rng: torch.Generator):
    cache = Cache()
    cache.extend(**piece(rng, 2))
    with pytest.raises(ValueError, match=r"Cache holds \['ids', 'k', 'keep'\] but was given \['k'\]"):
        cache.extend(k=torch.zeros(2, 3, 1, 4))
    with pytest.raises(ValueError, match="Cache holds a batch of 2 but k has 3; start a new cache"):
        cache.extend(**piece(rng, 1, batch=3))
    with pytest.raises(ValueError, match=r"tensors of one step hold \[1, 2\] tokens"):
        cache.extend(**(piece(rng, 1) | {"keep": torch.ones(2, 2, dtype=torch.bool)}))
