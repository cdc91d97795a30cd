"""Forward kernels: attention with row statistics in one pass, the share of each key group, and received mass.

Base 2 inside: scores are multiplied by log2(e) once, so that exp2 serves.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.attention.score_tile import dropout_factor, key_length, key_range, query_range, scored
from kernels.tiles import LN2, LOG2E, rounded, upcast


@triton.jit
def attend_forward_kernel(
    q, k, v, out, lse, entropy, peak, peak_at,
    keep, lengths, query_segment, key_segment, query_ends, key_ends, seed, bias_a, bias_b,
    q_b, q_h, q_n, k_b, k_h, k_s, v_b, v_h, v_s, o_b, o_h, o_n,
    a_b, a_h, a_q, a_k, c_b, c_h, c_q, c_k, n0, n1, n2, n3, n4, n5,
    heads, shared, n, s, d, e, scale, window, threshold, survivor_factor,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    BIAS: tl.constexpr, KEEP: tl.constexpr, LENGTHS: tl.constexpr, SEGMENTS: tl.constexpr, PACKED: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, DROPOUT: tl.constexpr, ENTROPY: tl.constexpr, PEAK: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """One tile of queries against all keys they can meet, online softmax."""
    tiles = tl.cdiv(n, BM)
    i_tile = tl.program_id(0) % tiles
    i_row = tl.program_id(0) // tiles
    i_b = i_row // heads
    i_h = i_row % heads
    o_m = i_tile * BM + tl.arange(0, BM)
    o_d = tl.arange(0, BD)
    o_e = tl.arange(0, BE)
    length = key_length(lengths, i_b, s, LENGTHS)
    shift = 0
    if CAUSAL == 2:
        shift = length - n
    q += i_b.to(tl.int64) * q_b + i_h.to(tl.int64) * q_h
    k += i_b.to(tl.int64) * k_b + (i_h // shared).to(tl.int64) * k_h
    v += i_b.to(tl.int64) * v_b + (i_h // shared).to(tl.int64) * v_h
    in_q = (o_m < n)[:, None] & (o_d < d)[None, :]
    b_q = upcast(tl.load(q + o_m.to(tl.int64)[:, None] * q_n + o_d[None, :], mask=in_q, other=0.0))
    b_top = tl.full([BM], float("-inf"), ACC)
    b_sum = tl.zeros([BM], ACC)
    b_out = tl.zeros([BM, BE], ACC)
    b_mean = tl.zeros([BM], ACC)
    b_at = tl.zeros([BM], tl.int32)
    low, high = key_range(
        i_tile * BM,
        tl.minimum(i_tile * BM + BM, n) - 1,
        length,
        shift,
        window,
        query_segment,
        query_ends,
        key_ends,
        CAUSAL,
        WINDOW,
        PACKED,
    )
    for start in range(low // BN * BN, high, BN):
        o_n_ = start + tl.arange(0, BN)
        in_s = o_n_ < s
        b_k = upcast(
            tl.load(
                k + o_n_.to(tl.int64)[None, :] * k_s + o_d[:, None], mask=in_s[None, :] & (o_d < d)[:, None], other=0.0
            )
        )
        b_v = upcast(
            tl.load(
                v + o_n_.to(tl.int64)[:, None] * v_s + o_e[None, :], mask=in_s[:, None] & (o_e < e)[None, :], other=0.0
            )
        )
        b_x = tl.dot(b_q, b_k, input_precision=PRECISION, out_dtype=ACC) * (scale * LOG2E)
        b_x = scored(
            b_x, o_m[:, None], o_n_[None, :], i_b, i_h, n, s, length, shift, window,
            keep, query_segment, key_segment, query_ends, key_ends, bias_a, bias_b,
            a_b, a_h, a_q, a_k, c_b, c_h, c_q, c_k, n0, n1, n2, n3, n4, n5,
            BIAS, KEEP, SEGMENTS, PACKED, CAUSAL, WINDOW,
        )  # fmt: skip
        if PEAK:
            b_best, b_where = tl.max(b_x, 1, return_indices=True)
            b_at = tl.where(b_best > b_top, start + b_where.to(tl.int32), b_at)
        else:
            b_best = tl.max(b_x, 1)
        b_new = tl.maximum(b_top, b_best)
        b_base = tl.where(b_new == float("-inf"), 0.0, b_new)
        b_fade = tl.exp2(b_top - b_base)
        b_p = tl.exp2(b_x - b_base[:, None])
        b_sum = b_sum * b_fade + tl.sum(b_p, 1)
        if ENTROPY:
            b_mean = b_mean * b_fade + tl.sum(b_p * tl.where(b_p > 0, b_x, 0.0), 1)
        if DROPOUT:
            b_p *= dropout_factor(seed, i_b, i_h, o_m[:, None], o_n_[None, :], threshold, survivor_factor)
        b_out *= b_fade[:, None]
        b_out += tl.dot(rounded(b_p, v.dtype.element_ty), b_v, input_precision=PRECISION, out_dtype=ACC)
        b_top = b_new
    b_total = tl.where(b_sum > 0, b_sum, 1.0)
    b_lse = tl.where(b_sum > 0, b_top + tl.log2(b_total), float("-inf"))
    in_n = o_m < n
    o_row = i_row.to(tl.int64) * n + o_m
    tl.store(lse + o_row, b_lse * LN2, mask=in_n)
    if ENTROPY:
        tl.store(entropy + o_row, tl.where(b_sum > 0, (b_lse - b_mean / b_total) * LN2, 0.0), mask=in_n)
    if PEAK:
        tl.store(peak + o_row, tl.where(b_sum > 0, 1.0 / b_total, 0.0), mask=in_n)
        tl.store(peak_at + o_row, b_at, mask=in_n)
    out += i_b.to(tl.int64) * o_b + i_h.to(tl.int64) * o_h
    b_out = (b_out / b_total[:, None]).to(out.dtype.element_ty)
    tl.store(out + o_m.to(tl.int64)[:, None] * o_n + o_e[None, :], b_out, mask=in_n[:, None] & (o_e < e)[None, :])


@triton.jit
def attend_groups_kernel(
    q, k, v, lse, groups, group_mass, group_out,
    keep, lengths, query_segment, key_segment, query_ends, key_ends, seed, bias_a, bias_b,
    q_b, q_h, q_n, k_b, k_h, k_s, v_b, v_h, v_s,
    a_b, a_h, a_q, a_k, c_b, c_h, c_q, c_k, n0, n1, n2, n3, n4, n5,
    heads, shared, group_count, n, s, d, e, scale, window, threshold, survivor_factor,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    BIAS: tl.constexpr, KEEP: tl.constexpr, LENGTHS: tl.constexpr, SEGMENTS: tl.constexpr, PACKED: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, DROPOUT: tl.constexpr, VALUES: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """One tile of queries and one key group: its weight and part of the output; tiles without the group are skipped."""
    tiles = tl.cdiv(n, BM)
    i_group = tl.program_id(0) % group_count
    i_tile = tl.program_id(0) // group_count % tiles
    i_row = tl.program_id(0) // group_count // tiles
    i_b = i_row // heads
    i_h = i_row % heads
    o_m = i_tile * BM + tl.arange(0, BM)
    o_d = tl.arange(0, BD)
    o_e = tl.arange(0, BE)
    length = key_length(lengths, i_b, s, LENGTHS)
    shift = 0
    if CAUSAL == 2:
        shift = length - n
    q += i_b.to(tl.int64) * q_b + i_h.to(tl.int64) * q_h
    k += i_b.to(tl.int64) * k_b + (i_h // shared).to(tl.int64) * k_h
    v += i_b.to(tl.int64) * v_b + (i_h // shared).to(tl.int64) * v_h
    in_n = o_m < n
    in_q = in_n[:, None] & (o_d < d)[None, :]
    b_q = upcast(tl.load(q + o_m.to(tl.int64)[:, None] * q_n + o_d[None, :], mask=in_q, other=0.0))
    o_row = i_row.to(tl.int64) * n + o_m
    b_lse = tl.load(lse + o_row, mask=in_n, other=0.0) * LOG2E
    b_lse = tl.where(b_lse == float("-inf"), 0.0, b_lse)
    b_mass = tl.zeros([BM], ACC)
    b_out = tl.zeros([BM, BE], ACC)
    low, high = key_range(
        i_tile * BM,
        tl.minimum(i_tile * BM + BM, n) - 1,
        length,
        shift,
        window,
        query_segment,
        query_ends,
        key_ends,
        CAUSAL,
        WINDOW,
        PACKED,
    )
    for start in range(low // BN * BN, high, BN):
        o_n_ = start + tl.arange(0, BN)
        in_s = o_n_ < s
        b_member = tl.load(groups + i_b.to(tl.int64) * s + o_n_, mask=in_s, other=-1) == i_group
        if tl.sum(b_member.to(tl.int32), 0) > 0:
            b_k = upcast(
                tl.load(
                    k + o_n_.to(tl.int64)[None, :] * k_s + o_d[:, None],
                    mask=in_s[None, :] & (o_d < d)[:, None],
                    other=0.0,
                )
            )
            b_x = tl.dot(b_q, b_k, input_precision=PRECISION, out_dtype=ACC) * (scale * LOG2E)
            b_x = scored(
                b_x, o_m[:, None], o_n_[None, :], i_b, i_h, n, s, length, shift, window,
                keep, query_segment, key_segment, query_ends, key_ends, bias_a, bias_b,
                a_b, a_h, a_q, a_k, c_b, c_h, c_q, c_k, n0, n1, n2, n3, n4, n5,
                BIAS, KEEP, SEGMENTS, PACKED, CAUSAL, WINDOW,
            )  # fmt: skip
            b_p = tl.where(b_member[None, :], tl.exp2(b_x - b_lse[:, None]), 0.0)
            b_mass += tl.sum(b_p, 1)
            if VALUES:
                if DROPOUT:
                    b_p *= dropout_factor(seed, i_b, i_h, o_m[:, None], o_n_[None, :], threshold, survivor_factor)
                b_v = upcast(
                    tl.load(
                        v + o_n_.to(tl.int64)[:, None] * v_s + o_e[None, :],
                        mask=in_s[:, None] & (o_e < e)[None, :],
                        other=0.0,
                    )
                )
                b_out += tl.dot(rounded(b_p, v.dtype.element_ty), b_v, input_precision=PRECISION, out_dtype=ACC)
    tl.store(group_mass + o_row * group_count + i_group, b_mass, mask=in_n)
    if VALUES:
        o_out = (o_row * group_count + i_group)[:, None] * e + o_e[None, :]
        tl.store(group_out + o_out, b_out.to(group_out.dtype.element_ty), mask=in_n[:, None] & (o_e < e)[None, :])


@triton.jit
def received_mass_kernel(
    q, k, lse, weight, mass,
    keep, lengths, query_segment, key_segment, query_ends, key_ends, bias_a, bias_b,
    q_b, q_h, q_n, k_b, k_h, k_s,
    a_b, a_h, a_q, a_k, c_b, c_h, c_q, c_k, n0, n1, n2, n3, n4, n5,
    heads, shared, query_groups, n, s, d, scale, window,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    BIAS: tl.constexpr, KEEP: tl.constexpr, LENGTHS: tl.constexpr, SEGMENTS: tl.constexpr, PACKED: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, WEIGHT: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """One tile of keys (rows) against all queries that can meet them: the sum of the weights each key receives."""
    tiles = tl.cdiv(s, BN)
    i_tile = tl.program_id(0) % tiles
    i_group = tl.program_id(0) // tiles % query_groups
    i_row = tl.program_id(0) // tiles // query_groups
    i_b = i_row // heads
    i_h = i_row % heads
    o_n_ = i_tile * BN + tl.arange(0, BN)
    o_d = tl.arange(0, BD)
    length = key_length(lengths, i_b, s, LENGTHS)
    shift = 0
    if CAUSAL == 2:
        shift = length - n
    q += i_b.to(tl.int64) * q_b + i_h.to(tl.int64) * q_h
    k += i_b.to(tl.int64) * k_b + (i_h // shared).to(tl.int64) * k_h
    in_k = (o_n_ < s)[:, None] & (o_d < d)[None, :]
    b_k = upcast(tl.load(k + o_n_.to(tl.int64)[:, None] * k_s + o_d[None, :], mask=in_k, other=0.0))
    b_mass = tl.zeros([BN], ACC)
    low, high = query_range(
        i_tile * BN,
        tl.minimum(i_tile * BN + BN, s) - 1,
        n,
        shift,
        window,
        key_segment,
        query_ends,
        key_ends,
        CAUSAL,
        WINDOW,
        PACKED,
    )
    for start in range(low // BM * BM, high, BM):
        o_m = start + tl.arange(0, BM)
        in_n = o_m < n
        b_q = upcast(
            tl.load(
                q + o_m.to(tl.int64)[None, :] * q_n + o_d[:, None], mask=in_n[None, :] & (o_d < d)[:, None], other=0.0
            )
        )
        b_x = tl.dot(b_k, b_q, input_precision=PRECISION, out_dtype=ACC) * (scale * LOG2E)
        b_x = scored(
            b_x, o_m[None, :], o_n_[:, None], i_b, i_h, n, s, length, shift, window,
            keep, query_segment, key_segment, query_ends, key_ends, bias_a, bias_b,
            a_b, a_h, a_q, a_k, c_b, c_h, c_q, c_k, n0, n1, n2, n3, n4, n5,
            BIAS, KEEP, SEGMENTS, PACKED, CAUSAL, WINDOW,
        )  # fmt: skip
        b_lse = tl.load(lse + i_row.to(tl.int64) * n + o_m, mask=in_n, other=0.0) * LOG2E
        b_p = tl.exp2(b_x - tl.where(b_lse == float("-inf"), 0.0, b_lse)[None, :])
        if WEIGHT:
            b_w = tl.load(weight + (i_row.to(tl.int64) * query_groups + i_group) * n + o_m, mask=in_n, other=0.0)
            b_p *= b_w[None, :]
        b_mass += tl.sum(b_p, 1)
    tl.store(mass + (i_row.to(tl.int64) * query_groups + i_group) * s + o_n_, b_mass, mask=o_n_ < s)
