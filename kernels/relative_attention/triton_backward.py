"""K5 in Triton, backward: rows stationary for dQ, keys stationary for dK and dV, distances stationary for the table.

All three rebuild the scores tile by tile. The table's gradient is written per batch and head and then summed: no
atomics, so runs repeat bitwise; its partial sums take b h s d floats, linear in the length.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.relative_attention.tiles import launch_options
from kernels.relative_attention.triton import first_key, load_window, prepared, strides
from kernels.tiles import LOG2E, power_of_two, rounded, upcast


@triton.jit
def _relative_bwd_dq_kernel(
    p_q, p_k, p_v, p_table, p_keep, p_start, p_g, p_lse, p_delta, p_gq,
    scale, heads, group, n, s, d, e, r, local,
    q_b, q_h, q_n, k_b, k_h, k_s, v_b, v_h, v_s, t_h, t_r,
    KEEP: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """dQ = scale dS (K + table rows): dS is turned back onto distances; `near` waits for the next tile's `far`."""
    m0 = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK
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
    row = (batch * heads + head) * n + m0 + o_m
    b_q = upcast(tl.load(
        p_q + batch * q_b + head * q_h + (m0 + o_m)[:, None] * q_n + o_d[None, :],
        mask=row_ok[:, None] & (o_d < d)[None, :], other=0.0,
    ))  # fmt: skip
    b_g = upcast(tl.load(p_g + row[:, None] * e + o_e[None, :], mask=row_ok[:, None] & (o_e < e)[None, :], other=0.0))
    lse = tl.load(p_lse + row, mask=row_ok, other=0.0)
    lse = tl.where(lse == float("-inf"), 0.0, lse) * LOG2E
    delta = tl.load(p_delta + row, mask=row_ok, other=0.0)
    p_window = p_table + head * t_h
    turn = (o_m[:, None] - o_n[None, :] - 1) & (BLOCK - 1)
    is_near = o_n[None, :] >= o_m[:, None]
    begin = first_key(p0, local)
    stop = tl.minimum(s, p0 + tl.minimum(n - m0, BLOCK))
    far_window = load_window(p_window, p0 - begin + 1 + o_n, r, t_r, o_d, d)
    far = tl.dot(b_q, tl.trans(far_window), input_precision="ieee")
    waiting = tl.zeros([BLOCK, BLOCK], tl.float32)
    g_q = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    for n0 in range(begin, stop, BLOCK):
        at = n0 + o_n
        real = at < stop
        if KEEP:
            real = real & (tl.load(p_keep + batch * s + at, mask=real, other=0) != 0)
        b_k = tl.load(
            p_k + batch * k_b + key_head * k_h + at[:, None].to(tl.int64) * k_s + o_d[None, :],
            mask=real[:, None] & (o_d < d)[None, :], other=0.0,
        )  # fmt: skip
        b_v = upcast(tl.load(
            p_v + batch * v_b + key_head * v_h + at[None, :].to(tl.int64) * v_s + o_e[:, None],
            mask=real[None, :] & (o_e < e)[:, None], other=0.0,
        ))  # fmt: skip
        window = load_window(p_window, p0 - n0 - (BLOCK - 1) + o_n, r, t_r, o_d, d)
        near = tl.dot(b_q, tl.trans(window), input_precision="ieee")
        relative = tl.gather(tl.where(is_near, near, far), turn, 1)
        scores = (tl.dot(b_q, tl.trans(upcast(b_k)), input_precision="ieee") + relative) * (scale * LOG2E)
        allowed = real[None, :] & (at[None, :] <= position[:, None]) & (at[None, :] >= low[:, None])
        p = tl.exp2(tl.where(allowed, scores - lse[:, None], float("-inf")))
        g_s = p * (tl.dot(b_g, b_v, input_precision="ieee") - delta[:, None])
        g_q = tl.dot(rounded(g_s, b_k.dtype), upcast(b_k), g_q, input_precision="ieee")
        turned = tl.gather(g_s, turn, 1)
        onto_far = rounded(waiting + tl.where(is_near, 0.0, turned), b_k.dtype)
        g_q = tl.dot(onto_far, load_window(p_window, p0 - n0 + 1 + o_n, r, t_r, o_d, d), g_q, input_precision="ieee")
        waiting = tl.where(is_near, turned, 0.0)
        far = near
    last = begin + (tl.maximum(stop - begin, 1) - 1) // BLOCK * BLOCK
    window = load_window(p_window, p0 - last - (BLOCK - 1) + o_n, r, t_r, o_d, d)
    g_q = tl.dot(rounded(waiting, p_gq.dtype.element_ty), window, g_q, input_precision="ieee") * scale
    tl.store(
        p_gq + row[:, None] * d + o_d[None, :],
        g_q.to(p_gq.dtype.element_ty), mask=row_ok[:, None] & (o_d < d)[None, :],
    )  # fmt: skip


