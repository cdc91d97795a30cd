"""Laws of `attend` on whatever backend serves this process: definition, limits, symmetries, masks, empty inputs."""

from __future__ import annotations

import math

import pytest
import torch

from kernels.attention import attend, attend_packed, chunked
from kernels.bias import ALiBi, Dense
from kernels.dispatch import interpreting
from tests.kernels.attention_cases import EVERYTHING, H, N, S, biases, define, masks, with_tensors
from tests.kernels.laws import assert_exact_enough

PAIRS = [
    ("none", "all", 0.0),
    ("dense", "keep", 0.0),
    ("dense row", "lengths", 0.4),
    ("per key", "top-left", 0.0),
    ("axis", "bottom-right", 0.0),
    ("distance", "window", 0.4),
    ("grid distance", "segments", 0.0),
    ("alibi", "all", 0.4),
]
ALL_PAIRS = [(bias, mask, p) for bias in biases() for mask in masks() for p in (0.0, 0.4)]


@pytest.mark.parametrize(("form", "mask", "dropout"), PAIRS if interpreting() else ALL_PAIRS)
def test_outputs_and_gradients_match_the_definition(form: str, mask: str, dropout: float, monkeypatch) -> None:
    monkeypatch.setattr(chunked, "CHUNK_SCORES", 500)
    torch.manual_seed(0)
    bias, given = biases()[form], masks()[mask]
    given["groups"] = torch.randint(-1, 8, (2, S))
    leaves = [torch.randn(2, H, N, 8), torch.randn(2, 1, S, 8), torch.randn(2, 1, S, 6)]
    leaves += list(bias.tensors) if bias is not None else []

    def ours(q, k, v, *tensors):
        own = with_tensors(bias, list(tensors))
        return attend(q, k, v, bias=own, dropout=dropout, seed=5 if dropout else None, want=EVERYTHING, **given)

    def definition(q, k, v, *tensors):
        return define(q, k, v, with_tensors(bias, list(tensors)), dropout, **given)

    assert_exact_enough(ours, definition, leaves, torch.float32, {3} if form == "alibi" else ())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    "width", [24, 80] if interpreting() else [1, 8, 16, 24, 32, 40, 64, 80, 96, 128, 192, 256, 512]
)
def test_every_type_and_width_stays_within_the_error_criterion(dtype: torch.dtype, width: int) -> None:
    torch.manual_seed(width)
    leaves = [torch.randn(1, 3, n, width) for n in (17, 33, 33)]
    groups = torch.zeros(1, 33, dtype=torch.long)
    ours = lambda q, k, v: attend(q, k, v, want=frozenset({"lse", "entropy"}), window=40)[:3]  # noqa: E731
    assert_exact_enough(ours, lambda q, k, v: define(q, k, v, groups=groups)[:3], leaves, dtype)


@pytest.mark.parametrize("n", [1, 65] if interpreting() else [1, 15, 16, 17, 63, 64, 65, 127, 333])
@pytest.mark.parametrize("s", [17, 127] if interpreting() else [1, 15, 16, 17, 63, 64, 65, 127, 333])
def test_every_length_matches_the_definition(n: int, s: int) -> None:
    torch.manual_seed(n * s)
    leaves = [torch.randn(1, 3, n, 16), torch.randn(1, 3, s, 16), torch.randn(1, 3, s, 16)]
    groups = torch.zeros(1, s, dtype=torch.long)
    ours = lambda q, k, v: (lambda r: (r.out, r.lse, r.mass))(attend(q, k, v, want=frozenset({"lse", "mass"})))  # noqa: E731
    theirs = lambda q, k, v: (lambda r: (r[0], r[1], r[4]))(define(q, k, v, groups=groups))  # noqa: E731
    assert_exact_enough(ours, theirs, leaves, torch.float32)


def test_strided_and_expanded_views_equal_copies() -> None:
    torch.manual_seed(1)
    q = torch.randn(2, 9, 3, 8).transpose(1, 2)
    k, v = torch.randn(1, 3, 11, 8).expand(2, -1, -1, -1), torch.randn(2, 3, 8, 11).mT
    want = frozenset({"lse"})
    views, copies = attend(q, k, v, want=want), attend(q.contiguous(), k.contiguous(), v.contiguous(), want=want)
    torch.testing.assert_close(views.out, copies.out, rtol=0, atol=1e-6)


