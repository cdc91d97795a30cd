"""Rows of the static tile table and how a launch finds its own: no timing and no trial at run time."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch


class Row(NamedTuple):
    """One tile choice."""

    kernel: str
    bits: int  # 16 or 32: size of an input number
    width: int  # widest head or token served
    blocks: tuple[int, ...]
    warps: int
    stages: int
    minor: int = 0  # Triton 3.<minor>, 0 = any
    note: str = ""  # why registers spill, where they do


def bits_of(dtype: torch.dtype) -> int:
    """16 for half types, else 32."""
    return 16 if dtype in (torch.float16, torch.bfloat16) else 32


@cache
def tile_row(kernel: str, bits: int, width: int) -> Row:
    """The narrowest row that serves `width`; one written for the installed Triton goes before one for any."""
    from kernels.tile_table import ROWS
    from kernels.tiles import triton_minor

    fitting = [
        row
        for row in ROWS
        if row.kernel == kernel and row.bits == bits and row.width >= width and row.minor in (0, triton_minor())
    ]
    if not fitting:
        raise ValueError(f"tile table: no row for {kernel} with {bits}-bit numbers of width {width}")
    return min(fitting, key=lambda row: (row.width, row.minor == 0))
