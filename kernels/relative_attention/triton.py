"""K5 in Triton, forward and decode step.

For a square tile of rows p0.. and keys n0.. the distances fall into two windows of the table, `near` below p0 - n0 + 1
and `far` above. Entry (m, n) needs distance column c = (m - n - 1) mod BLOCK, of `near` when n >= m, else of `far`; so
the two products Q near^T and Q far^T are first merged (near where c >= m) and then gathered along the row. The next key
tile's `far` is this tile's `near`: its product is kept, and a tile costs three products. Memory: linear in the length.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.relative_attention.tiles import launch_options
from kernels.tiles import LN2, LOG2E, power_of_two, rounded, upcast

STEP = 4  # queries up to which the decode kernel is used


@triton.jit
def first_key(position, local):
    """First key that a query may read under relative-local attention; 0 when local is 0."""
    return tl.where(local > 0, tl.maximum((position // tl.maximum(local, 1) - 1) * local, 0), 0)


@triton.jit
def load_window(p_table, distance, r, t_r, o_d, d):
    """Rows of the table for a window of distances, [BLOCK, D]; beyond the table its last row, before it the first."""
    row = tl.minimum(tl.maximum(distance, 0), r - 1)
    return upcast(tl.load(p_table + row[:, None] * t_r + o_d[None, :], mask=(o_d < d)[None, :], other=0.0))


@triton.jit
def _relative_fwd_kernel(
    p_q, p_k, p_v, p_table, p_keep, p_start, p_out, p_lse,
    scale, heads, group, n, s, d, e, r, local,
    q_b, q_h, q_n, k_b, k_h, k_s, v_b, v_h, v_s, t_h, t_r,
    KEEP: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    m0 = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK  # the longest rows first
    batch = (tl.program_id(1) // heads).to(tl.int64)
    head = (tl.program_id(1) % heads).to(tl.int64)
    key_head = head // group
    o_m = tl.arange(0, BLOCK)
    o_n = tl.arange(0, BLOCK)
    o_d = tl.arange(0, BLOCK_D)
    o_e = tl.arange(0, BLOCK_E)
    p0 = tl.load(p_start + batch).to(tl.int32) + m0
    row_ok = m0 + o_m < n
    position = p0 + o_m
    low = first_key(position, local)
    b_q = upcast(tl.load(
        p_q + batch * q_b + head * q_h + (m0 + o_m)[:, None] * q_n + o_d[None, :],
        mask=row_ok[:, None] & (o_d < d)[None, :], other=0.0,
    ))  # fmt: skip
    p_window = p_table + head * t_h
    turn = (o_m[:, None] - o_n[None, :] - 1) & (BLOCK - 1)
    begin = first_key(p0, local)
    stop = tl.minimum(s, p0 + tl.minimum(n - m0, BLOCK))
    far = tl.dot(b_q, tl.trans(load_window(p_window, p0 - begin + 1 + o_n, r, t_r, o_d, d)), input_precision="ieee")
    top = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    acc = tl.zeros([BLOCK, BLOCK_E], tl.float32)
    for n0 in range(begin, stop, BLOCK):
        at = n0 + o_n
        real = at < stop
        if KEEP:
            real = real & (tl.load(p_keep + batch * s + at, mask=real, other=0) != 0)
        b_k = tl.load(
            p_k + batch * k_b + key_head * k_h + at[None, :].to(tl.int64) * k_s + o_d[:, None],
            mask=real[None, :] & (o_d < d)[:, None], other=0.0,
        )  # fmt: skip
        b_v = tl.load(
            p_v + batch * v_b + key_head * v_h + at[:, None].to(tl.int64) * v_s + o_e[None, :],
            mask=real[:, None] & (o_e < e)[None, :], other=0.0,
        )  # fmt: skip
        window = load_window(p_window, p0 - n0 - (BLOCK - 1) + o_n, r, t_r, o_d, d)
        near = tl.dot(b_q, tl.trans(window), input_precision="ieee")
        relative = tl.gather(tl.where(o_n[None, :] >= o_m[:, None], near, far), turn, 1)
        far = near
        scores = (tl.dot(b_q, upcast(b_k), input_precision="ieee") + relative) * (scale * LOG2E)
        allowed = real[None, :] & (at[None, :] <= position[:, None]) & (at[None, :] >= low[:, None])
        scores = tl.where(allowed, scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        safe = tl.where(higher == float("-inf"), 0.0, higher)
        fade = tl.exp2(top - safe)
        p = tl.exp2(scores - safe[:, None])
        total = total * fade + tl.sum(p, 1)
        acc = tl.dot(rounded(p, b_v.dtype), upcast(b_v), acc * fade[:, None], input_precision="ieee")
        top = higher
    some = total > 0
    divisor = tl.where(some, total, 1.0)
    lse = tl.where(some, (tl.where(some, top, 0.0) + tl.log2(divisor)) * LN2, float("-inf"))
    row = (batch * heads + head) * n + m0 + o_m
    tl.store(p_lse + row, lse, mask=row_ok)
    tl.store(
        p_out + row[:, None] * e + o_e[None, :],
        (acc / divisor[:, None]).to(p_out.dtype.element_ty), mask=row_ok[:, None] & (o_e < e)[None, :],
    )  # fmt: skip


@triton.jit
def _relative_step_kernel(
    p_q, p_k, p_v, p_table, p_keep, p_start, p_out, p_lse,
    scale, heads, group, n, s, d, e, r, local,
    q_b, q_h, q_n, k_b, k_h, k_s, v_b, v_h, v_s, t_h, t_r,
    KEEP: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """One query a program: keys and table rows are added before the product, nothing needs skewing."""
    m = tl.program_id(0)
    batch = (tl.program_id(1) // heads).to(tl.int64)
    head = (tl.program_id(1) % heads).to(tl.int64)
    key_head = head // group
    o_n = tl.arange(0, BLOCK)
    o_d = tl.arange(0, BLOCK_D)
    o_e = tl.arange(0, BLOCK_E)
    position = tl.load(p_start + batch).to(tl.int32) + m
    b_q = upcast(tl.load(p_q + batch * q_b + head * q_h + m * q_n + o_d, mask=o_d < d, other=0.0)).to(tl.float32)
    top = tl.full([1], float("-inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    acc = tl.zeros([BLOCK_E], tl.float32)
    for n0 in range(first_key(position, local), position + 1, BLOCK):
        at = n0 + o_n
        real = at <= position
        if KEEP:
            real = real & (tl.load(p_keep + batch * s + at, mask=real, other=0) != 0)
        b_k = upcast(tl.load(
            p_k + batch * k_b + key_head * k_h + at[:, None].to(tl.int64) * k_s + o_d[None, :],
            mask=real[:, None] & (o_d < d)[None, :], other=0.0,
        )).to(tl.float32)  # fmt: skip
        b_v = upcast(tl.load(
            p_v + batch * v_b + key_head * v_h + at[:, None].to(tl.int64) * v_s + o_e[None, :],
            mask=real[:, None] & (o_e < e)[None, :], other=0.0,
        )).to(tl.float32)  # fmt: skip
        b_k += load_window(p_table + head * t_h, position - at, r, t_r, o_d, d).to(tl.float32)
        scores = tl.where(real, tl.sum(b_k * b_q[None, :], 1) * (scale * LOG2E), float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 0))
        safe = tl.where(higher == float("-inf"), 0.0, higher)
        fade = tl.exp2(top - safe)
        p = tl.exp2(scores - safe)
        total = total * fade + tl.sum(p, 0)
        acc = acc * fade + tl.sum(p[:, None] * b_v, 0)
        top = higher
    some = total > 0
    divisor = tl.where(some, total, 1.0)
    row = (batch * heads + head) * n + m
    lse = tl.where(some, (tl.where(some, top, 0.0) + tl.log2(divisor)) * LN2, float("-inf"))
    tl.store(p_lse + row + tl.arange(0, 1), lse)
    tl.store(p_out + row * e + o_e, (acc / divisor).to(p_out.dtype.element_ty), mask=o_e < e)


def prepared(q: Tensor, k: Tensor, v: Tensor, table: Tensor, keep: Tensor | None) -> tuple[list[Tensor], Tensor]:
    """Inputs with a contiguous last dimension, and the mask as bytes (a placeholder when there is none)."""
    tensors = [x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v, table)]
    return tensors, q.new_empty(1, dtype=torch.uint8) if keep is None else keep.contiguous().view(torch.uint8)


def strides(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> tuple[int, ...]:
    """Strides of batch, head and token, and the table's of head (0 when shared) and row."""
    shared = table.stride(0) if table.shape[0] > 1 else 0
    return (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], shared, table.stride(1))


def relative_attention_triton(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, keep: Tensor | None, start: Tensor, local: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Launch the forward, or the decode step for at most STEP queries."""
    (q, k, v, table), bytes_keep = prepared(q, k, v, table, keep)
    (b, h, n, d), (_, j, s, e) = q.shape, v.shape
    out = torch.empty(b, h, n, e, dtype=q.dtype, device=q.device)
    lse = torch.empty(b, h, n, dtype=torch.float32, device=q.device)
    step = n <= STEP
    options = launch_options("step" if step else "fwd", q.dtype, max(d, e))
    kernel = _relative_step_kernel if step else _relative_fwd_kernel
    kernel[(n if step else triton.cdiv(n, options["BLOCK"]), b * h)](
        q, k, v, table, bytes_keep, start, out, lse,
        scale, h, h // j, n, s, d, e, table.shape[1], local, *strides(q, k, v, table),
        KEEP=keep is not None, BLOCK_D=power_of_two(d), BLOCK_E=power_of_two(e), **options,
    )  # fmt: skip
    return out, lse
