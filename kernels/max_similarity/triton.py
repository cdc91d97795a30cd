"""K8 in Triton: both maxima from one score tile, and a backward that rebuilds its weights from the saved winners.

Forward: one program holds item i of x against ITEMS items of y (their columns padded to BLOCK_S each), walks the tokens
of x and, inside, the column tiles. A row maximum is complete after the inner walk; column maxima stay in registers to
the end. Backward: one program owns BLOCK_N tokens of one item and walks all partners: the tile of weights is built from
the winners in registers and enters one tl.dot. No atomics, so runs repeat bitwise.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.max_similarity.reference import Scores, score_dtype, winner_dtype
from kernels.max_similarity.tiles import Tile, tile_of
from kernels.tiles import rounded, upcast


@triton.jit
def _max_similarity_fwd_kernel(
    p_x, p_y, p_wx, p_wy, p_xy, p_yx, p_xwin, p_ywin,
    b, n, s, d,
    x_item, x_token, y_item, y_token,
    SAVE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_S: tl.constexpr, ITEMS: tl.constexpr, TILES: tl.constexpr,
    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64)
    j0 = tl.program_id(1) * ITEMS
    o_n = tl.arange(0, BLOCK_N)
    o_d = tl.arange(0, BLOCK_D)
    o_item = j0 + tl.arange(0, ITEMS)
    o_s = tl.arange(0, BLOCK_S)
    o_tile = tl.arange(0, TILES)
    o_column = tl.arange(0, ITEMS * BLOCK_S)
    item = (j0 + o_column // BLOCK_S).to(tl.int64)
    within = o_column % BLOCK_S
    item_ok = o_item < b

    column_max = tl.full([TILES, ITEMS, BLOCK_S], float("-inf"), tl.float32)
    column_arg = tl.zeros([TILES, ITEMS, BLOCK_S], tl.int32)
    x_to_y = tl.zeros([ITEMS], tl.float32)
    for n0 in range(0, n, BLOCK_N):
        token = n0 + o_n
        weight_n = tl.load(p_wx + i * n + token, mask=token < n, other=0.0)
        row_max = tl.full([BLOCK_N, ITEMS], float("-inf"), tl.float32)
        row_arg = tl.zeros([BLOCK_N, ITEMS], tl.int32)
        for tile in range(0, TILES):
            column = tile * BLOCK_S + within
            column_ok = (item < b) & (column < s)
            weight_c = tl.load(p_wy + item * s + column, mask=column_ok, other=0.0)
            score = tl.zeros([BLOCK_N, ITEMS * BLOCK_S], tl.float32)
            for d0 in range(0, d, BLOCK_D):
                width_ok = d0 + o_d < d
                b_x = tl.load(
                    p_x + i * x_item + token[:, None] * x_token + d0 + o_d[None, :],
                    mask=(token < n)[:, None] & width_ok[None, :], other=0.0,
                )  # fmt: skip
                b_y = tl.load(
                    p_y + (item * y_item + column * y_token)[None, :] + d0 + o_d[:, None],
                    mask=column_ok[None, :] & width_ok[:, None], other=0.0,
                )  # fmt: skip
                score = tl.dot(upcast(b_x), upcast(b_y), score, input_precision=PRECISION)
            score = tl.where((weight_n > 0)[:, None] & (weight_c > 0)[None, :], score, float("-inf"))
            score = tl.reshape(score, [BLOCK_N, ITEMS, BLOCK_S])
            if SAVE:
                row, row_at = tl.max(score, axis=2, return_indices=True)
                row_arg = tl.where(row > row_max, row_at + tile * BLOCK_S, row_arg)
                col, col_at = tl.max(score, axis=0, return_indices=True)
                better = (o_tile == tile)[:, None, None] & (col[None, :, :] > column_max)
                column_arg = tl.where(better, (col_at + n0)[None, :, :], column_arg)
            else:
                row = tl.max(score, axis=2)
                col = tl.max(score, axis=0)
                better = (o_tile == tile)[:, None, None] & (col[None, :, :] > column_max)
            row_max = tl.maximum(row_max, row)
            column_max = tl.where(better, col[None, :, :], column_max)
        x_to_y += tl.sum(tl.where(row_max > float("-inf"), row_max, 0.0) * weight_n[:, None], 0)
        if SAVE:
            p_row = p_xwin + (i * b + o_item)[None, :] * n + token[:, None]
            tl.store(p_row, row_arg.to(p_xwin.dtype.element_ty), mask=(token < n)[:, None] & item_ok[None, :])

    o_column3 = o_tile[:, None, None] * BLOCK_S + o_s[None, None, :]
    ok3 = item_ok[None, :, None] & (o_column3 < s)
    weight_3 = tl.load(p_wy + o_item.to(tl.int64)[None, :, None] * s + o_column3, mask=ok3, other=0.0)
    y_to_x = tl.sum(tl.sum(tl.where(column_max > float("-inf"), column_max, 0.0) * weight_3, 2), 0)
    tl.store(p_xy + i * b + o_item, x_to_y, mask=item_ok)
    tl.store(p_yx + i * b + o_item, y_to_x, mask=item_ok)
    if SAVE:
        p_column = p_ywin + (i * b + o_item)[None, :, None] * s + o_column3
        tl.store(p_column, column_arg.to(p_ywin.dtype.element_ty), mask=ok3)


@triton.jit
def _max_similarity_bwd_kernel(
    p_g_own, p_g_other, p_w_own, p_w_other, p_other, p_own_win, p_other_win, p_norm, p_out,
    partners, n, s, d,
    g_own, g_other, win_own, win_other,
    other_item, other_token,
    BLOCK_N: tl.constexpr, BLOCK_S: tl.constexpr, ITEMS: tl.constexpr, TILES: tl.constexpr,
    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    o_d = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    o_item = tl.arange(0, ITEMS)
    o_s = tl.arange(0, BLOCK_S)
    o_column = tl.arange(0, ITEMS * BLOCK_S)
    token_ok = token < n
    weight_n = tl.load(p_w_own + i * n + token, mask=token_ok, other=0.0)
    norm = tl.load(p_norm)
    acc = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for j0 in range(0, partners, ITEMS):
        j = (j0 + o_item).to(tl.int64)
        j_ok = j < partners
        to_row = tl.load(p_g_own + i * g_own + j * g_other, mask=j_ok, other=0.0) / norm
        to_column = tl.load(p_g_other + i * g_own + j * g_other, mask=j_ok, other=0.0) / norm
        pair = i * win_own + j * win_other
        row_at = tl.load(
            p_own_win + pair[None, :] * n + token[:, None], mask=token_ok[:, None] & j_ok[None, :], other=0
        ).to(tl.int32)
        row_share = weight_n[:, None] * to_row[None, :]
        item = (j0 + o_column // BLOCK_S).to(tl.int64)
        for tile in range(0, TILES):
            u = tile * BLOCK_S + o_s
            ok = j_ok[:, None] & (u < s)[None, :]
            weight_c = tl.load(p_w_other + j[:, None] * s + u[None, :], mask=ok, other=0.0)
            column_at = tl.load(p_other_win + pair[:, None] * s + u[None, :], mask=ok, other=0).to(tl.int32)
            column_share = weight_c * to_column[:, None]
            share = tl.where(row_at[:, :, None] == u[None, None, :], row_share[:, :, None], 0.0)
            share += tl.where(column_at[None, :, :] == token[:, None, None], column_share[None, :, :], 0.0)
            share = tl.reshape(share, [BLOCK_N, ITEMS * BLOCK_S])
            column = tile * BLOCK_S + o_column % BLOCK_S
            column_ok = (item < partners) & (column < s)
            real = tl.load(p_w_other + item * s + column, mask=column_ok, other=0.0) > 0
            b_y = tl.load(
                p_other + (item * other_item + column * other_token)[:, None] + o_d[None, :],
                mask=(column_ok & real)[:, None] & (o_d < d)[None, :], other=0.0,
            )  # fmt: skip
            acc = tl.dot(rounded(share, b_y.dtype), upcast(b_y), acc, input_precision=PRECISION)
    tl.store(
        p_out + (i * n + token)[:, None] * d + o_d[None, :],
        (acc * norm).to(p_out.dtype.element_ty),
        mask=token_ok[:, None] & (o_d < d)[None, :],
    )


def _rows_contiguous(tokens: Tensor) -> Tensor:
    return tokens if tokens.stride(-1) == 1 else tokens.contiguous()


def max_similarity_triton(x: Tensor, y: Tensor, x_weight: Tensor, y_weight: Tensor, save: bool) -> Scores:
    """Launch the forward; memory beyond inputs and outputs: none."""
    (a, n, d), (b, s, _) = x.shape, y.shape
    x, y = _rows_contiguous(x), _rows_contiguous(y)
    x_weight, y_weight = x_weight.float().contiguous(), y_weight.float().contiguous()
    dtype, integer = score_dtype(x.dtype), winner_dtype(n, s)
    x_to_y, y_to_x = (torch.empty(a, b, dtype=dtype, device=x.device) for _ in range(2))
    kept = (a, b) if save else (0, 0)
    x_winner, y_winner = (torch.empty(*kept, size, dtype=integer, device=x.device) for size in (n, s))
    tile = tile_of("fwd", x.dtype, n, s, d)
    _max_similarity_fwd_kernel[(a, triton.cdiv(b, tile.items))](
        x, y, x_weight, y_weight, x_to_y, y_to_x, x_winner, y_winner,
        b, n, s, d, x.stride(0), x.stride(1), y.stride(0), y.stride(1),
        SAVE=save, **tile.constants(), num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return Scores(x_to_y, y_to_x, x_winner, y_winner)


def _one_side(
    g_own: Tensor, g_other: Tensor, own: Tensor, other: Tensor, w_own: Tensor, w_other: Tensor,
    own_winner: Tensor, other_winner: Tensor, norm: Tensor, tile: Tile,
) -> Tensor:  # fmt: skip
    """Gradient of one side; every [own, other] argument is a view with the own item first."""
    (a, n, d), (b, s, _) = own.shape, other.shape
    out = torch.empty(a, n, d, dtype=own.dtype, device=own.device)
    grid = (a, triton.cdiv(n, tile.block_n), triton.cdiv(d, tile.block_d))
    _max_similarity_bwd_kernel[grid](
        g_own, g_other, w_own, w_other, other, own_winner, other_winner, norm, out,
        b, n, s, d, g_own.stride(0), g_own.stride(1), own_winner.stride(0) // n, own_winner.stride(1) // n,
        other.stride(0), other.stride(1), **tile.constants(), num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return out


def max_similarity_triton_backward(
    g_xy: Tensor, g_yx: Tensor, x: Tensor, y: Tensor, x_weight: Tensor, y_weight: Tensor,
    x_winner: Tensor, y_winner: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Both gradients. Score gradients are divided by their largest on the way in: 16-bit tiles do not underflow."""
    x, y = _rows_contiguous(x), _rows_contiguous(y)
    x_weight, y_weight = x_weight.float().contiguous(), y_weight.float().contiguous()
    g_xy, g_yx = g_xy.float().contiguous(), g_yx.float().contiguous()
    norm = torch.maximum(g_xy.abs().amax(), g_yx.abs().amax()).clamp_min(1e-30)
    (_, n, d), s = x.shape, y.shape[1]
    g_x = _one_side(g_xy, g_yx, x, y, x_weight, y_weight, x_winner, y_winner, norm, tile_of("bwd", x.dtype, n, s, d))
    g_y = _one_side(
        g_yx.T, g_xy.T, y, x, y_weight, x_weight, y_winner.transpose(0, 1), x_winner.transpose(0, 1), norm,
        tile_of("bwd", x.dtype, s, n, d),
    )  # fmt: skip
    return g_x, g_y
