"""Calls of `attend` that together use every option, and the definition they are held against."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.attention import reference
from kernels.attention.problem import EXTRAS, Problem
from kernels.bias import ALiBi, AxisFactored, Bias, Dense, PerKey, Relative1D, Relative2D, rebuild
from kernels.masks import Masks

EVERYTHING = frozenset(EXTRAS)
N, S, H = 12, 20, 2


def biases(dtype: torch.dtype = torch.float64) -> dict[str, Bias | None]:
    """One bias of each form for 2 batches, 2 heads, 12 queries and 20 keys (grids 3 x 4 and 4 x 5)."""

    def new(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64).to(dtype)

    return {
        "none": None,
        "dense": Dense(new(1, H, N, S)),
        "dense row": Dense(new(2, 1, 1, S)),
        "per key": PerKey(new(2, 1, S)),
        "axis": AxisFactored(new(2, H, N, 5), new(1, H, N, 4)),
        "distance": Relative1D(new(H, 15), 9),
        "grid distance": Relative2D(new(H, 5, 7), (3, 3), 4, 5),
        "alibi": ALiBi(new(H), 8),
    }


def masks() -> dict[str, dict[str, Any]]:
    """Every mask for 2 batches, 12 queries and 20 keys; the second batch of `keep` has no key at all."""
    keep = torch.rand(2, S) > 0.3
    keep[1] = False
    return {
        "all": {},
        "keep": {"keep": keep},
        "lengths": {"lengths": torch.tensor([7, S])},
        "top-left": {"causal": "top-left"},
        "bottom-right": {"causal": "bottom-right", "lengths": torch.tensor([9, S])},
        "window": {"window": 3, "causal": "bottom-right"},
        "segments": {"segments": (torch.randint(0, 3, (2, N)), torch.randint(0, 3, (2, S)))},
    }


def define(
    q: Tensor, k: Tensor, v: Tensor, bias: Bias | None = None, dropout: float = 0.0, **mask: Any
) -> list[Tensor]:
    """The reference with all extras, in the order of `Attended`."""
    groups = mask.pop("groups")
    query_segment, key_segment = mask.pop("segments", (None, None))
    given = Masks(
        mask.get("keep"), mask.get("lengths"), query_segment, key_segment, mask.get("causal"), mask.get("window")
    )
    seed = torch.tensor([5])
    problem = Problem(q.shape[-1] ** -0.5, given, bias, dropout, seed, groups, want=EVERYTHING)
    rows = reference.attend(q, k, v, problem)
    return [rows.out, rows.lse, rows.entropy, rows.peak, rows.mass, rows.group_mass, rows.group_out]  # type: ignore[list-item]


def with_tensors(bias: Bias | None, tensors: list[Tensor]) -> Bias | None:
    """The same bias over other tensors."""
    return None if bias is None else rebuild(bias.kind, tensors, bias.numbers)
