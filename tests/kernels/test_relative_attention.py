"""K5: causal attention with relative distances."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.bench_cases import skew
from kernels.relative_attention import relative_attend, relative_step
from kernels.relative_attention.op import _op
from kernels.relative_attention.reference import relative_attention_reference
from kernels.timing import usage
from tests.kernels.laws import assert_exact_enough


def _leaves(
    b: int, h: int, j: int, n: int, s: int, d: int, e: int, r: int, rng: torch.Generator, heads: int = 0
) -> list[Tensor]:
    shapes = (b, h, n, d), (b, s, j, d), (b, j, s, e), (heads or h, r, d)
    q, k, v, table = (torch.randn(shape, generator=rng, dtype=torch.float64) for shape in shapes)
    return [q, k.transpose(1, 2), v, table]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    ("h", "j", "n", "s", "d", "e", "r", "heads", "start", "local", "masked"),
    [
        (4, 2, 40, 40, 24, 16, 64, 4, None, 0, False),
        (2, 2, 50, 80, 16, 24, 20, 1, None, 0, True),
        (2, 1, 20, 80, 16, 16, 100, 2, (3, 50), 0, True),
        (2, 2, 70, 70, 16, 16, 30, 2, None, 16, False),
        (2, 2, 1, 90, 16, 16, 30, 2, (40, 89), 0, True),
        (2, 2, 3, 90, 16, 16, 30, 2, (40, 80), 16, False),
    ],
)
def test_definition(
    h: int, j: int, n: int, s: int, d: int, e: int, r: int, heads: int, start: tuple[int, int] | None, local: int,
    masked: bool, dtype: torch.dtype, rng: torch.Generator,
) -> None:  # fmt: skip
    keep = torch.rand(2, s, generator=rng) > 0.3 if masked else None
    if keep is not None:
        keep[0, :5] = False
    first = None if start is None else torch.tensor(start)
    reference = torch.full((2,), s - n) if first is None else first
    assert_exact_enough(
        lambda q, k, v, table: relative_attend(q, k, v, table, keep=keep, start=first, local=local or None),
        lambda q, k, v, table: relative_attention_reference(q, k, v, table, keep, reference, local, d**-0.5),
        _leaves(2, h, j, n, s, d, e, r, rng, heads),
        dtype,
    )


@pytest.mark.parametrize("n", [1, 15, 16, 17, 63, 64, 65, 127])
def test_definition_at_any_length(n: int, rng: torch.Generator) -> None:
    start = torch.zeros(1, dtype=torch.long)
    assert_exact_enough(
        lambda *x: relative_attend(*x),
        lambda *x: relative_attention_reference(*x, None, start, 0, 16**-0.5),
        _leaves(1, 3, 3, n, n, 16, 16, 50, rng),
        torch.float32,
        cancelling={0, 1, 3} if n == 1 else (),  # a softmax over one key has no gradient: g.v - delta is rounding alone
    )


@pytest.mark.parametrize("d", [8, 32, 40, 80, 96, 128, 192, 256])
def test_definition_at_any_width(d: int, rng: torch.Generator) -> None:
    start = torch.zeros(1, dtype=torch.long)
    assert_exact_enough(
        lambda *x: relative_attend(*x),
        lambda *x: relative_attention_reference(*x, None, start, 0, d**-0.5),
        _leaves(1, 1, 1, 20, 20, d, d, 20, rng),
        torch.float32,
    )


@pytest.mark.parametrize("n", [*range(1, 9), 31, 32, 33, 64])
def test_it_equals_the_published_skew(n: int, rng: torch.Generator) -> None:
    leaves = [x.requires_grad_() for x in _leaves(1, 2, 2, n, n, 8, 8, n, rng)]
    ours, theirs = relative_attend(*leaves).out, skew(*leaves)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    pull = torch.randn(ours.shape, generator=rng, dtype=torch.float64)
    for a, b in zip(torch.autograd.grad(ours, leaves, pull), torch.autograd.grad(theirs, leaves, pull), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_no_relative_term_is_plain_causal_attention(rng: torch.Generator) -> None:
    q, k, v, table = _leaves(2, 2, 2, 30, 30, 8, 8, 30, rng)
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(relative_attend(q, k, v, torch.zeros_like(table)).out, plain)
    same = table[:, :1].expand_as(table)
    torch.testing.assert_close(relative_attend(q, k, v, same).out, plain)


def test_the_future_does_not_leak(rng: torch.Generator) -> None:
    q, k, v, table = (x.float() for x in _leaves(1, 2, 2, 40, 40, 8, 8, 40, rng))
    before = relative_attend(q, k, v, table).out
    k[:, :, 25], v[:, :, 25] = 9.0, 9.0
    after = relative_attend(q, k, v, table).out
    assert torch.equal(before[:, :, :25], after[:, :, :25])
    assert not torch.equal(before[:, :, 25:], after[:, :, 25:])


def test_local_blocks_as_long_as_the_sequence_are_global(rng: torch.Generator) -> None:
    leaves = _leaves(1, 2, 2, 40, 40, 8, 8, 40, rng)
    torch.testing.assert_close(relative_attend(*leaves, local=40).out, relative_attend(*leaves).out)


@pytest.mark.parametrize("local", [None, 8])
def test_decoding_with_a_cache_equals_the_whole_forward(local: int | None, rng: torch.Generator) -> None:
    q, k, v, table = (x.float() for x in _leaves(2, 2, 1, 20, 20, 8, 8, 12, rng))
    whole = relative_attend(q, k, v, table, local=local)
    k_cache, v_cache = (torch.full((2, 1, 32, 8), torch.nan) for _ in range(2))
    for t in range(20):
        k_cache[:, :, t], v_cache[:, :, t] = k[:, :, t], v[:, :, t]
        step = relative_step(q[:, :, t : t + 1], k_cache, v_cache, table, torch.full((2,), t + 1), local=local)
        torch.testing.assert_close(step.out, whole.out[:, :, t : t + 1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(step.lse, whole.lse[:, :, t : t + 1], rtol=1e-5, atol=1e-5)


def test_padding_may_hold_anything(rng: torch.Generator) -> None:
    leaves = [x.float() for x in _leaves(2, 2, 2, 30, 30, 8, 8, 30, rng)]
    keep = torch.arange(30) < torch.tensor([[30], [17]])
    soiled = [leaves[0], *(x.clone() for x in leaves[1:3]), leaves[3]]
    for x in soiled[1:3]:
        x[1, :, 17:] = torch.nan
    clean = [x.requires_grad_() for x in leaves]
    soiled = [x.detach().requires_grad_() for x in soiled]
    ours, theirs = (relative_attend(*x, keep=keep).out for x in (clean, soiled))
    assert torch.equal(ours, theirs)
    for a, b in zip(torch.autograd.grad(ours.sum(), clean), torch.autograd.grad(theirs.sum(), soiled), strict=True):
        assert torch.equal(a, b)
    short = relative_attend(*(x[1:, :, :17] for x in clean[:3]), clean[3])
    torch.testing.assert_close(ours[1:, :, :17], short.out)


def test_a_query_that_sees_no_key_reads_nothing(rng: torch.Generator) -> None:
    leaves = [x.float().requires_grad_() for x in _leaves(1, 2, 2, 10, 10, 8, 8, 10, rng)]
    found = relative_attend(*leaves, keep=torch.zeros(1, 10, dtype=torch.bool))
    assert torch.equal(found.out, torch.zeros_like(found.out))
    assert bool((found.lse == -torch.inf).all())
    assert all(bool((g == 0).all()) for g in torch.autograd.grad(found.out.sum(), leaves))


def test_two_runs_give_the_same_bits(rng: torch.Generator) -> None:
    leaves = [x.float().requires_grad_() for x in _leaves(1, 2, 2, 60, 60, 8, 8, 20, rng)]

    def run() -> list[Tensor]:
        out = relative_attend(*leaves).out
        return [out, *torch.autograd.grad(out.square().sum(), leaves)]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_the_operator_keeps_torchs_contract(rng: torch.Generator) -> None:
    q, k, v, table = (x.float().requires_grad_() for x in _leaves(2, 2, 1, 9, 9, 8, 8, 5, rng))
    torch.library.opcheck(
        _op, (q, k, v, table, torch.ones(2, 9, dtype=torch.bool), torch.zeros(2, dtype=torch.long), 0, 0.3)
    )


@pytest.mark.parametrize("dynamic", [False, True])
def test_it_compiles_whole(dynamic: bool, rng: torch.Generator) -> None:
    leaves = [x.float() for x in _leaves(2, 2, 1, 9, 9, 8, 8, 5, rng)]
    compiled = torch.compile(relative_attend, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    torch.testing.assert_close(compiled(*leaves).out, relative_attend(*leaves).out)


def test_autocast_casts_the_table_too(rng: torch.Generator) -> None:
    q, k, v, table = (x.float() for x in _leaves(1, 2, 2, 9, 9, 8, 8, 9, rng))
    with torch.autocast("cpu", torch.bfloat16):
        assert relative_attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), table).out.dtype == torch.bfloat16


def _forward_and_backward(n: int):  # type: ignore[no-untyped-def]
    q, k, v = (torch.randn(1, 4, n, 16, requires_grad=True) for _ in range(3))
    table = torch.randn(4, n, 16, requires_grad=True)
    torch.autograd.grad(relative_attend(*(x[:, :, :64] for x in (q, k, v)), table).out.sum(), table)  # loads libraries
    return lambda: torch.autograd.grad(relative_attend(q, k, v, table).out.sum(), (q, k, v, table))


def test_memory_grows_with_the_length_not_its_square() -> None:
    n = 16_384
    one_map_mb = 4 * n * n * 4 / 2**20
    assert usage(_forward_and_backward, n, threads=1).peak_mb < one_map_mb / 16


def test_bad_input_is_named() -> None:
    q, table = torch.ones(1, 2, 4, 8), torch.ones(2, 4, 8)
    with pytest.raises(ValueError, match="relative_attend: table has 3 heads; expected 2 or 1"):
        relative_attend(q, q, q, torch.ones(3, 4, 8))
    with pytest.raises(ValueError, match="table has no rows; expected one row per distance"):
        relative_attend(q, q, q, torch.ones(2, 0, 8))
    with pytest.raises(ValueError, match=r"start\[0\]=2 puts 4 queries at positions 2 to 5, but there are 4 keys"):
        relative_attend(q, q, q, table, start=torch.tensor([2]))
    with pytest.raises(ValueError, match="local=0; expected a block length of at least 1"):
        relative_attend(q, q, q, table, local=0)
    with pytest.raises(ValueError, match=r"keep is torch\.float32; expected bool"):
        relative_attend(q, q, q, table, keep=torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"table has shape \[2, 4, 9\]"):
        relative_attend(q, q, q, torch.ones(2, 4, 9))
