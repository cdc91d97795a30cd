"""K8 in plain torch with bounded memory: one tile of scores at a time, both maxima read from it.

A tile holds a few items of each side. Its columns are laid out (token, item), so both maxima run over a strided axis
with a contiguous inner one, which torch reduces some ten times faster than an innermost axis of 32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.max_similarity.reference import Scores, score_dtype, winner_dtype

TILE = 2**19  # scores in one tile: 2 MB of float32, about a core's second-level cache
ROWS = 512  # rows below which the matrix product of a tile, shared by two threads, loses speed


def _blocks(n: int, s: int) -> tuple[int, int]:
    """Items of x and of y in one tile."""
    rows = max(1, ROWS // max(n, 1))
    return rows, max(1, TILE // max(rows * n * s, 1))


def _without_padding(tokens: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Padded tokens overwritten by their item's first real one, which changes no maximum; and those firsts."""
    keep = weight > 0
    if keep.all():
        return tokens, torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
    first = keep.to(torch.uint8).argmax(dim=1)
    stand_in = tokens[torch.arange(len(tokens), device=tokens.device), first]
    return torch.where(keep[..., None], tokens, stand_in[:, None]), first


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
    for j in range(0, b, columns):
        tokens, y_first = _without_padding(y[j : j + columns], y_weight[j : j + columns])
        weight_y = y_weight[j : j + columns].to(dtype)
        m = len(tokens)
        right = tokens.to(dtype).permute(2, 1, 0).reshape(d, s * m)
        for i in range(0, a, rows):
            left, x_first = _without_padding(x[i : i + rows], x_weight[i : i + rows])
            weight_x = x_weight[i : i + rows].to(dtype)
            k = len(left)
            out = tile[: k * n * s * m].view(k * n, s * m)
            scores = torch.mm(left.to(dtype).reshape(k * n, d), right, out=out).view(k, n, s, m)
            here = slice(i, i + k), slice(j, j + m)
            if save:
                row, row_at = scores.max(dim=2)  # the first of equal maxima wins
                column, column_at = scores.max(dim=1)
                row_at = torch.where((weight_y > 0).T[row_at, torch.arange(m, device=x.device)], row_at, y_first)
                real = (weight_x > 0)[torch.arange(k, device=x.device)[:, None, None], column_at]
                column_at = torch.where(real, column_at, x_first[:, None, None])
                x_winner[here] = row_at.transpose(1, 2).to(integer)
                y_winner[here] = column_at.transpose(1, 2).to(integer)
            else:
                row, column = scores.amax(dim=2), scores.amax(dim=1)
            x_to_y[here] = torch.einsum("itj,it->ij", row, weight_x)
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
