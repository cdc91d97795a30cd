"""Received mass by itself and out of attention's backward pass: values and gradients against the definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.attention import attend, chunked
from kernels.attention.problem import Problem
from kernels.dispatch import interpreting
from kernels.masks import Masks
from kernels.received_mass import received_mass, reference
from tests.kernels.attention_cases import H, N, S, biases, masks, with_tensors
from tests.kernels.laws import assert_exact_enough, error

MASKS = ("all", "keep", "lengths", "top-left", "bottom-right", "window")
PAIRS = [(form, mask) for form in biases() for mask in MASKS]
FEW = [("none", "keep"), ("dense", "lengths"), ("per key", "window"), ("distance", "bottom-right"), ("axis", "all")]


def _mass(q: Tensor, k: Tensor, weight: Tensor, bias, query_groups: Tensor, groups: int, **mask):  # type: ignore[no-untyped-def]
    """The definition: the map, weighted and summed over the queries of each group."""
    given = Masks(mask.get("keep"), mask.get("lengths"), causal=mask.get("causal"), window=mask.get("window"))
    member = torch.nn.functional.one_hot(query_groups, groups).to(weight.dtype).mT[:, None]
    return reference.received_mass(q, k, weight[:, :, None] * member, Problem(q.shape[-1] ** -0.5, given, bias))


@pytest.mark.parametrize(("form", "mask"), FEW if interpreting() else PAIRS)
def test_weighted_masses_per_query_group_and_their_gradients(form: str, mask: str, monkeypatch) -> None:
    monkeypatch.setattr(chunked, "CHUNK_SCORES", 500)
    torch.manual_seed(0)
    bias, given = biases()[form], masks()[mask]
    query_groups = torch.randint(0, 3, (2, N))
    leaves = [torch.randn(2, H, N, 8), torch.randn(2, 1, S, 8), torch.rand(2, H, N)]
    leaves += list(bias.tensors) if bias is not None else []

    def ours(q, k, weight, *tensors):
        own = with_tensors(bias, list(tensors))
        return [received_mass(q, k, weight=weight, query_groups=query_groups, groups=3, bias=own, **given)]

    def definition(q, k, weight, *tensors):
        return [_mass(q, k, weight, with_tensors(bias, list(tensors)), query_groups, 3, **given)]

    assert_exact_enough(ours, definition, leaves, torch.float32, {3} if form == "alibi" else ())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_masses_of_every_type_are_those_of_attend_and_sum_to_the_queries(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, 4, n, 24).to(dtype) for n in (17, 33, 33))
    k, v = k[:, :2], v[:, :2]
    mass = received_mass(q, k)
    assert mass.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(mass.sum(dim=-1), torch.full_like(mass[..., 0], 17.0))
    torch.testing.assert_close(mass[:, :, 0], attend(q, k, v, want=frozenset({"mass"})).mass, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(received_mass(q, k), mass, rtol=0, atol=0)
    # Another layout in memory may take another path through the matrix library: equal up to the order of its sums.
    torch.testing.assert_close(
        received_mass(q, k.contiguous()), mass, rtol=1e-12 if dtype == torch.float64 else 1e-5, atol=0
    )


@pytest.mark.parametrize("form", ["none", "dense", "per key"] if interpreting() else biases())
@pytest.mark.parametrize(
    "options", [{}, {"dropout": 0.4, "seed": 5}, {"groups": 3}], ids=["plain", "dropout", "groups"]
)
def test_the_backward_pass_hands_out_the_mass_without_changing_gradients(form: str, options: dict) -> None:
    torch.manual_seed(2)
    bias = biases(torch.float32)[form]
    given = masks()["bottom-right"] | options
    want = frozenset({"entropy"})
    if "groups" in options:
        given |= {"groups": torch.randint(-1, 3, (2, S)), "group_count": 3}
        want |= {"group_mass", "group_out"}
    q, k, v = (torch.randn(2, heads, n, 8, requires_grad=True) for heads, n in ((H, N), (1, S), (1, S)))
    probe = torch.zeros(2, H, S, requires_grad=True)

    def loss(**extra):  # type: ignore[no-untyped-def]
        torch.manual_seed(3)
        read = attend(q, k, v, bias=bias, want=want, **given, **extra)
        return sum((x * torch.randn_like(x)).sum() for x in read if x is not None)

    plain = torch.autograd.grad(loss(), (q, k, v))
    *probed, mass = torch.autograd.grad(loss(mass_probe=probe), (q, k, v, probe))
    for a, b in zip(plain, probed, strict=True):
        assert torch.equal(a, b)
    exact = attend(
        q.double(), k.double(), v.double(), bias=biases_like(bias), want=frozenset({"mass"}), **_masks(given)
    )
    assert error(mass, exact.mass) < 2e-6


def biases_like(bias):  # type: ignore[no-untyped-def]
    return None if bias is None else with_tensors(bias, [t.double() for t in bias.tensors])


def _masks(given: dict) -> dict:
    return {name: value for name, value in given.items() if name in ("causal", "lengths")}


BAD = {
    "heads": (lambda q, k: received_mass(q, k[:, :1].expand(-1, 3, -1, -1)), "k has 3 heads, which must divide the 2"),
    "groups": (lambda q, k: received_mass(q, k, groups=2), r"groups=2 needs query_groups"),
    "weight": (lambda q, k: received_mass(q, k, weight=torch.ones(1, 2, 3)), r"weight has shape \[1, 2, 3\]"),
    "causal": (lambda q, k: received_mass(q, k, causal="left"), "causal='left' is unknown"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_is_named(case: str) -> None:
    call, text = BAD[case]
    with pytest.raises(ValueError, match=text):
        call(torch.zeros(1, 2, 4, 8), torch.zeros(1, 2, 6, 8))
