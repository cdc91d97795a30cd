"""K8 in plain torch with bounded memory: one tile of scores at a time, both maxima read from it.

A tile holds a few items of each side. Its columns are laid out (token, item), so both maxima run over a strided axis
with a contiguous inner one, which torch reduces some ten times faster than an innermost axis of 32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kernels.max_similarity.reference import Scores, score_dtype, winner_dtype

TILE = 2**19  # scores in one tile: 2 MB of float32, about a core's second-level cache
ROWS = 256  # rows of a tile: fewer slow its matrix product, more leave its maxima short runs


def _blocks(n: int, s: int) -> tuple[int, int]:
    """Items of x and of y in one tile."""
    rows = max(1, ROWS // max(n, 1))
    return rows, max(1, TILE // max(rows * n * s, 1))


class _Packed(NamedTuple):
    """Some items without most of their padding.

    Attributes:
        tokens: real tokens first, in their order, cut to the longest item; then copies of the item's first, which
            change no maximum
        weight: of the same tokens
        at: where each stood; None = where it stands
    """

    tokens: Tensor
    weight: Tensor
    at: Tensor | None


def _packed(tokens: Tensor, weight: Tensor, items: Tensor) -> _Packed:
    tokens, weight = tokens[items], weight[items]
    keep = weight > 0
    if keep.all():
        return _Packed(tokens, weight, None)
    at = (~keep).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(keep.sum(dim=1).max())]
    tokens = tokens.gather(1, at[..., None].expand(-1, -1, tokens.shape[2]))
    weight = weight.gather(1, at)
    return _Packed(torch.where((weight > 0)[..., None], tokens, tokens[:, :1]), weight, at)


def _by_length(weight: Tensor) -> Tensor:
    """Items in the order of how many tokens they keep, so that those of a tile have about as many."""
    return (weight > 0).sum(dim=1).argsort(descending=True, stable=True)


def _unpacked(winner: Tensor, own: _Packed, other: _Packed, size: int) -> Tensor:
    """Winners `[i, j, t]` of packed tokens as positions before packing, for all `size` tokens of an item."""
    if other.at is not None:
        item = torch.arange(winner.shape[1], device=winner.device)[:, None]
        # A copy of the first token may score a rounding error above it.
        winner = other.at[item, torch.where(other.weight[item, winner] > 0, winner, 0)]
    if own.at is None:
        return winner
    whole = winner.new_zeros(*winner.shape[:2], size)
    return whole.scatter_(2, own.at[:, None].expand_as(winner), winner)


def max_similarity_chunked(x: Tensor, y: Tensor, x_weight: Tensor, y_weight: Tensor, save: bool) -> Scores:
    """Scores as in the reference; beyond inputs and outputs about 6 MB plus one block of tokens, whatever the sizes."""
    (a, n, d), (b, s, _) = x.shape, y.shape
    if b * s > a * n:  # the side that is re-laid is the one with fewer tokens
        swapped = max_similarity_chunked(y, x, y_weight, x_weight, save)
        return Scores(
            swapped.y_to_x.T.contiguous(),
            swapped.x_to_y.T.contiguous(),
            swapped.y_winner.transpose(0, 1).contiguous() if save else swapped.y_winner,
            swapped.x_winner.transpose(0, 1).contiguous() if save else swapped.x_winner,
        )
    dtype, integer = score_dtype(x.dtype), winner_dtype(n, s)
    x_to_y, y_to_x = (torch.empty(a, b, dtype=dtype, device=x.device) for _ in range(2))
    kept = (a, b) if save else (0, 0)
    x_winner, y_winner = (torch.empty(*kept, size, dtype=integer, device=x.device) for size in (n, s))
    rows, columns = _blocks(n, s)
    tile = torch.empty(min(rows, a) * n * s * min(columns, b), dtype=dtype, device=x.device)
    by_x = _by_length(x_weight).split(rows)
    for at_y in _by_length(y_weight).split(columns):
        right = _packed(y, y_weight, at_y)
        m, u, _ = right.tokens.shape
        flat, weight_y = right.tokens.to(dtype).permute(2, 1, 0).reshape(d, u * m), right.weight.to(dtype)
        for at_x in by_x:
            left = _packed(x, x_weight, at_x)
            k, t, _ = left.tokens.shape
            out = tile[: k * t * u * m].view(k * t, u * m)
            scores = torch.mm(left.tokens.to(dtype).reshape(k * t, d), flat, out=out).view(k, t, u, m)
            here = at_x[:, None], at_y[None]
            if save:
                row, row_at = scores.max(dim=2)  # the first of equal maxima wins
                column, column_at = scores.max(dim=1)
                x_winner[here] = _unpacked(row_at.transpose(1, 2), left, right, n).to(integer)
                turned = _unpacked(column_at.permute(2, 0, 1), right, left, s)
                y_winner[here] = turned.transpose(0, 1).to(integer)
            else:
                row, column = scores.amax(dim=2), scores.amax(dim=1)
            x_to_y[here] = torch.einsum("itj,it->ij", row, left.weight.to(dtype))
            y_to_x[here] = torch.einsum("iuj,ju->ij", column, weight_y)
    return Scores(x_to_y, y_to_x, x_winner, y_winner)


def max_similarity_chunked_backward(
    g_xy: Tensor,
    g_yx: Tensor,
    x: Tensor,
    y: Tensor,
    x_weight: Tensor,
    y_weight: Tensor,
    x_winner: Tensor,
    y_winner: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of both token sets from the saved winners: one sparse tile of weights, two matrix products."""
    (a, n, d), (b, s, _) = x.shape, y.shape
    dtype = score_dtype(x.dtype)
    g_x = torch.zeros(a, n, d, dtype=dtype, device=x.device)
    g_y = torch.zeros(b, s, d, dtype=dtype, device=x.device)
    rows, columns = _blocks(n, s)
    tile = torch.empty(min(rows, a) * n * s * min(columns, b), dtype=dtype, device=x.device)
    for j in range(0, b, columns):
        weight_y = y_weight[j : j + columns].to(dtype)
        tokens = y[j : j + columns].to(dtype).masked_fill((weight_y == 0)[..., None], 0)
        m = len(tokens)
        for i in range(0, a, rows):
            weight_x = x_weight[i : i + rows].to(dtype)
            left = x[i : i + rows].to(dtype).masked_fill((weight_x == 0)[..., None], 0)
            k = len(left)
            here = slice(i, i + k), slice(j, j + m)
            share = tile[: k * n * m * s].view(k, n, m, s).zero_()
            to_rows = torch.einsum("ij,it->itj", g_xy[here].to(dtype), weight_x)
            to_columns = torch.einsum("ij,ju->iju", g_yx[here].to(dtype), weight_y)
            share.scatter_(3, x_winner[here].transpose(1, 2).long().unsqueeze(3), to_rows.unsqueeze(3))
            share.scatter_add_(1, y_winner[here].long().unsqueeze(1), to_columns.unsqueeze(1))
            flat = share.view(k * n, m * s)
            g_x[i : i + k].view(k * n, d).addmm_(flat, tokens.reshape(m * s, d))
            g_y[j : j + m].view(m * s, d).addmm_(flat.T, left.reshape(k * n, d))
    return g_x.to(x.dtype), g_y.to(y.dtype)