@triton.jit
def _relative_bwd_dkv_kernel(
    p_q, p_k, p_v, p_table, p_keep, p_start, p_g, p_lse, p_delta, p_gk, p_gv,
    scale, heads, group, n, s, d, e, r, local,
    q_b, q_h, q_n, k_b, k_h, k_s, v_b, v_h, v_s, t_h, t_r,
    KEEP: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """dK = scale dS^T Q and dV = P^T dO of one tile of keys, over all query heads that share the key head."""
    n0 = tl.program_id(0) * BLOCK
    key_heads = heads // group
    batch = (tl.program_id(1) // key_heads).to(tl.int64)
    key_head = (tl.program_id(1) % key_heads).to(tl.int64)
    o_m = tl.arange(0, BLOCK)
    o_n = tl.arange(0, BLOCK)
    o_d = tl.arange(0, BLOCK_D)
    o_e = tl.arange(0, BLOCK_E)
    start = tl.load(p_start + batch).to(tl.int32)
    at = n0 + o_n
    inside = at < s
    real = inside & (at < start + n)
    if KEEP:
        real = real & (tl.load(p_keep + batch * s + at, mask=real, other=0) != 0)
    b_k = upcast(tl.load(
        p_k + batch * k_b + key_head * k_h + at[:, None].to(tl.int64) * k_s + o_d[None, :],
        mask=real[:, None] & (o_d < d)[None, :], other=0.0,
    ))  # fmt: skip
    b_v = upcast(tl.load(
        p_v + batch * v_b + key_head * v_h + at[:, None].to(tl.int64) * v_s + o_e[None, :],
        mask=real[:, None] & (o_e < e)[None, :], other=0.0,
    ))  # fmt: skip
    turn = (o_m[:, None] - o_n[None, :] - 1) & (BLOCK - 1)
    is_near = o_n[None, :] >= o_m[:, None]
    begin = tl.maximum(n0 - start, 0) // BLOCK * BLOCK
    stop = n
    if local > 0:
        stop = tl.minimum(n, ((n0 + BLOCK - 1) // tl.maximum(local, 1) + 2) * local - start)
    g_k = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    g_v = tl.zeros([BLOCK, BLOCK_E], tl.float32)
    for member in range(0, group):
        head = key_head * group + member
        for m0 in range(begin, stop, BLOCK):
            p0 = start + m0
            row_ok = m0 + o_m < n
            position = p0 + o_m
            row = (batch * heads + head) * n + m0 + o_m
            b_q = tl.load(
                p_q + batch * q_b + head * q_h + (m0 + o_m)[:, None] * q_n + o_d[None, :],
                mask=row_ok[:, None] & (o_d < d)[None, :], other=0.0,
            )  # fmt: skip
            b_g = tl.load(p_g + row[:, None] * e + o_e[None, :], mask=row_ok[:, None] & (o_e < e)[None, :], other=0.0)
            lse = tl.load(p_lse + row, mask=row_ok, other=0.0)
            lse = tl.where(lse == float("-inf"), 0.0, lse) * LOG2E
            delta = tl.load(p_delta + row, mask=row_ok, other=0.0)
            p_window = p_table + head * t_h
            window = load_window(p_window, p0 - n0 - (BLOCK - 1) + o_n, r, t_r, o_d, d)
            near = tl.dot(upcast(b_q), tl.trans(window), input_precision="ieee")
            window = load_window(p_window, p0 - n0 + 1 + o_n, r, t_r, o_d, d)
            far = tl.dot(upcast(b_q), tl.trans(window), input_precision="ieee")
            relative = tl.gather(tl.where(is_near, near, far), turn, 1)
            scores = (tl.dot(upcast(b_q), tl.trans(b_k), input_precision="ieee") + relative) * (scale * LOG2E)
            low = first_key(position, local)
            allowed = (real[None, :] & row_ok[:, None]) & (at[None, :] <= position[:, None])
            allowed = allowed & (at[None, :] >= low[:, None])
            p = tl.exp2(tl.where(allowed, scores - lse[:, None], float("-inf")))
            g_v = tl.dot(tl.trans(rounded(p, b_g.dtype)), upcast(b_g), g_v, input_precision="ieee")
            g_s = p * (tl.dot(upcast(b_g), tl.trans(b_v), input_precision="ieee") - delta[:, None])
            g_k = tl.dot(tl.trans(rounded(g_s, b_q.dtype)), upcast(b_q), g_k, input_precision="ieee")
    place = (batch * key_heads + key_head) * s + at
    tl.store(
        p_gk + place[:, None] * d + o_d[None, :],
        (g_k * scale).to(p_gk.dtype.element_ty), mask=inside[:, None] & (o_d < d)[None, :],
    )  # fmt: skip
    tl.store(
        p_gv + place[:, None] * e + o_e[None, :],
        g_v.to(p_gv.dtype.element_ty), mask=inside[:, None] & (o_e < e)[None, :],
    )  # fmt: skip


@triton.jit
def _relative_bwd_table_kernel(
    p_q, p_k, p_v, p_table, p_keep, p_start, p_g, p_lse, p_delta, p_part,
    scale, heads, group, n, s, d, e, r, local,
    q_b, q_h, q_n, k_b, k_h, k_s, v_b, v_h, v_s, t_h, t_r,
    KEEP: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """Gradient of one window of distances: the pairs (row, distance) of a row tile lie in two key tiles."""
    base = tl.program_id(0) * BLOCK
    batch = (tl.program_id(1) // heads).to(tl.int64)
    head = (tl.program_id(1) % heads).to(tl.int64)
    key_head = head // group
    o_m = tl.arange(0, BLOCK)
    o_n = tl.arange(0, BLOCK)
    o_d = tl.arange(0, BLOCK_D)
    o_e = tl.arange(0, BLOCK_E)
    start = tl.load(p_start + batch).to(tl.int32)
    distance = base + o_n
    window = load_window(p_table + head * t_h, distance, r, t_r, o_d, d)
    turn = (o_m[:, None] - o_n[None, :] - 1) & (BLOCK - 1)
    is_near = o_n[None, :] >= o_m[:, None]
    g_table = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    begin = tl.maximum(base - start - (BLOCK - 1), 0) // BLOCK * BLOCK
    for m0 in range(begin, n, BLOCK):
        p0 = start + m0
        row_ok = m0 + o_m < n
        position = p0 + o_m
        row = (batch * heads + head) * n + m0 + o_m
        b_q = tl.load(
            p_q + batch * q_b + head * q_h + (m0 + o_m)[:, None] * q_n + o_d[None, :],
            mask=row_ok[:, None] & (o_d < d)[None, :], other=0.0,
        )  # fmt: skip
        b_g = upcast(
            tl.load(p_g + row[:, None] * e + o_e[None, :], mask=row_ok[:, None] & (o_e < e)[None, :], other=0.0)
        )
        lse = tl.load(p_lse + row, mask=row_ok, other=0.0)
        lse = tl.where(lse == float("-inf"), 0.0, lse) * LOG2E
        delta = tl.load(p_delta + row, mask=row_ok, other=0.0)
        near_at = p0 - base - (BLOCK - 1) + o_n
        far_at = near_at + BLOCK
        p_keys = p_k + batch * k_b + key_head * k_h + o_d[:, None]
        p_values = p_v + batch * v_b + key_head * v_h + o_e[:, None]
        near_ok = (near_at >= 0) & (near_at < start + n)
        far_ok = (far_at >= 0) & (far_at < start + n)
        if KEEP:
            near_ok = near_ok & (tl.load(p_keep + batch * s + near_at, mask=near_ok, other=0) != 0)
            far_ok = far_ok & (tl.load(p_keep + batch * s + far_at, mask=far_ok, other=0) != 0)
        d_ok = (o_d < d)[:, None]
        e_ok = (o_e < e)[:, None]
        near = tl.dot(upcast(b_q), upcast(
            tl.load(p_keys + near_at[None, :].to(tl.int64) * k_s, mask=near_ok[None, :] & d_ok, other=0.0)
        ), input_precision="ieee")  # fmt: skip
        far = tl.dot(upcast(b_q), upcast(
            tl.load(p_keys + far_at[None, :].to(tl.int64) * k_s, mask=far_ok[None, :] & d_ok, other=0.0)
        ), input_precision="ieee")  # fmt: skip
        scores = tl.gather(tl.where(is_near, near, far), turn, 1)
        scores = (scores + tl.dot(upcast(b_q), tl.trans(window), input_precision="ieee")) * (scale * LOG2E)
        near = tl.dot(b_g, upcast(
            tl.load(p_values + near_at[None, :].to(tl.int64) * v_s, mask=near_ok[None, :] & e_ok, other=0.0)
        ), input_precision="ieee")  # fmt: skip
        far = tl.dot(b_g, upcast(
            tl.load(p_values + far_at[None, :].to(tl.int64) * v_s, mask=far_ok[None, :] & e_ok, other=0.0)
        ), input_precision="ieee")  # fmt: skip
        g_p = tl.gather(tl.where(is_near, near, far), turn, 1)
        key = position[:, None] - distance[None, :]
        allowed = row_ok[:, None] & (key >= first_key(position, local)[:, None])
        if KEEP:
            allowed = allowed & (tl.load(p_keep + batch * s + key, mask=allowed, other=0) != 0)
        p = tl.exp2(tl.where(allowed, scores - lse[:, None], float("-inf")))
        g_s = rounded(p * (g_p - delta[:, None]), b_q.dtype)
        g_table = tl.dot(tl.trans(g_s), upcast(b_q), g_table, input_precision="ieee")
    place = (batch * heads + head) * s + distance
    tl.store(
        p_part + place[:, None] * d + o_d[None, :], g_table * scale, mask=(distance < s)[:, None] & (o_d < d)[None, :]
    )


def relative_attention_triton_backward(
    g_out: Tensor, delta: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor, keep: Tensor | None,
    start: Tensor, lse: Tensor, local: int, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Launch the three kernels and sum the table's parts."""
    (q, k, v, table), bytes_keep = prepared(q, k, v, table, keep)
    (b, h, n, d), (_, j, s, e), r = q.shape, v.shape, table.shape[1]
    g_out, delta, lse = g_out.contiguous(), delta.contiguous(), lse.contiguous()
    g_q, g_k, g_v = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    part = torch.empty(b, h, s, d, dtype=torch.float32, device=q.device)
    inputs = q, k, v, table, bytes_keep, start, g_out, lse, delta
    sizes = scale, h, h // j, n, s, d, e, r, local, *strides(q, k, v, table)
    shape = {"KEEP": keep is not None, "BLOCK_D": power_of_two(d), "BLOCK_E": power_of_two(e)}
    dq, dkv, window = (launch_options(kernel, q.dtype, max(d, e)) for kernel in ("dq", "dkv", "table"))
    _relative_bwd_dq_kernel[(triton.cdiv(n, dq["BLOCK"]), b * h)](*inputs, g_q, *sizes, **shape, **dq)
    _relative_bwd_dkv_kernel[(triton.cdiv(s, dkv["BLOCK"]), b * j)](*inputs, g_k, g_v, *sizes, **shape, **dkv)
    _relative_bwd_table_kernel[(triton.cdiv(s, window["BLOCK"]), b * h)](*inputs, part, *sizes, **shape, **window)
    per_head = part.sum(0) if table.shape[0] > 1 else part.sum((0, 1))[None]
    g_table = torch.zeros(table.shape, dtype=torch.float32, device=q.device)
    g_table[:, : min(r, s)] = per_head[:, :r]
    if s > r:
        g_table[:, r - 1] += per_head[:, r:].sum(1)
    return g_q, g_k, g_v, g_table.to(table.dtype)
