"""K3 tile sizes and the length of a piece."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels.tile_rows import bits_of, tile_row

MAX_ROWS = 64
WAVES = 2  # programs per multiprocessor that the pieces should give


def most_rows(dtype: torch.dtype, width: int) -> int:
    """Query rows of one key head that a program can hold: 64 of wide float32 numbers exceed the memory sm_80 shares."""
    return MAX_ROWS // 2 if bits_of(dtype) == 32 and width > 128 else MAX_ROWS


@dataclass(frozen=True)
class Tile:
    """One launch: BLOCK_R query rows (or pieces, when merging) by BLOCK_S keys (or features)."""

    block_r: int
    block_s: int
    warps: int
    stages: int


def split_tile(dtype: torch.dtype, rows: int, width: int, backward: bool = False) -> Tile:
    """Tile of the splitting pass and of its backward."""
    row = tile_row("split_bwd" if backward else "split_fwd", bits_of(dtype), width)
    block_r = max(16, 1 << max(rows - 1, 0).bit_length())
    return Tile(block_r, row.blocks[0], row.warps if block_r < 64 else 8, row.stages)


def merge_tile(width: int) -> Tile:
    """Tile of the merge: pieces by features."""
    return Tile(block_r=32, block_s=min(64, max(16, 1 << max(width - 1, 0).bit_length())), warps=4, stages=1)


def piece_length(keys: int, key_heads: int, multiprocessors: int) -> int:
    """Keys per program so that all keys of all bags give about WAVES programs per multiprocessor, a multiple of 64."""
    each = -(-keys * key_heads // (WAVES * multiprocessors))
    return max(64, -(-each // 64) * 64)