def test_limits_and_symmetries() -> None:
    torch.manual_seed(2)
    q, k, v = (torch.randn(2, 2, n, 8) for n in (N, S, S))
    read = attend(q, k, v, want=frozenset({"lse", "entropy", "peak", "mass"}))
    torch.testing.assert_close(
        attend(q, k, torch.full_like(v, 3.0), want=frozenset({"lse"})).out, torch.full_like(q, 3.0)
    )
    moved = attend(q, k, v, bias=Dense(torch.full((1, 1, 1, 1), 2.5)), want=frozenset({"lse", "mass"}))
    torch.testing.assert_close(moved.lse, read.lse + 2.5)
    torch.testing.assert_close(moved.mass, read.mass)
    order = torch.randperm(S)
    shuffled = attend(q, k[:, :, order], v[:, :, order], want=frozenset({"mass"}))
    torch.testing.assert_close(shuffled.out, read.out, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(shuffled.mass, read.mass[..., order], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(read.mass.sum(dim=-1), torch.full((2, 2), float(N)))
    assert (read.entropy >= 0).all()
    assert (read.entropy <= math.log(S) + 1e-6).all()
    even = attend(q, torch.ones_like(k), v, want=frozenset({"entropy", "peak"}))
    torch.testing.assert_close(even.entropy, torch.full_like(even.entropy, math.log(S)))
    torch.testing.assert_close(even.peak, torch.full_like(even.peak, 1 / S))


def test_a_length_equals_slicing_and_neighbours_do_not_matter_bit_by_bit() -> None:
    torch.manual_seed(3)
    q, k, v = (torch.randn(3, 2, n, 8) for n in (5, S, S))
    want = frozenset({"lse", "entropy"})
    cut = attend(q, k, v, lengths=torch.tensor([7, 7, 7]), want=want)
    if interpreting():
        for a, b in zip(cut[:3], attend(q, k[:, :, :7], v[:, :, :7], want=want)[:3], strict=True):
            assert torch.equal(a, b)
    torch.testing.assert_close(cut.out, attend(q, k[:, :, :7], v[:, :, :7], want=want).out)
    alone, again = attend(q[1:2], k[1:2], v[1:2], want=want), attend(q, k, v, want=want)
    assert torch.equal(alone.out[0], again.out[1])
    assert torch.equal(attend(q, k, v, want=want).out, again.out)


def test_two_key_sets_merge_through_their_lse() -> None:
    torch.manual_seed(4)
    q, k, v = (torch.randn(1, 2, n, 8) for n in (5, S, S))
    want = frozenset({"lse"})
    whole, a, b = (attend(q, k[:, :, p], v[:, :, p], want=want) for p in (slice(None), slice(7), slice(7, None)))
    share = torch.sigmoid(a.lse - b.lse)[..., None]
    torch.testing.assert_close(share * a.out + (1 - share) * b.out, whole.out)
    torch.testing.assert_close(torch.logaddexp(a.lse, b.lse), whole.lse)


@pytest.mark.parametrize("mask", ["keep", "lengths", "segments", "window"])
@pytest.mark.parametrize("want", [frozenset(), EVERYTHING])
def test_a_query_without_keys_gives_zeros_and_zero_gradients(mask: str, want: frozenset[str]) -> None:
    q, k, v = (torch.randn(1, 2, 6, 8, requires_grad=True) for _ in range(3))
    options = {
        "keep": {"keep": torch.zeros(1, 6, dtype=torch.bool)},
        "lengths": {"lengths": torch.zeros(1, dtype=torch.long)},
        "segments": {"segments": (torch.zeros(1, 6, dtype=torch.long), torch.ones(1, 6, dtype=torch.long))},
        "window": {"keep": torch.zeros(1, 6, dtype=torch.bool), "window": 0},
    }[mask]
    groups = {"groups": torch.zeros(1, 6, dtype=torch.long)} if want else {}
    read = attend(q, k, v, want=want, **options, **groups)
    assert not read.out.any()
    assert read.lse is None or (read.lse == -torch.inf).all()
    outputs = [x for name, x in read._asdict().items() if x is not None and name != "lse"]
    for gradient in torch.autograd.grad(sum(x.sum() for x in outputs), (q, k, v)):
        assert not gradient.any()


@pytest.mark.parametrize(("n", "s"), [(0, 4), (4, 0), (0, 0)])
def test_empty_queries_or_keys_keep_their_shapes(n: int, s: int) -> None:
    q, k, v = torch.randn(2, 2, n, 8), torch.randn(2, 2, s, 8), torch.randn(2, 2, s, 6)
    read = attend(q, k, v, want=EVERYTHING, groups=torch.zeros(2, s, dtype=torch.long))
    assert read.out.shape == (2, 2, n, 6)
    assert read.mass.shape == (2, 2, s)
    assert not read.out.any()


def test_shared_key_heads_equal_repeated_ones() -> None:
    torch.manual_seed(5)
    q, k, v = torch.randn(1, 6, 5, 8), torch.randn(1, 2, 9, 8), torch.randn(1, 2, 9, 8)
    repeated = attend(q, k.repeat_interleave(3, dim=1), v.repeat_interleave(3, dim=1))
    torch.testing.assert_close(attend(q, k, v).out, repeated.out)


def test_group_parts_sum_to_the_whole_and_dropout_repeats() -> None:
    torch.manual_seed(6)
    q, k, v = (torch.randn(1, 2, n, 8) for n in (5, S, S))
    options = {"groups": torch.randint(0, 8, (1, S)), "dropout": 0.3, "seed": 11, "want": EVERYTHING}
    read, again = attend(q, k, v, **options), attend(q, k, v, **options)
    torch.testing.assert_close(read.group_out.sum(dim=3), read.out)
    torch.testing.assert_close(read.group_mass.sum(dim=3), torch.ones(1, 2, 5))
    assert torch.equal(read.out, again.out)
    assert not torch.equal(read.out, attend(q, k, v, **options | {"seed": 12}).out)


PACKED = {
    "plain": {},
    "causal": {"causal": "bottom-right"},
    "window": {"causal": "top-left", "window": 2},
    "distance": {"bias": "distance", "window": 4},
    "alibi": {"bias": "alibi", "causal": "bottom-right"},
}


@pytest.mark.parametrize("case", PACKED)
def test_packed_sequences_equal_a_loop_with_gradients(case: str) -> None:
    """Sequences of 4, 0, 140 and 5 queries and 5, 3, 7 and 150 keys: within tiles and across them."""
    torch.manual_seed(7)
    form, options = PACKED[case].get("bias"), {k: v for k, v in PACKED[case].items() if k != "bias"}
    bias = {None: None, "distance": biases(torch.float32)["distance"], "alibi": ALiBi(torch.tensor([0.05, 0.02]), 8)}[
        form
    ]
    ends, key_ends = torch.tensor([0, 4, 4, 144, 149]), torch.tensor([0, 5, 8, 15, 165])
    want = frozenset({"lse", "entropy", "peak", "mass"})
    leaves = [torch.randn(149, 2, 8), torch.randn(165, 1, 8), torch.randn(165, 1, 6)]
    leaves += list(bias.tensors) if bias is not None else []

    def packed(q, k, v, *tensors):
        own = with_tensors(bias, list(tensors))
        return attend_packed(q, k, v, ends, key_ends, bias=own, want=want, **options)[:5]

    def loop(q, k, v, *tensors):
        own, reads = with_tensors(bias, list(tensors)), []
        groups = {"groups": torch.zeros(1, 1, dtype=torch.long)}
        for a, b, c, d in zip(ends, ends[1:], key_ends, key_ends[1:], strict=False):
            parts = (x.transpose(0, 1)[None] for x in (q[a:b], k[c:d], v[c:d]))
            groups["groups"] = torch.zeros(1, int(d - c), dtype=torch.long)
            reads.append(define(*parts, own, **groups, **options)[:5])
        return [torch.cat([x[0].transpose(0, 1) for x in column]) for column in zip(*reads, strict=True)]

    assert_exact_enough(packed, loop, leaves, torch.float32, {3})


def test_packed_refuses_what_it_has_not() -> None:
    x, ends = torch.randn(4, 2, 8), torch.tensor([0, 4])
    with pytest.raises(ValueError, match=r"key_ends=\[0, 3\] must rise from 0 to 4"):
        attend_packed(x, x, x, ends, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="bias is Dense; expected a bias by distance"):
        attend_packed(x, x, x, ends, ends, bias=Dense(torch.zeros(1, 1, 4, 4)))
