"""K3 in Triton: the keys of all bags are cut into pieces of equal length, one program a piece.

A long bag gets more programs. Every program finds its bag by counting the bags that end before its piece. It holds all
query rows of one key head (query heads that share the head included) and returns a running maximum, a sum and an
unnormalised output; a second kernel merges the pieces of a bag. Backward: one program a piece writes its keys'
gradients and a partial query gradient. No atomics.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.split_keys.tiles import Tile, merge_tile, split_tile
from kernels.tiles import LN2, LOG2E, power_of_two, rounded, upcast


@triton.jit
def _bag_of_piece(p_first, piece, b, BAGS: tl.constexpr):
    """The bag that a piece belongs to: how many bags have all their pieces before it."""
    o_bag = tl.arange(0, BAGS)
    last = tl.load(p_first + 1 + o_bag, mask=o_bag < b, other=2147483647)
    return tl.sum((last <= piece).to(tl.int32), 0)


@triton.jit
def _split_keys_fwd_kernel(
    p_q, p_k, p_v, p_first, p_starts, p_lengths, p_top, p_total, p_acc, p_scores,
    scale, b, n, rows, d, e, length,
    q_b, q_h, q_n, k_b, k_h, k_s, v_b, v_h, v_s, w_b, w_h, w_n,
    WEIGHTS: tl.constexpr, BAGS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    piece = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    heads = tl.num_programs(1)
    bag = _bag_of_piece(p_first, piece, b, BAGS).to(tl.int64)
    if bag < b:
        begin = tl.load(p_starts + bag).to(tl.int64)
        stop = begin + tl.load(p_lengths + bag)
        begin += (piece - tl.load(p_first + bag)).to(tl.int64) * length
        stop = tl.minimum(stop, begin + length)
        o_r = tl.arange(0, BLOCK_R)
        o_s = tl.arange(0, BLOCK_S)
        o_d = tl.arange(0, BLOCK_D)
        o_e = tl.arange(0, BLOCK_E)
        row_ok = o_r < rows
        q_head = head * (rows // n) + o_r // n
        b_q = tl.load(
            p_q + bag * q_b + (q_head * q_h + (o_r % n) * q_n)[:, None] + o_d[None, :],
            mask=row_ok[:, None] & (o_d < d)[None, :], other=0.0,
        )  # fmt: skip
        b_q = upcast(b_q)
        top = tl.full([BLOCK_R], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_R], tl.float32)
        acc = tl.zeros([BLOCK_R, BLOCK_E], tl.float32)
        for s0 in range(begin, stop, BLOCK_S):
            at = s0 + o_s
            ok = at < stop
            b_k = tl.load(
                p_k + bag * k_b + head * k_h + at[None, :] * k_s + o_d[:, None],
                mask=ok[None, :] & (o_d < d)[:, None], other=0.0,
            )  # fmt: skip
            b_v = tl.load(
                p_v + bag * v_b + head * v_h + at[:, None] * v_s + o_e[None, :],
                mask=ok[:, None] & (o_e < e)[None, :], other=0.0,
            )  # fmt: skip
            scores = tl.dot(b_q, upcast(b_k), input_precision="ieee") * (scale * LOG2E)
            scores = tl.where(ok[None, :], scores, float("-inf"))
            if WEIGHTS:
                p_row = p_scores + bag * w_b + (q_head * w_h + (o_r % n) * w_n)[:, None] + at[None, :]
                tl.store(p_row, scores, mask=row_ok[:, None] & ok[None, :])
            higher = tl.maximum(top, tl.max(scores, 1))
            fade = tl.exp2(top - higher)
            p = tl.exp2(scores - higher[:, None])
            total = total * fade + tl.sum(p, 1)
            acc = acc * fade[:, None]
            acc = tl.dot(rounded(p, b_v.dtype), upcast(b_v), acc, input_precision="ieee")
            top = higher
        place = (piece.to(tl.int64) * heads + head) * rows + o_r
        tl.store(p_top + place, top, mask=row_ok)
        tl.store(p_total + place, total, mask=row_ok)
        tl.store(p_acc + place[:, None] * e + o_e[None, :], acc, mask=row_ok[:, None] & (o_e < e)[None, :])


@triton.jit
def _split_keys_merge_kernel(
    p_first, p_top, p_total, p_acc, p_out, p_lse, heads, rows, e,
    SOFTMAX: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """Merge the pieces of one row: by maxima when SOFTMAX, else their plain sum."""
    bag = tl.program_id(0).to(tl.int64)
    head_row = tl.program_id(1)
    o_e = tl.program_id(2) * BLOCK_E + tl.arange(0, BLOCK_E)
    first = tl.load(p_first + bag)
    last = tl.load(p_first + bag + 1)
    o_p = tl.arange(0, BLOCK_P)
    width = heads * rows
    top = tl.full([1], float("-inf"), tl.float32)
    if SOFTMAX:
        for piece in range(first, last, BLOCK_P):
            at = piece + o_p
            tops = tl.load(p_top + at.to(tl.int64) * width + head_row, mask=at < last, other=float("-inf"))
            top = tl.maximum(top, tl.max(tops, 0))
    total = tl.zeros([1], tl.float32)
    acc = tl.zeros([BLOCK_E], tl.float32)
    for piece in range(first, last, BLOCK_P):
        at = piece + o_p
        place = at.to(tl.int64) * width + head_row
        part = tl.load(
            p_acc + place[:, None] * e + o_e[None, :], mask=(at < last)[:, None] & (o_e < e)[None, :], other=0.0
        )
        if SOFTMAX:
            fade = tl.exp2(tl.load(p_top + place, mask=at < last, other=float("-inf")) - top)
            total += tl.sum(tl.load(p_total + place, mask=at < last, other=0.0) * fade, 0)
            part = part * fade[:, None]
        acc += tl.sum(part, 0)
    p_row = p_out + (bag * width + head_row) * e + o_e
    if SOFTMAX:
        some = total > 0
        acc = acc / tl.where(some, total, 1.0)
        lse = tl.where(some, (tl.where(some, top, 0.0) + tl.log2(tl.where(some, total, 1.0))) * LN2, float("-inf"))
        one = tl.arange(0, 1)
        tl.store(p_lse + bag * width + head_row + one, lse, mask=one + tl.program_id(2) == 0)
    tl.store(p_row, acc.to(p_out.dtype.element_ty), mask=o_e < e)


@triton.jit
def _split_keys_weights_kernel(
    p_scores, p_lse, p_first, p_starts, p_lengths, b, n, rows, length, w_b, w_h, w_n,
    BAGS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Turn the raw scores of one piece into weights, in place."""
    piece = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    bag = _bag_of_piece(p_first, piece, b, BAGS).to(tl.int64)
    if bag < b:
        begin = tl.load(p_starts + bag).to(tl.int64)
        stop = begin + tl.load(p_lengths + bag)
        begin += (piece - tl.load(p_first + bag)).to(tl.int64) * length
        stop = tl.minimum(stop, begin + length)
        o_r = tl.arange(0, BLOCK_R)
        row_ok = o_r < rows
        q_head = head * (rows // n) + o_r // n
        lse = tl.load(p_lse + (bag * tl.num_programs(1) + head) * rows + o_r, mask=row_ok, other=0.0) * LOG2E
        for s0 in range(begin, stop, BLOCK_S):
            at = s0 + tl.arange(0, BLOCK_S)
            p_row = p_scores + bag * w_b + (q_head * w_h + (o_r % n) * w_n)[:, None] + at[None, :]
            ok = row_ok[:, None] & (at < stop)[None, :]
            tl.store(p_row, tl.exp2(tl.load(p_row, mask=ok, other=float("-inf")) - lse[:, None]), mask=ok)


@triton.jit
def _split_keys_bwd_kernel(
    p_q, p_k, p_v, p_g, p_gw, p_lse, p_delta, p_first, p_starts, p_lengths, p_gq, p_gk, p_gv,
    scale, b, n, rows, d, e, length,
    q_b, q_h, q_n, k_b, k_h, k_s, v_b, v_h, v_s, w_b, w_h, w_n, gk_b, gk_h, gk_s, gv_b, gv_h, gv_s,
    WEIGHTS: tl.constexpr, BAGS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    piece = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    heads = tl.num_programs(1)
    bag = _bag_of_piece(p_first, piece, b, BAGS).to(tl.int64)
    if bag < b:
        begin = tl.load(p_starts + bag).to(tl.int64)
        stop = begin + tl.load(p_lengths + bag)
        begin += (piece - tl.load(p_first + bag)).to(tl.int64) * length
        stop = tl.minimum(stop, begin + length)
        o_r = tl.arange(0, BLOCK_R)
        o_s = tl.arange(0, BLOCK_S)
        o_d = tl.arange(0, BLOCK_D)
        o_e = tl.arange(0, BLOCK_E)
        row_ok = o_r < rows
        d_ok = (o_d < d)[None, :]
        e_ok = (o_e < e)[None, :]
        q_head = head * (rows // n) + o_r // n
        row = (bag * heads + head) * rows + o_r
        p_row = p_q + bag * q_b + (q_head * q_h + (o_r % n) * q_n)[:, None]
        b_q = upcast(tl.load(p_row + o_d[None, :], mask=row_ok[:, None] & d_ok, other=0.0))
        b_g = tl.load(p_g + row[:, None] * e + o_e[None, :], mask=row_ok[:, None] & e_ok, other=0.0)
        lse = tl.load(p_lse + row, mask=row_ok, other=0.0) * LOG2E
        delta = tl.load(p_delta + row, mask=row_ok, other=0.0)
        g_q = tl.zeros([BLOCK_R, BLOCK_D], tl.float32)
        for s0 in range(begin, stop, BLOCK_S):
            at = s0 + o_s
            ok = at < stop
            p_key = p_k + bag * k_b + head * k_h + at[:, None] * k_s
            p_value = p_v + bag * v_b + head * v_h + at[:, None] * v_s
            b_k = tl.load(p_key + o_d[None, :], mask=ok[:, None] & d_ok, other=0.0)
            b_v = upcast(tl.load(p_value + o_e[None, :], mask=ok[:, None] & e_ok, other=0.0))
            scores = tl.dot(b_q, tl.trans(upcast(b_k)), input_precision="ieee") * (scale * LOG2E)
            p = tl.where(ok[None, :] & row_ok[:, None], tl.exp2(scores - lse[:, None]), 0.0)
            g_p = tl.dot(upcast(b_g), tl.trans(b_v), input_precision="ieee")
            if WEIGHTS:
                p_w = p_gw + bag * w_b + (q_head * w_h + (o_r % n) * w_n)[:, None] + at[None, :]
                g_p += tl.load(p_w, mask=row_ok[:, None] & ok[None, :], other=0.0)
            g_s = rounded(p * (g_p - delta[:, None]) * scale, b_k.dtype)
            g_v = tl.dot(tl.trans(rounded(p, b_g.dtype)), upcast(b_g), input_precision="ieee")
            tl.store(
                p_gv + bag * gv_b + head * gv_h + at[:, None] * gv_s + o_e[None, :],
                g_v.to(p_gv.dtype.element_ty), mask=ok[:, None] & e_ok,
            )  # fmt: skip
            g_k = tl.dot(tl.trans(g_s), b_q, input_precision="ieee")
            tl.store(
                p_gk + bag * gk_b + head * gk_h + at[:, None] * gk_s + o_d[None, :],
                g_k.to(p_gk.dtype.element_ty), mask=ok[:, None] & d_ok,
            )  # fmt: skip
            g_q = tl.dot(g_s, upcast(b_k), g_q, input_precision="ieee")
        place = (piece.to(tl.int64) * heads + head) * rows + o_r
        tl.store(p_gq + place[:, None] * d + o_d[None, :], g_q, mask=row_ok[:, None] & d_ok)


def _last_contiguous(*tensors: Tensor) -> list[Tensor]:
    return [x if x.stride(-1) == 1 else x.contiguous() for x in tensors]


def _own(x: Tensor) -> tuple[int, int, int]:
    """Strides of bag, head and token; one shared row of keys has bag stride 0."""
    return (x.stride(0) if x.shape[0] > 1 else 0), x.stride(1), x.stride(2)


def _pieces(b: int, k: Tensor, lengths: Tensor, piece: int) -> tuple[int, Tensor]:
    """Upper bound on the number of pieces, known without asking the device, and the first piece of every bag."""
    first = torch.zeros(b + 1, dtype=torch.int32, device=k.device)
    first[1:] = ((lengths + piece - 1) // piece).cumsum(0)
    m, _, s, _ = k.shape
    return (b * -(-s // piece) if m == b else -(-s // piece) + b), first


def split_keys_triton(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, lengths: Tensor, scale: float, piece: int, weights: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch split, merge and, when asked for, the pass that turns raw scores into weights."""
    (b, h, n, d), (m, j, s, _), e = q.shape, k.shape, v.shape[-1]
    q, k, v = _last_contiguous(q, k, v)
    rows = n * (h // j)
    tile: Tile = split_tile(q.dtype, rows, max(d, e))
    count, first = _pieces(b, k, lengths, piece)
    top, total = (torch.empty(count, j, rows, dtype=torch.float32, device=q.device) for _ in range(2))
    acc = torch.empty(count, j, rows, e, dtype=torch.float32, device=q.device)
    share = torch.zeros((m, h, n, s) if weights else (1, 1, 1, 0), dtype=torch.float32, device=q.device)
    out = torch.empty(b, h, n, e, dtype=q.dtype, device=q.device)
    lse = torch.empty(b, h, n, dtype=torch.float32, device=q.device)
    bags = power_of_two(b, 1)
    _split_keys_fwd_kernel[(count, j)](
        q, k, v, first, starts, lengths, top, total, acc, share,
        scale, b, n, rows, d, e, piece, *q.stride()[:3], *_own(k), *_own(v), *_own(share),
        WEIGHTS=weights, BAGS=bags, BLOCK_R=tile.block_r, BLOCK_S=tile.block_s,
        BLOCK_D=power_of_two(d), BLOCK_E=power_of_two(e), num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    merge = merge_tile(e)
    _split_keys_merge_kernel[(b, j * rows, triton.cdiv(e, merge.block_s))](
        first, top, total, acc, out, lse, j, rows, e,
        SOFTMAX=True, BLOCK_P=merge.block_r, BLOCK_E=merge.block_s, num_warps=merge.warps,
    )  # fmt: skip
    if weights:
        _split_keys_weights_kernel[(count, j)](
            share, lse, first, starts, lengths, b, n, rows, piece, *_own(share),
            BAGS=bags, BLOCK_R=tile.block_r, BLOCK_S=tile.block_s, num_warps=tile.warps,
        )  # fmt: skip
    return out, lse, share if weights else share.new_empty(0)


def split_keys_triton_backward(
    g_out: Tensor, g_weights: Tensor, delta: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor,
    starts: Tensor, lengths: Tensor, scale: float, piece: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Launch the backward and the sum of its partial query gradients."""
    (b, h, n, d), (_, j, _, _), e = q.shape, k.shape, v.shape[-1]
    q, k, v = _last_contiguous(q, k, v)
    g_out, lse, delta = g_out.contiguous(), lse.contiguous(), delta.contiguous()
    weights = g_weights.numel() > 0
    share = g_weights.contiguous() if weights else lse.new_empty(1, 1, 1, 0)
    rows = n * (h // j)
    tile: Tile = split_tile(q.dtype, rows, max(d, e), backward=True)
    count, first = _pieces(b, k, lengths, piece)
    g_q = torch.empty(b, h, n, d, dtype=q.dtype, device=q.device)
    g_k, g_v = (torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (k, v))
    part = torch.empty(count, j, rows, d, dtype=torch.float32, device=q.device)
    _split_keys_bwd_kernel[(count, j)](
        q, k, v, g_out, share, lse, delta, first, starts, lengths, part, g_k, g_v,
        scale, b, n, rows, d, e, piece,
        *q.stride()[:3], *_own(k), *_own(v), *_own(share), *_own(g_k), *_own(g_v),
        WEIGHTS=weights, BAGS=power_of_two(b, 1), BLOCK_R=tile.block_r, BLOCK_S=tile.block_s,
        BLOCK_D=power_of_two(d), BLOCK_E=power_of_two(e), num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    merge = merge_tile(d)
    _split_keys_merge_kernel[(b, j * rows, triton.cdiv(d, merge.block_s))](
        first, part, part, part, g_q, lse, j, rows, d,
        SOFTMAX=False, BLOCK_P=merge.block_r, BLOCK_E=merge.block_s, num_warps=merge.warps,
    )  # fmt: skip
    return g_q, g_k, g_v
