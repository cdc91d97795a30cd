"""K3: few queries over many keys."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.dispatch import explain
from kernels.split_keys import attend_bags, split_attend
from kernels.split_keys.op import _op
from kernels.split_keys.reference import split_keys_reference
from tests.kernels.laws import assert_exact_enough

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _leaves(b: int, h: int, j: int, n: int, t: int, d: int, e: int, rng: torch.Generator) -> list[Tensor]:
    shapes = (b, h, n, d), (t, j, d), (t, j, e)
    return [torch.randn(shape, generator=rng, dtype=torch.float64) for shape in shapes]


def _bags_by_definition(offsets: Tensor):  # type: ignore[no-untyped-def]
    def definition(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        k, v = k.transpose(0, 1)[None], v.transpose(0, 1)[None]
        found = split_keys_reference(q, k, v, offsets[:-1], offsets.diff(), q.shape[-1] ** -0.5)
        assert found.weights is not None
        return [found.out, found.lse, found.weights[0]]

    return definition


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize(("h", "j", "n", "d", "e"), [(4, 2, 3, 24, 40), (1, 1, 1, 8, 8), (3, 3, 17, 80, 16)])
def test_definition_of_bags(h: int, j: int, n: int, d: int, e: int, dtype: torch.dtype, rng: torch.Generator) -> None:
    offsets = torch.tensor([0, 65, 65, 80, 81])
    assert_exact_enough(
        lambda q, k, v: attend_bags(q, k, v, offsets, splits=2, want={"weights"}),
        _bags_by_definition(offsets),
        _leaves(4, h, j, n, 81, d, e, rng),
        dtype,
    )


@pytest.mark.parametrize("s", [1, 15, 16, 17, 63, 64, 65, 127, 333])
def test_definition_at_any_number_of_keys(s: int, rng: torch.Generator) -> None:
    q, k, v = _leaves(2, 2, 1, 2, 2 * s, 16, 32, rng)
    k, v = (x.view(2, s, 1, -1).transpose(1, 2) for x in (k, v))
    lengths = torch.tensor([s, s // 2])

    def definition(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        return list(split_keys_reference(q, k, v, torch.zeros(2, dtype=torch.long), lengths, 0.3)[:2])

    assert_exact_enough(
        lambda q, k, v: split_attend(q, k, v, scale=0.3, lengths=lengths)[:2], definition, [q, k, v], torch.float32
    )


@pytest.mark.parametrize("d", [32, 40, 64, 96, 128, 192, 256])
def test_definition_at_any_width(d: int, rng: torch.Generator) -> None:
    offsets = torch.tensor([0, 20, 50])
    assert_exact_enough(
        lambda q, k, v: attend_bags(q, k, v, offsets, want={"weights"}),
        _bags_by_definition(offsets),
        _leaves(2, 1, 1, 6, 50, d, d, rng),
        torch.float32,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_number_of_splits_agrees(dtype: torch.dtype, rng: torch.Generator) -> None:
    q, k, v = (x.to(dtype) for x in _leaves(3, 2, 1, 4, 200, 16, 16, rng))
    offsets = torch.tensor([0, 150, 151, 200])
    one, two, seven = (attend_bags(q, k, v, offsets, splits=s, want={"weights"}) for s in (1, 2, 7))
    for other in (two, seven):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b)


def test_bags_equal_a_loop_over_bags_and_padding_is_not_read(rng: torch.Generator) -> None:
    q, k, v = (x.float() for x in _leaves(2, 2, 2, 3, 30, 8, 8, rng))
    padded_k, padded_v = (torch.full((2, 2, 20, 8), torch.nan) for _ in range(2))
    for bag, keys in enumerate((slice(0, 10), slice(10, 30))):
        padded_k[bag, :, : keys.stop - keys.start] = k[keys].transpose(0, 1)
        padded_v[bag, :, : keys.stop - keys.start] = v[keys].transpose(0, 1)
    bags = attend_bags(q, k, v, torch.tensor([0, 10, 30]))
    rows = split_attend(q, padded_k, padded_v, lengths=torch.tensor([10, 20]))
    torch.testing.assert_close(bags.out, rows.out, rtol=0, atol=0)
    torch.testing.assert_close(bags.lse, rows.lse, rtol=0, atol=0)
    alone = split_attend(q[:1], padded_k[:1, :, :10], padded_v[:1, :, :10])
    torch.testing.assert_close(alone.out, rows.out[:1], rtol=0, atol=0)


def test_an_empty_bag_reads_nothing_and_has_no_gradient(rng: torch.Generator) -> None:
    q, k, v = (x.float().requires_grad_() for x in _leaves(2, 1, 1, 2, 9, 8, 8, rng))
    found = attend_bags(q, k, v, torch.tensor([0, 0, 9]))
    assert torch.equal(found.out[0], torch.zeros_like(found.out[0]))
    assert bool((found.lse[0] == -torch.inf).all())
    found.out.sum().backward()
    assert q.grad is not None
    assert torch.equal(q.grad[0], torch.zeros_like(q.grad[0]))
    assert all(bool(x.grad.isfinite().all()) for x in (q, k, v))


def test_weights_sum_to_one_and_constant_values_come_back(rng: torch.Generator) -> None:
    q, k, _ = (x.float() for x in _leaves(1, 2, 2, 3, 40, 8, 8, rng))
    found = attend_bags(q, k, torch.full((40, 2, 5), 3.0), torch.tensor([0, 40]), splits=3, want={"weights"})
    assert found.weights is not None
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(2, 3))
    torch.testing.assert_close(found.out, torch.full((1, 2, 3, 5), 3.0))


def test_two_sets_of_keys_merge_by_their_log_sum_exp(rng: torch.Generator) -> None:
    q, k, v = (x.float() for x in _leaves(1, 1, 1, 2, 30, 8, 8, rng))
    whole, left, right = (
        attend_bags(q, k[keys], v[keys], torch.tensor([0, len(k[keys])]))
        for keys in (slice(0, 30), slice(0, 11), slice(11, 30))
    )
    lse = torch.logaddexp(left.lse, right.lse)
    merged = sum(part.out * (part.lse - lse).exp()[..., None] for part in (left, right))
    torch.testing.assert_close(merged, whole.out)
    torch.testing.assert_close(lse, whole.lse)


def test_two_runs_give_the_same_bits(rng: torch.Generator) -> None:
    q, k, v = (x.float().requires_grad_() for x in _leaves(2, 2, 1, 2, 70, 16, 16, rng))

    def run() -> list[Tensor]:
        out = attend_bags(q, k, v, torch.tensor([0, 20, 70]), splits=3).out
        return [out, *torch.autograd.grad(out.square().sum(), (q, k, v))]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_the_operator_keeps_torchs_contract(rng: torch.Generator) -> None:
    q, k, v = (x.float().requires_grad_() for x in _leaves(2, 2, 1, 2, 12, 8, 8, rng))
    packed = [x.detach().transpose(0, 1)[None].requires_grad_() for x in (k, v)]
    arguments = (q, *packed, torch.tensor([0, 5]), torch.tensor([5, 7]), 0.3, None, True)
    torch.library.opcheck(_op, arguments)


@pytest.mark.parametrize("dynamic", [False, True])
def test_it_compiles_whole(dynamic: bool, rng: torch.Generator) -> None:
    q, k, v = (x.float() for x in _leaves(2, 2, 1, 2, 12, 8, 8, rng))
    compiled = torch.compile(attend_bags, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    offsets = torch.tensor([0, 5, 12])
    torch.testing.assert_close(compiled(q, k, v, offsets).out, attend_bags(q, k, v, offsets).out)


def test_autocast_casts_the_inputs(rng: torch.Generator) -> None:
    q, k, v = (x.float() for x in _leaves(1, 1, 1, 2, 12, 8, 8, rng))
    with torch.autocast("cpu", torch.bfloat16):
        found = attend_bags(q, k, v, torch.tensor([0, 12]))
    assert found.out.dtype == torch.bfloat16
    assert found.lse.dtype == torch.float32


def test_no_queries_and_no_keys_keep_their_shapes() -> None:
    found = split_attend(torch.ones(2, 1, 0, 8), torch.ones(2, 1, 5, 8), torch.ones(2, 1, 5, 4))
    assert found.out.shape == (2, 1, 0, 4)
    found = split_attend(torch.ones(2, 1, 3, 8), torch.ones(2, 1, 0, 8), torch.ones(2, 1, 0, 4))
    assert torch.equal(found.out, torch.zeros(2, 1, 3, 4))


def test_bad_input_is_named() -> None:
    q, k, v = torch.ones(2, 3, 1, 8), torch.ones(9, 2, 8), torch.ones(9, 2, 8)
    with pytest.raises(ValueError, match="attend_bags: k has 2 heads, which must divide the 3 heads of q"):
        attend_bags(q, k, v, torch.tensor([0, 4, 9]))
    q = torch.ones(2, 2, 1, 8)
    with pytest.raises(ValueError, match=r"bag 1 covers keys 4 to 10 but there are 9"):
        attend_bags(q, k, v, torch.tensor([0, 4, 10]))
    with pytest.raises(ValueError, match=r"offsets has shape \[2\]; expected \[b \+ 1\] = \[3\]"):
        attend_bags(q, k, v, torch.tensor([0, 9]))
    with pytest.raises(ValueError, match=r"k is torch.float64 but q is torch.float32; pass k.to\(q.dtype\)"):
        attend_bags(q, k.double(), v, torch.tensor([0, 4, 9]))
    with pytest.raises(ValueError, match=r"want=\['mass'\] is unknown; this operator gives 'weights'"):
        attend_bags(q, k, v, torch.tensor([0, 4, 9]), want={"mass"})
    with pytest.raises(ValueError, match="splits=0; expected at least 1"):
        attend_bags(q, k, v, torch.tensor([0, 4, 9]), splits=0)


def test_many_queries_are_explained() -> None:
    q, k = torch.ones(1, 1, 100, 8), torch.ones(1, 1, 9, 8)
    assert any("100 query rows per key head exceed 64; attend" in why for why in explain(split_attend, q, k, k).reasons)
