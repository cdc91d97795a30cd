"""Backward kernels: dQ with query tiles stationary, dK and dV with key tiles stationary, bias gradients along walks.

All rebuild the weights from the log-sum-exp. With row terms gathered in `kernels.attention.launch`,

    dS_ij = p_ij (z_ij g_out_i.v_j + g_mass_j + g_group_mass_i,g(j) + row_i - g_entropy_i s_ij)
            + 1[j = peak_at_i] pull_i,
    row_i = -delta_i + g_lse_i - pull_i - g_entropy_i (entropy_i - lse_i),     pull_i = g_peak_i peak_i.

No atomics: every sum has one owner, so two runs give the same bits. Key groups are an outer loop: the gradient that
meets `v_j` then depends on the group of j.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.attention.score_tile import dropout_factor, key_length, key_range, query_range, scored
from kernels.tiles import LN2, LOG2E, rounded, upcast


@triton.jit
def score_gradient(
    b_p, b_x, b_dp, b_row, o_q, o_k, i_b, i_h, i_row, i_group, in_q, in_k,
    g_entropy, pull, peak_at, g_mass, g_group_mass, group_count, n, s,
    ENTROPY: tl.constexpr, PEAK: tl.constexpr, MASS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """dS of a tile from its weights, base-2 scores and `g_out.v`; positions as two broadcastable tensors."""
    o_row = i_row.to(tl.int64) * n + o_q
    if MASS:
        b_dp += tl.load(g_mass + i_row.to(tl.int64) * s + o_k, mask=in_k, other=0.0)
    if GROUPS:
        b_dp += tl.load(g_group_mass + o_row * group_count + i_group, mask=in_q, other=0.0)
    b_ds = b_p * (b_dp + b_row)
    if ENTROPY:
        b_g = tl.load(g_entropy + o_row, mask=in_q, other=0.0)
        b_ds -= b_p * tl.where(b_p > 0, b_x, 0.0) * b_g * LN2
    if PEAK:
        b_at = tl.load(peak_at + o_row, mask=in_q, other=-1)
        b_pull = tl.load(pull + o_row, mask=in_q, other=0.0)
        b_ds += tl.where((b_at == o_k) & (b_p > 0), b_pull, 0.0)
    return b_ds


@triton.jit
def attend_backward_q_kernel(
    q, k, v, g_out, lse, row, g_entropy, pull, peak_at, g_mass, groups, g_group_mass, dq,
    keep, lengths, query_segment, key_segment, query_ends, key_ends, seed, bias_a, bias_b,
    q_b, q_h, q_n, k_b, k_h, k_s, v_b, v_h, v_s, g_b, g_h, g_g, g_n,
    a_b, a_h, a_q, a_k, c_b, c_h, c_q, c_k, n0, n1, n2, n3, n4, n5,
    heads, shared, group_count, n, s, d, e, scale, window, threshold, survivor_factor,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    BIAS: tl.constexpr, KEEP: tl.constexpr, LENGTHS: tl.constexpr, SEGMENTS: tl.constexpr, PACKED: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, DROPOUT: tl.constexpr, ENTROPY: tl.constexpr, PEAK: tl.constexpr,
    MASS: tl.constexpr, GROUPS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dQ of one tile of queries."""
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
    g_out += i_b.to(tl.int64) * g_b + i_h.to(tl.int64) * g_h
    in_n = o_m < n
    in_q = in_n[:, None] & (o_d < d)[None, :]
    in_o = in_n[:, None] & (o_e < e)[None, :]
    b_q = upcast(tl.load(q + o_m.to(tl.int64)[:, None] * q_n + o_d[None, :], mask=in_q, other=0.0))
    o_row = i_row.to(tl.int64) * n + o_m
    b_lse = tl.load(lse + o_row, mask=in_n, other=0.0) * LOG2E
    b_lse = tl.where(b_lse == float("-inf"), 0.0, b_lse)
    b_row = tl.load(row + o_row, mask=in_n, other=0.0)
    b_dq = tl.zeros([BM, BD], ACC)
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
    for i_group in range(group_count):
        b_g = upcast(
            tl.load(g_out + i_group * g_g + o_m.to(tl.int64)[:, None] * g_n + o_e[None, :], mask=in_o, other=0.0)
        )
        for start in range(low // BN * BN, high, BN):
            o_n_ = start + tl.arange(0, BN)
            in_s = o_n_ < s
            b_k = upcast(
                tl.load(
                    k + o_n_.to(tl.int64)[:, None] * k_s + o_d[None, :],
                    mask=in_s[:, None] & (o_d < d)[None, :],
                    other=0.0,
                )
            )
            b_v = upcast(
                tl.load(
                    v + o_n_.to(tl.int64)[None, :] * v_s + o_e[:, None],
                    mask=in_s[None, :] & (o_e < e)[:, None],
                    other=0.0,
                )
            )
            b_x = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION, out_dtype=ACC) * (scale * LOG2E)
            b_x = scored(
                b_x, o_m[:, None], o_n_[None, :], i_b, i_h, n, s, length, shift, window,
                keep, query_segment, key_segment, query_ends, key_ends, bias_a, bias_b,
                a_b, a_h, a_q, a_k, c_b, c_h, c_q, c_k, n0, n1, n2, n3, n4, n5,
                BIAS, KEEP, SEGMENTS, PACKED, CAUSAL, WINDOW,
            )  # fmt: skip
            b_p = tl.exp2(b_x - b_lse[:, None])
            if GROUPS:
                b_member = tl.load(groups + i_b.to(tl.int64) * s + o_n_, mask=in_s, other=-1) == i_group
                b_p = tl.where(b_member[None, :], b_p, 0.0)
            b_dp = tl.dot(b_g, b_v, input_precision=PRECISION, out_dtype=ACC)
            if DROPOUT:
                b_dp *= dropout_factor(seed, i_b, i_h, o_m[:, None], o_n_[None, :], threshold, survivor_factor)
            b_ds = score_gradient(
                b_p, b_x, b_dp, b_row[:, None], o_m[:, None], o_n_[None, :], i_b, i_h, i_row, i_group,
                in_n[:, None], in_s[None, :], g_entropy, pull, peak_at, g_mass, g_group_mass, group_count, n, s,
                ENTROPY, PEAK, MASS, GROUPS,
            )  # fmt: skip
            b_dq += tl.dot(rounded(b_ds, k.dtype.element_ty), b_k, input_precision=PRECISION, out_dtype=ACC)
    o_dq = o_row[:, None] * d + o_d[None, :]
    tl.store(dq + o_dq, (b_dq * scale).to(dq.dtype.element_ty), mask=in_q)


