"""Pieces every Triton kernel uses. Imports Triton: only `triton.py` modules import this file."""

from __future__ import annotations

import os

# Triton 3.9 warns that 3.10 will stop fusing products and sums unless told to; our error bounds hold with fusion.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import triton
import triton.language as tl

from kernels.dispatch import interpreting

INTERP = tl.constexpr(interpreting())
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def upcast(x):
    """Make a loaded 16-bit float safe to compute with: the interpreter treats bfloat16 as integers."""
    if INTERP and (x.dtype == tl.bfloat16 or x.dtype == tl.float16):
        x = x.to(tl.float32)
    return x


@triton.jit
def rounded(x, dtype: tl.constexpr):
    """Round a float32 tile to the dtype the matrix unit will see, then make it safe to compute with."""
    return upcast(x.to(dtype))


def power_of_two(width: int, least: int = 16) -> int:
    """The smallest power of two that is at least `width` and `least`: tile edges must be powers of two."""
    return max(least, triton.next_power_of_2(width))


def triton_minor() -> int:
    """The minor number of the installed Triton 3.x, the column of the tile tables."""
    return int(triton.__version__.split(".")[1])
