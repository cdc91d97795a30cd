"""Attention on a CUDA device against float64 on the same device, in one script:
`pytest -m gpu -s tests/kernels/test_attention_gpu.py`.

The table of errors is printed last.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from kernels.attention import attend, attend_packed
from kernels.attention.problem import Problem
from kernels.attention.reference import attend as define
from kernels.masks import Masks
from tests.kernels.laws import error

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
CAPS = {torch.float32: (1e-5, 1e-5), torch.float16: (1e-3, 2e-3), torch.bfloat16: (1e-2, 1.5e-2)}
WANT = frozenset({"lse", "entropy", "mass"})


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[str, float, float]]]:
    lines: list[tuple[str, float, float]] = []
    yield lines
    print(f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}\ncase | output | gradients")
    for name, forward, backward in lines:
        print(f"{name} | {forward:.1e} | {backward:.1e}")


@pytest.mark.parametrize("dtype", CAPS)
@pytest.mark.parametrize("width", [8, 40, 64, 96, 128, 256])
@pytest.mark.parametrize(("n", "s"), [(1, 333), (127, 65), (333, 1000)])
def test_outputs_and_gradients(dtype: torch.dtype, width: int, n: int, s: int, table: list) -> None:
    torch.manual_seed(n + width)
    leaves = [torch.randn(2, 3, m, width, device="cuda").to(dtype) for m in (n, s, s)]
    lengths = torch.tensor([s, s // 2 + 1], device="cuda")
    problem = Problem(width**-0.5, Masks(lengths=lengths), want=WANT)

    def run(inputs: list[Tensor], exact: bool) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        inputs = [x.detach().requires_grad_() for x in inputs]
        rows = define(*inputs, problem) if exact else attend(*inputs, lengths=lengths, want=WANT)
        outputs = [rows.out, rows.lse, rows.entropy, rows.mass]
        torch.manual_seed(0)
        loss = sum((x * torch.randn(x.shape, device="cuda").to(dtype).to(x.dtype)).sum() for x in outputs)
        return outputs, torch.autograd.grad(loss, inputs)

    truth, found = run([x.double() for x in leaves], True), run(leaves, False)
    errors = [max(error(a, b) for a, b in zip(f, t, strict=True)) for f, t in zip(found, truth, strict=True)]
    table.append((f"{dtype} d{width} {n}x{s}", *errors))
    for value, cap in zip(errors, CAPS[dtype], strict=True):
        assert value < cap
    again = run(leaves, False)
    for a, b in zip([*found[0], *found[1]], [*again[0], *again[1]], strict=True):
        assert torch.equal(a, b)


def test_packed_sequences_equal_a_loop() -> None:
    ends, key_ends = torch.tensor([0, 70, 70, 333]).cuda(), torch.tensor([0, 9, 200, 470]).cuda()
    q, k, v = (torch.randn(m, 4, 64, device="cuda", dtype=torch.float16) for m in (333, 470, 470))
    packed = attend_packed(q, k, v, ends, key_ends, causal="bottom-right", want=WANT)
    for a, b, c, d in zip(ends, ends[1:], key_ends, key_ends[1:], strict=False):
        parts = (x.transpose(0, 1)[None] for x in (q[a:b], k[c:d], v[c:d]))
        one = attend(*parts, causal="bottom-right", want=WANT)
        torch.testing.assert_close(packed.out[a:b], one.out[0].transpose(0, 1), rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(packed.mass[c:d], one.mass[0].T, rtol=2e-3, atol=2e-3)
