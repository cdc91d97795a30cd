"""Bias gradients without atomics: sums of score-gradient tiles along walks.

Every structured bias adds one number to many pairs, and a tile that moves in constant steps can visit those pairs:
a dense table's tile stays, a relative table's tile moves along the diagonal, an axis term's tile moves by one grid row.
One kernel sums dS along such walks; here walks are laid out and sums folded into the shape of the bias.

A walk is (first query, queries, first key, keys, steps); at step t its tile starts at query `first + t * query_step`
and key `first + t * key_step`, its keys are `key_stride` apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kernels.bias import ALiBi, AxisFactored, Bias, Dense, Relative1D, Relative2D

Fold = Callable[[Float[Tensor, "batches heads walks bm bn"]], Tensor]


class Walks(NamedTuple):
    """The walks that give the gradient of one tensor of a bias.

    Attributes:
        rows: one walk per row, `[walks, 5]`
        query_step: queries between two steps
        key_step: keys between two steps
        key_stride: keys between two columns of a tile
        fold: from the tile sums `[batches, heads, walks, bm, bn]` to the gradient
    """

    rows: list[tuple[int, int, int, int, int]]
    query_step: int
    key_step: int
    key_stride: int
    fold: Fold


def walks_of(bias: Bias, n: int, s: int, bm: int, bn: int) -> list[Walks]:
    """The walks for each tensor of `bias`, for `n` queries, `s` keys and tiles of `bm` x `bn`."""
    match bias:
        case Dense():
            return [_dense(bias, n, s, bm, bn)]
        case AxisFactored():
            width, height = bias.numbers
            return [
                _axis(n, width, height, 1, width, bm, bn),
                _axis(n, height, width, width, 1, bm, bn),
            ]
        case Relative1D():
            return [_diagonals(n, s, bm, bn, lambda sums: _clamped(sums, bias.offset, bias.table.shape[-1], s))]
        case ALiBi():
            return [_diagonals(n, s, bm, bn, lambda sums: _slopes(sums, bias.offset, s))]
        case Relative2D():
            return [_grid_diagonals(bias, n, s, bm, bn)]
    raise ValueError(f"attend: {type(bias).__name__} has no walks; its gradient comes with dK and dV")


def _tiles(size: int, tile: int) -> list[tuple[int, int]]:
    return [(start, min(tile, size - start)) for start in range(0, size, tile)]


def _dense(bias: Dense, n: int, s: int, bm: int, bn: int) -> Walks:
    one_row = bias.table.shape[2] == 1
    rows = [
        (q0, bm if one_row else qs, k0, ks, -(-n // bm) if one_row else 1)
        for q0, qs in ([(0, 0)] if one_row else _tiles(n, bm))
        for k0, ks in _tiles(s, bn)
    ]

    def fold(sums: Tensor) -> Tensor:
        b, h = sums.shape[:2]
        if one_row:
            line = sums.sum(dim=-2).flatten(-2)[:, :, None, :s]
            return line.sum_to_size(b, h, 1, bias.table.shape[3])
        table = sums.view(b, h, -(-n // bm), -(-s // bn), bm, bn).transpose(3, 4).reshape(b, h, -(-n // bm) * bm, -1)
        return table[:, :, :n, :s].sum_to_size(b, h, n, bias.table.shape[3])

    return Walks(rows, bm if one_row else 0, 0, 1, fold)


def _axis(n: int, size: int, others: int, stride: int, step: int, bm: int, bn: int) -> Walks:
    rows = [(q0, qs, x0 * stride, xs, others) for q0, qs in _tiles(n, bm) for x0, xs in _tiles(size, bn)]

    def fold(sums: Tensor) -> Tensor:
        b, h = sums.shape[:2]
        tiled = sums.view(b, h, -(-n // bm), -(-size // bn), bm, bn).transpose(3, 4)
        return tiled.reshape(b, h, -(-n // bm) * bm, -1)[:, :, :n, :size]

    return Walks(rows, 0, step, stride, fold)


def _sheared(tiles: Float[Tensor, "*any bm bn"]) -> Float[Tensor, "*any bm_bn_1"]:
    """Sums over the diagonals of tiles: entry `u` collects row - column = u - (bn - 1)."""
    *lead, bm, bn = tiles.shape
    wide = torch.nn.functional.pad(tiles.flip(-1), (0, bm))
    flat = wide.flatten(-2)[..., : bm * (bm + bn - 1)]
    return flat.view(*lead, bm, bm + bn - 1).sum(dim=-2)


def _overlapped(pieces: Float[Tensor, "*any count length"], step: int) -> Float[Tensor, "*any total"]:
    """Sum of pieces laid `step` apart on a line."""
    count, length = pieces.shape[-2:]
    total = pieces.new_zeros(*pieces.shape[:-2], (count - 1) * step + length)
    for index in range(count):
        total[..., index * step : index * step + length] += pieces[..., index, :]
    return total


def _diagonals(n: int, s: int, bm: int, bn: int, fold: Callable[[Tensor], Tensor]) -> Walks:
    """One walk per block diagonal; folded sums run over distances i - j = -(s_padded - 1), ..., n_padded - 1."""
    tile = min(bm, bn)
    above, below = -(-s // tile) - 1, -(-n // tile) - 1
    rows = []
    for diagonal in range(-above, below + 1):
        q0, k0 = max(0, diagonal), max(0, -diagonal)
        rows.append((q0 * tile, tile, k0 * tile, tile, min(below - q0, above - k0) + 1))

    def by_distance(sums: Tensor) -> Tensor:
        line = _overlapped(_sheared(sums[..., :tile, :tile]), tile)
        return fold(line[..., (above + 1) * tile - s :])

    return Walks(rows, tile, tile, 1, by_distance)


def _clamped(line: Float[Tensor, "b h distances"], offset: int, size: int, s: int) -> Float[Tensor, "h size"]:
    """Fold sums by distance, starting at -(s - 1), into a table whose ends collect everything beyond."""
    entries = (torch.arange(line.shape[-1], device=line.device) - (s - 1) + offset).clamp(0, size - 1)
    return _gathered(line.sum(dim=0), entries, size)


def _gathered(line: Float[Tensor, "h distances"], entries: Tensor, size: int) -> Float[Tensor, "h size"]:
    """Sum a line whose table entries are sorted: differences of nothing but whole runs, in a fixed order."""
    bounds = torch.searchsorted(entries, torch.arange(size + 1, device=line.device))
    inner = line.new_zeros(line.shape[0], size)
    low, high = int(bounds[1]), int(bounds[size - 1])
    if size == 1:
        return line.sum(dim=-1, keepdim=True)
    inner[:, 0] = line[:, :low].sum(dim=-1)
    inner[:, -1] = line[:, high:].sum(dim=-1)
    first = int(entries[low]) if low < high else 1
    inner[:, first : first + high - low] = line[:, low:high]
    return inner


def _slopes(line: Float[Tensor, "b h distances"], offset: int, s: int) -> Float[Tensor, " h"]:
    distance = (torch.arange(line.shape[-1], device=line.device) - (s - 1) + offset).abs()
    return -(line.sum(dim=0) * distance).sum(dim=-1)


def _grid_diagonals(bias: Relative2D, n: int, s: int, bm: int, bn: int) -> Walks:
    """One walk per row distance and pair of column tiles; each step goes one row down both grids."""
    wq, wk, dy, dx, height, width = bias.numbers
    rows_q, rows_k = n // wq, s // wk
    tiles_q, tiles_k = _tiles(wq, bm), _tiles(wk, bn)
    rows = []
    for distance in range(-(rows_k - 1), rows_q):
        y_q, y_k = max(0, distance), max(0, -distance)
        steps = min(rows_q - y_q, rows_k - y_k)
        rows += [
            (y_q * wq + x_q, count_q, y_k * wk + x_k, count_k, steps)
            for x_q, count_q in tiles_q
            for x_k, count_k in tiles_k
        ]

    def fold(sums: Tensor) -> Tensor:
        total = sums.sum(dim=0)
        heads = total.shape[0]
        by_row = total.view(heads, -1, len(tiles_q), len(tiles_k), bm, bn)
        lines = by_row.new_zeros(heads, by_row.shape[1], wq + wk - 1 + 2 * (bm + bn))
        for a, (x_q, _) in enumerate(tiles_q):
            for c, (x_k, _) in enumerate(tiles_k):
                start = x_q - x_k - (bn - 1) + (wk - 1) + bm + bn
                lines[..., start : start + bm + bn - 1] += _sheared(by_row[:, :, a, c])
        lines = lines[..., bm + bn : bm + bn + wq + wk - 1]
        columns = (torch.arange(wq + wk - 1, device=sums.device) - (wk - 1) + dx).clamp(0, width - 1)
        over_x = _gathered(lines.flatten(0, 1), columns, width).view(heads, -1, width)
        lines_y = (torch.arange(rows_q + rows_k - 1, device=sums.device) - (rows_k - 1) + dy).clamp(0, height - 1)
        over_y = _gathered(over_x.transpose(1, 2).reshape(heads * width, -1), lines_y, height)
        return over_y.view(heads, width, height).transpose(1, 2)

    return Walks(rows, wq, wk, 1, fold)
