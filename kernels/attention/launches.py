"""What the attention launchers start, option by option, for the compiler and for tuning.

Everything is built by calling `launch` itself, so a row is judged with the flags, strides and types of a real call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import kernels.attention.launch as launch
from kernels.ahead import Launch, recorded
from kernels.attention.problem import Problem, RowGradients
from kernels.bias import ALiBi, AxisFactored, Bias, Dense, PerKey, Relative1D, Relative2D
from kernels.masks import Masks
from kernels.tile_rows import Row

HEADS, GRID = 8, (8, 12)
PLAIN, HEAVY, GROUPS = "plain", "dense bias, lengths, causal, entropy", "groups"
DTYPES = {16: torch.bfloat16, 32: torch.float32}


def problems(device: str = "cpu", rows: int = GRID[0], columns: int = GRID[1]) -> dict[str, Problem]:
    """One call for every option a kernel branches on, over `rows * columns` queries and keys."""
    n = rows * columns

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, device=device)

    lengths = torch.full((1,), n - 3, device=device)
    ids = torch.zeros(1, n, dtype=torch.long, device=device)
    free = Masks()

    def biased(bias: Bias) -> Problem:
        return Problem(0.125, free, bias)

    return {
        PLAIN: Problem(0.125, free),
        HEAVY: Problem(
            0.125,
            Masks(lengths=lengths, causal="bottom-right"),
            Dense(zeros(1, HEADS, n, n)),
            want=frozenset({"entropy", "mass"}),
        ),
        "lengths, causal, peak": Problem(
            0.125, Masks(lengths=lengths, causal="bottom-right"), want=frozenset({"entropy", "peak"})
        ),
        "keep, segments, window": Problem(0.125, Masks(ids == 0, None, ids, ids, None, 5), want=frozenset({"mass"})),
        "per key": biased(PerKey(zeros(1, HEADS, n))),
        "axis": biased(AxisFactored(zeros(1, HEADS, n, columns), zeros(1, HEADS, n, rows))),
        "distance": biased(Relative1D(zeros(HEADS, 2 * n - 1), n - 1)),
        "grid distance": biased(
            Relative2D(zeros(HEADS, 2 * rows - 1, 2 * columns - 1), (rows - 1, columns - 1), columns, columns)
        ),
        "alibi": biased(ALiBi(zeros(HEADS))),
        "dropout": Problem(0.125, free, None, 0.1, torch.zeros(1, dtype=torch.long, device=device)),
        GROUPS: Problem(0.125, free, None, 0.0, None, ids, want=frozenset({"group_mass", "group_out"})),
    }


def attention(row: Row, device: str = "cpu") -> list[Launch]:
    """Forward and backward launches at the row's width and type.

    The narrowest 16-bit rows meet every option; the others the plain, the heaviest and the grouped call.
    """
    size = GRID if device == "cpu" else (32, 64)
    given = problems(device, *size)
    names = list(given) if (row.bits, row.width) == (16, 64) else [PLAIN, HEAVY, GROUPS]
    return [found for name in names for found in launches_of(given[name], row, device, size[0] * size[1])]


def launches_of(problem: Problem, row: Row, device: str, n: int) -> list[Launch]:
    """The launches of one call and its backward pass that have the row's type."""
    dtype = DTYPES[row.bits]
    q = torch.zeros(1, HEADS, n, row.width, dtype=dtype, device=device)
    with recorded(launch) as found:
        rows = launch.forward(q, q, q, problem)
        kept: dict[str, Any] = {name: torch.zeros_like(x) for name, x in rows._asdict().items() if x is not None}
        kept.pop("peak_at", None)
        launch.backward(q, q, q, rows, RowGradients(**kept), problem, need_mass=True)
    return [start for start in found if start.arguments[0].dtype == dtype]
