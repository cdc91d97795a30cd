"""K5 tiles are square: a tile's distances then fall into two windows of one tile's length each."""

from __future__ import annotations

from typing import Any

import torch

from kernels.tile_rows import bits_of, tile_row


def launch_options(kernel: str, dtype: torch.dtype, width: int) -> dict[str, Any]:
    """BLOCK, warps and stages of one of the kernels relative_fwd, _step, _dq, _dkv, _table."""
    row = tile_row(f"relative_{kernel}", bits_of(dtype), width)
    return {"BLOCK": row.blocks[0], "num_warps": row.warps, "num_stages": row.stages}
