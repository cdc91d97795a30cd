"""Memory that shows what a kernel reads, forgets to write, or writes beside its outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

BAND, SENTINEL = 64, 77


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fresh memory holds NaN (the largest number for integers): what a kernel forgets to write shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def in_nan(x: Tensor) -> Tensor:
    """The same numbers inside a larger tensor of NaN: reading beyond any edge, also within a row, shows."""
    wide = x.new_full([size + 4 for size in x.shape], float("nan"))
    inner = wide[tuple(slice(2, -2) for _ in x.shape)]
    inner.copy_(x)
    return inner


@contextmanager
def guarded_outputs() -> Iterator[list[Tensor]]:
    """Inside, `torch.empty` and `torch.zeros` give memory between two bands; yields what was given, bands included."""
    given: list[Tensor] = []

    def between_bands(fill: float) -> Any:
        def allocate(*sizes: Any, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
            shape = torch.Size(sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes)
            dtype = dtype or torch.get_default_dtype()
            flat = torch.full((shape.numel() + 2 * BAND,), SENTINEL, dtype=dtype, device=device)
            body = flat[BAND : BAND + shape.numel()]
            body.fill_(fill if dtype.is_floating_point or fill == 0 else SENTINEL)
            given.append(flat)
            return body.view(shape)

        return allocate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", between_bands(torch.nan))
        patch.setattr(torch, "zeros", between_bands(0))
        yield given


def assert_bands_untouched(given: list[Tensor]) -> None:
    """Nothing was written beside any output."""
    assert given
    for flat in given:
        edges = torch.cat([flat[:BAND], flat[-BAND:]])
        assert torch.equal(edges, torch.full_like(edges, SENTINEL))
