"""What a kernel may touch and must repeat: poisoned buffers, guard bands, the same bits twice, permutations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.attention import attend
from kernels.attention.problem import Problem, RowGradients
from kernels.bias import Dense
from kernels.dispatch import interpreting
from kernels.masks import Masks
from tests.kernels.attention_cases import EVERYTHING, H, N, S, biases, define, masks, with_tensors
from tests.kernels.guards import BAND, SENTINEL, assert_bands_untouched, in_nan, poisoned_memory
from tests.kernels.laws import assert_exact_enough

FORMS = ["none", "dense", "axis", "distance"]


def _call(form: str, mask: str) -> tuple[list[Tensor], dict[str, Any]]:
    torch.manual_seed(0)
    given = masks()[mask] | {"groups": torch.randint(-1, 8, (2, S)), "want": EVERYTHING}
    bias = biases(torch.float32)[form]
    leaves = [torch.randn(2, H, N, 8), torch.randn(2, 1, S, 8), torch.randn(2, 1, S, 6)]
    return [*leaves, *(bias.tensors if bias is not None else ())], given | {"bias": bias}


def _run(leaves: list[Tensor], options: dict[str, Any]) -> list[Tensor]:
    """All outputs and gradients."""
    inputs = [x.detach().requires_grad_() for x in leaves]
    own = options | {"bias": with_tensors(options["bias"], inputs[3:])}
    outputs = [x for x in attend(*inputs[:3], **own) if x is not None]
    torch.manual_seed(1)
    loss = sum((x.masked_fill(x == -torch.inf, 0.0) * torch.randn(x.shape)).sum() for x in outputs)
    return [*outputs, *torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize(("form", "mask"), [*zip(FORMS, ["keep", "lengths", "bottom-right", "window"], strict=True)])
def test_poisoned_memory_and_bands_of_nan_change_no_bit(form: str, mask: str) -> None:
    leaves, options = _call(form, mask)
    clean = _run(leaves, options)
    with poisoned_memory():
        guarded = _run([in_nan(x) for x in leaves], options)
    for a, b in zip(clean, guarded, strict=True):
        assert not b.isnan().any()
        if interpreting():
            assert torch.equal(a, b)
        else:
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("form", ["none", "dense", "distance"])
def test_two_runs_give_the_same_bits(form: str) -> None:
    leaves, options = _call(form, "lengths")
    for a, b in zip(_run(leaves, options), _run(leaves, options), strict=True):
        assert torch.equal(a, b)


@pytest.mark.skipif(not interpreting(), reason="looks at the memory around what Triton kernels write")
def test_kernels_write_nowhere_but_into_their_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    import kernels.attention.launch as launch

    buffers: list[Tensor] = []

    def allocate(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        count = torch.Size(shape).numel()
        flat = torch.full((count + 2 * BAND,), SENTINEL, dtype=dtype)
        buffers.append(flat)
        body = flat[BAND : BAND + count]
        body.fill_(torch.nan if dtype.is_floating_point else SENTINEL)
        return body.view(shape)

    def new_empty(self: Tensor, *shape: Any, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
        sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return allocate(tuple(sizes), dtype or self.dtype)

    def empty_like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return allocate(tuple(x.shape), dtype or x.dtype)

    torch.manual_seed(3)
    q, k, v = torch.randn(2, H, 9, 8), torch.randn(2, 1, S, 8), torch.randn(2, 1, S, 6)
    groups = torch.randint(-1, 5, (2, S))
    given = Masks(lengths=torch.tensor([7, S]), causal="bottom-right")
    problem = Problem(0.3, given, Dense(torch.randn(1, H, 9, S)), 0.0, None, groups, 5, EVERYTHING)
    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)
    monkeypatch.setattr(torch, "empty_like", empty_like)
    rows = launch.forward(q, k, v, problem)
    grads = RowGradients(*(torch.randn(x.shape) for x in (rows.out, rows.lse, rows.entropy, rows.peak)))  # type: ignore[union-attr]
    found = launch.backward(q, k, v, rows, grads, problem, need_mass=True)
    monkeypatch.undo()
    assert len(buffers) >= 8
    assert_bands_untouched(buffers)
    for x in (*rows, *found[:3], *found.bias, found.mass):
        assert x is not None
        assert not x.isnan().any()
    torch.testing.assert_close(found.mass, rows.mass)


@pytest.mark.parametrize("width", [8, 32, 64, 96, 128])
def test_gradients_of_every_head_width_match_the_definition(width: int) -> None:
    torch.manual_seed(width)
    leaves = [torch.randn(1, 2, n, width) for n in (17, 33, 33)]
    groups, want = torch.zeros(1, 33, dtype=torch.long), frozenset({"lse", "mass"})

    def ours(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        read = attend(q, k, v, causal="bottom-right", want=want)
        return [read.out, read.lse, read.mass]  # type: ignore[list-item]

    def definition(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        rows = define(q, k, v, groups=groups, causal="bottom-right")
        return [rows[0], rows[1], rows[4]]

    assert_exact_enough(ours, definition, leaves, torch.float32)


def test_permuting_queries_permutes_rows_and_permuting_pairs_permutes_mass() -> None:
    torch.manual_seed(4)
    q, k, v = (torch.randn(2, 2, n, 8) for n in (N, S, S))
    keep = torch.rand(2, S) > 0.3
    want = frozenset({"lse", "entropy", "peak", "mass"})
    read = attend(q, k, v, keep=keep, want=want)
    rows, keys = torch.randperm(N), torch.randperm(S)
    moved = attend(q[:, :, rows], k[:, :, keys], v[:, :, keys], keep=keep[:, keys], want=want)
    for name in ("out", "lse", "entropy", "peak"):
        torch.testing.assert_close(getattr(moved, name), getattr(read, name)[:, :, rows], rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(moved.mass, read.mass[..., keys], rtol=1e-5, atol=2e-6)


def test_a_relative_table_reaches_relative_attention_and_refuses_what_it_has_not() -> None:
    torch.manual_seed(5)
    q, k, v = (torch.randn(1, 2, 7, 8) for _ in range(3))
    table = torch.randn(2, 7, 8)
    distance = (torch.arange(7)[:, None] - torch.arange(7)).clamp_min(0)
    by_distance = torch.einsum("bhnd,hnsd->bhns", q, table[:, distance]) * 8**-0.5
    want = frozenset({"lse"})
    read = attend(q, k, v, relative=table, causal="bottom-right", want=want)
    exact = attend(q, k, v, bias=Dense(by_distance), causal="bottom-right", want=want)
    torch.testing.assert_close(read.out, exact.out)
    torch.testing.assert_close(read.lse, exact.lse)
    for options in (
        {"causal": None},
        {"causal": "bottom-right", "window": 2},
        {"causal": "bottom-right", "want": EVERYTHING - {"group_mass", "group_out"}},
    ):
        with pytest.raises(
            ValueError, match=r"relative serves causal='bottom-right' with keep and want=\{'lse'\} only"
        ):
            attend(q, k, v, relative=table, **options)