@triton.jit
def attend_backward_kv_kernel(
    q, k, v, g_out, lse, row, g_entropy, pull, peak_at, g_mass, groups, g_group_mass, dk, dv, mass, dbias,
    keep, lengths, query_segment, key_segment, query_ends, key_ends, seed, bias_a, bias_b,
    q_b, q_h, q_n, k_b, k_h, k_s, v_b, v_h, v_s, g_b, g_h, g_g, g_n,
    a_b, a_h, a_q, a_k, c_b, c_h, c_q, c_k, n0, n1, n2, n3, n4, n5,
    heads, shared, group_count, n, s, d, e, scale, window, threshold, survivor_factor,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    BIAS: tl.constexpr, KEEP: tl.constexpr, LENGTHS: tl.constexpr, SEGMENTS: tl.constexpr, PACKED: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, DROPOUT: tl.constexpr, ENTROPY: tl.constexpr, PEAK: tl.constexpr,
    MASS: tl.constexpr, GROUPS: tl.constexpr, STORE_MASS: tl.constexpr, PER_KEY: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dK and dV of one tile of keys (rows) over the query heads that share it; received mass and per-key dS as well."""
    tiles = tl.cdiv(s, BN)
    i_tile = tl.program_id(0) % tiles
    i_key_row = tl.program_id(0) // tiles
    key_heads = heads // shared
    i_b = i_key_row // key_heads
    i_j = i_key_row % key_heads
    o_n_ = i_tile * BN + tl.arange(0, BN)
    o_d = tl.arange(0, BD)
    o_e = tl.arange(0, BE)
    length = key_length(lengths, i_b, s, LENGTHS)
    shift = 0
    if CAUSAL == 2:
        shift = length - n
    k += i_b.to(tl.int64) * k_b + i_j.to(tl.int64) * k_h
    v += i_b.to(tl.int64) * v_b + i_j.to(tl.int64) * v_h
    in_s = o_n_ < s
    in_k = in_s[:, None] & (o_d < d)[None, :]
    in_v = in_s[:, None] & (o_e < e)[None, :]
    b_k = upcast(tl.load(k + o_n_.to(tl.int64)[:, None] * k_s + o_d[None, :], mask=in_k, other=0.0))
    b_v = upcast(tl.load(v + o_n_.to(tl.int64)[:, None] * v_s + o_e[None, :], mask=in_v, other=0.0))
    b_dk = tl.zeros([BN, BD], ACC)
    b_dv = tl.zeros([BN, BE], ACC)
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
    for i_shared in range(shared):
        i_h = i_j * shared + i_shared
        i_row = i_b * heads + i_h
        b_mass = tl.zeros([BN], ACC)
        b_dbias = tl.zeros([BN], ACC)
        for i_group in range(group_count):
            base_q = q + i_b.to(tl.int64) * q_b + i_h.to(tl.int64) * q_h
            base_g = g_out + i_b.to(tl.int64) * g_b + i_h.to(tl.int64) * g_h + i_group * g_g
            for start in range(low // BM * BM, high, BM):
                o_m = start + tl.arange(0, BM)
                in_n = o_m < n
                b_q = upcast(
                    tl.load(
                        base_q + o_m.to(tl.int64)[:, None] * q_n + o_d[None, :],
                        mask=in_n[:, None] & (o_d < d)[None, :],
                        other=0.0,
                    )
                )
                b_g = upcast(
                    tl.load(
                        base_g + o_m.to(tl.int64)[:, None] * g_n + o_e[None, :],
                        mask=in_n[:, None] & (o_e < e)[None, :],
                        other=0.0,
                    )
                )
                b_x = tl.dot(b_k, tl.trans(b_q), input_precision=PRECISION, out_dtype=ACC) * (scale * LOG2E)
                b_x = scored(
                    b_x, o_m[None, :], o_n_[:, None], i_b, i_h, n, s, length, shift, window,
                    keep, query_segment, key_segment, query_ends, key_ends, bias_a, bias_b,
                    a_b, a_h, a_q, a_k, c_b, c_h, c_q, c_k, n0, n1, n2, n3, n4, n5,
                    BIAS, KEEP, SEGMENTS, PACKED, CAUSAL, WINDOW,
                )  # fmt: skip
                o_row = i_row.to(tl.int64) * n + o_m
                b_lse = tl.load(lse + o_row, mask=in_n, other=0.0) * LOG2E
                b_p = tl.exp2(b_x - tl.where(b_lse == float("-inf"), 0.0, b_lse)[None, :])
                if GROUPS:
                    b_member = tl.load(groups + i_b.to(tl.int64) * s + o_n_, mask=in_s, other=-1) == i_group
                    b_p = tl.where(b_member[:, None], b_p, 0.0)
                if STORE_MASS:
                    b_mass += tl.sum(b_p, 1)
                b_dp = tl.dot(b_v, tl.trans(b_g), input_precision=PRECISION, out_dtype=ACC)
                b_used = b_p
                if DROPOUT:
                    b_z = dropout_factor(seed, i_b, i_h, o_m[None, :], o_n_[:, None], threshold, survivor_factor)
                    b_dp *= b_z
                    b_used = b_p * b_z
                b_dv += tl.dot(rounded(b_used, g_out.dtype.element_ty), b_g, input_precision=PRECISION, out_dtype=ACC)
                b_row = tl.load(row + o_row, mask=in_n, other=0.0)
                b_ds = score_gradient(
                    b_p, b_x, b_dp, b_row[None, :], o_m[None, :], o_n_[:, None], i_b, i_h, i_row, i_group,
                    in_n[None, :], in_s[:, None], g_entropy, pull, peak_at, g_mass, g_group_mass, group_count, n, s,
                    ENTROPY, PEAK, MASS, GROUPS,
                )  # fmt: skip
                if PER_KEY:
                    b_dbias += tl.sum(b_ds, 1)
                b_dk += tl.dot(rounded(b_ds, q.dtype.element_ty), b_q, input_precision=PRECISION, out_dtype=ACC)
        o_column = i_row.to(tl.int64) * s + o_n_
        if STORE_MASS:
            tl.store(mass + o_column, b_mass, mask=in_s)
        if PER_KEY:
            tl.store(dbias + o_column, b_dbias, mask=in_s)
    o_key = i_key_row.to(tl.int64) * s + o_n_
    tl.store(dk + o_key[:, None] * d + o_d[None, :], (b_dk * scale).to(dk.dtype.element_ty), mask=in_k)
    tl.store(dv + o_key[:, None] * e + o_e[None, :], b_dv.to(dv.dtype.element_ty), mask=in_v)


@triton.jit
def attend_backward_bias_kernel(
    q, k, v, g_out, lse, row, g_entropy, pull, peak_at, g_mass, groups, g_group_mass, walks, sums,
    keep, lengths, query_segment, key_segment, query_ends, key_ends, seed, bias_a, bias_b,
    q_b, q_h, q_n, k_b, k_h, k_s, v_b, v_h, v_s, g_b, g_h, g_g, g_n,
    a_b, a_h, a_q, a_k, c_b, c_h, c_q, c_k, n0, n1, n2, n3, n4, n5,
    heads, shared, group_count, n, s, d, e, scale, window, threshold, survivor_factor,
    walk_count, batches, sum_batches, sum_heads, query_step, key_step, key_stride,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    BIAS: tl.constexpr, KEEP: tl.constexpr, LENGTHS: tl.constexpr, SEGMENTS: tl.constexpr, PACKED: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, DROPOUT: tl.constexpr, ENTROPY: tl.constexpr, PEAK: tl.constexpr,
    MASS: tl.constexpr, GROUPS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The sum of dS tiles along one walk (see `bias_gradient`), over the batches and heads that share it."""
    i_walk = tl.program_id(0) % walk_count
    i_owner = tl.program_id(0) // walk_count
    head_owners = heads // sum_heads
    first_b = i_owner // head_owners * sum_batches
    first_h = i_owner % head_owners * sum_heads
    query_first = tl.load(walks + i_walk * 5)
    query_count = tl.load(walks + i_walk * 5 + 1)
    key_first = tl.load(walks + i_walk * 5 + 2)
    key_count = tl.load(walks + i_walk * 5 + 3)
    steps = tl.load(walks + i_walk * 5 + 4)
    o_m = tl.arange(0, BM)
    o_n_ = tl.arange(0, BN)
    o_d = tl.arange(0, BD)
    o_e = tl.arange(0, BE)
    b_sum = tl.zeros([BM, BN], ACC)
    for i_pair in range(sum_batches * sum_heads):
        i_b = first_b + i_pair // sum_heads
        i_h = first_h + i_pair % sum_heads
        i_row = i_b * heads + i_h
        length = key_length(lengths, i_b, s, LENGTHS)
        shift = 0
        if CAUSAL == 2:
            shift = length - n
        base_q = q + i_b.to(tl.int64) * q_b + i_h.to(tl.int64) * q_h
        base_k = k + i_b.to(tl.int64) * k_b + (i_h // shared).to(tl.int64) * k_h
        base_v = v + i_b.to(tl.int64) * v_b + (i_h // shared).to(tl.int64) * v_h
        for step in range(steps):
            o_i = query_first + step * query_step + o_m
            o_j = key_first + step * key_step + o_n_ * key_stride
            in_n = (o_m < query_count) & (o_i >= 0) & (o_i < n)
            in_s = (o_n_ < key_count) & (o_j >= 0) & (o_j < s)
            if PACKED:
                in_n = in_n & (
                    tl.load(query_segment + o_i, mask=in_n, other=-1) == tl.load(query_segment + query_first)
                )
            in_q = in_n[:, None] & (o_d < d)[None, :]
            b_q = upcast(tl.load(base_q + o_i.to(tl.int64)[:, None] * q_n + o_d[None, :], mask=in_q, other=0.0))
            in_k = in_s[None, :] & (o_d < d)[:, None]
            b_k = upcast(tl.load(base_k + o_j.to(tl.int64)[None, :] * k_s + o_d[:, None], mask=in_k, other=0.0))
            in_v = in_s[None, :] & (o_e < e)[:, None]
            b_v = upcast(tl.load(base_v + o_j.to(tl.int64)[None, :] * v_s + o_e[:, None], mask=in_v, other=0.0))
            inside = in_n[:, None] & in_s[None, :]
            o_q = tl.where(in_n, o_i, 0)[:, None]
            o_k = tl.where(in_s, o_j, 0)[None, :]
            b_x = tl.dot(b_q, b_k, input_precision=PRECISION, out_dtype=ACC) * (scale * LOG2E)
            b_x = scored(
                b_x, o_q, o_k, i_b, i_h, n, s, length, shift, window,
                keep, query_segment, key_segment, query_ends, key_ends, bias_a, bias_b,
                a_b, a_h, a_q, a_k, c_b, c_h, c_q, c_k, n0, n1, n2, n3, n4, n5,
                BIAS, KEEP, SEGMENTS, PACKED, CAUSAL, WINDOW,
            )  # fmt: skip
            b_x = tl.where(inside, b_x, float("-inf"))
            o_row = i_row.to(tl.int64) * n + o_i
            b_lse = tl.load(lse + o_row, mask=in_n, other=0.0) * LOG2E
            b_p = tl.exp2(b_x - tl.where(b_lse == float("-inf"), 0.0, b_lse)[:, None])
            b_row = tl.load(row + o_row, mask=in_n, other=0.0)
            for i_group in range(group_count):
                base_g = g_out + i_b.to(tl.int64) * g_b + i_h.to(tl.int64) * g_h + i_group * g_g
                in_o = in_n[:, None] & (o_e < e)[None, :]
                b_g = upcast(tl.load(base_g + o_i.to(tl.int64)[:, None] * g_n + o_e[None, :], mask=in_o, other=0.0))
                b_part = b_p
                if GROUPS:
                    b_member = tl.load(groups + i_b.to(tl.int64) * s + o_j, mask=in_s, other=-1) == i_group
                    b_part = tl.where(b_member[None, :], b_p, 0.0)
                b_dp = tl.dot(b_g, b_v, input_precision=PRECISION, out_dtype=ACC)
                if DROPOUT:
                    b_dp *= dropout_factor(seed, i_b, i_h, o_q, o_k, threshold, survivor_factor)
                b_sum += score_gradient(
                    b_part, b_x, b_dp, b_row[:, None], o_q, o_k, i_b, i_h, i_row, i_group, in_n[:, None], in_s[None, :],
                    g_entropy, pull, peak_at, g_mass, g_group_mass, group_count, n, s, ENTROPY, PEAK, MASS, GROUPS,
                )  # fmt: skip
    o_sum = (tl.program_id(0).to(tl.int64) * BM + o_m)[:, None] * BN + o_n_[None, :]
    tl.store(sums + o_sum, b_sum)
