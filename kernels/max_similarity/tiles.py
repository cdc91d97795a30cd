"""K8 tile sizes: a static table by arithmetic of dtype and token counts, nothing tried at run time."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels.tile_rows import bits_of, tile_row

MAX_TOKENS = 1024  # column maxima of one item live in registers


@dataclass(frozen=True)
class Tile:
    """One launch: BLOCK_N tokens of x, ITEMS items of BLOCK_S tokens of y (TILES times per item), BLOCK_D features."""

    block_n: int
    block_s: int
    items: int
    tiles: int
    block_d: int
    warps: int
    stages: int
    precision: str

    def constants(self) -> dict[str, int | str]:
        return {
            "BLOCK_N": self.block_n,
            "BLOCK_S": self.block_s,
            "ITEMS": self.items,
            "TILES": self.tiles,
            "BLOCK_D": self.block_d,
            "PRECISION": self.precision,
        }


def _power_of_two(size: int) -> int:
    return 1 << max(size - 1, 0).bit_length()


def tile_of(kernel: str, dtype: torch.dtype, n: int, s: int, d: int) -> Tile:
    """Tile of max_similarity_fwd or max_similarity_bwd; short items share the columns of one tile."""
    row = tile_row(f"max_similarity_{kernel}", bits_of(dtype), min(_power_of_two(d), 256))
    rows, columns, features = row.blocks
    block_s = min(columns, _power_of_two(s))
    return Tile(
        block_n=min(rows, max(16, _power_of_two(n))),
        block_s=block_s,
        items=columns // block_s,
        tiles=_power_of_two(-(-s // block_s)),
        block_d=min(features, max(16, _power_of_two(d))),
        warps=row.warps,
        stages=row.stages,
        precision="ieee",
    )
