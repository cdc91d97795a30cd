"""The parts of a score tile that forward and backward kernels share: masks, bias and dropout at given positions.

Prefixes: `o_` positions, `b_` tiles, `i_` program indices; other names are pointers and sizes. Positions come as two
broadcastable tensors, so one definition serves tiles with queries on rows and tiles with keys on rows.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.tiles import LOG2E, upcast


@triton.jit
def key_range(
    o_first, o_last, length, shift, window, query_segment, query_ends, key_ends,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """First and one-past-last key that queries `o_first..o_last` can meet."""
    low = 0
    high = length
    first_key = 0
    last_key = 0
    end_key = length
    if PACKED:
        low, end_key, o_first, first_shift = start_end_local_shift(o_first, query_segment, query_ends, key_ends)
        last_key, high, o_last, shift = start_end_local_shift(o_last, query_segment, query_ends, key_ends)
        first_key = low
        if CAUSAL != 2:
            first_shift = 0
            shift = 0
    else:
        first_shift = shift
    if CAUSAL:
        high = tl.minimum(high, tl.maximum(last_key, last_key + o_last + shift + 1))
    if WINDOW:
        high = tl.minimum(high, tl.maximum(last_key, last_key + o_last + shift + window + 1))
        low = tl.minimum(tl.maximum(low, first_key + o_first + first_shift - window), end_key)
    return low, high


@triton.jit
def query_range(
    o_first, o_last, n, shift, window, key_segment, query_ends, key_ends,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """First and one-past-last query that can meet keys `o_first..o_last`."""
    low = 0
    high = n
    first_query = 0
    last_query = 0
    end_query = n
    if PACKED:
        low, end_query, o_first, first_shift = start_end_local_shift(o_first, key_segment, key_ends, query_ends)
        last_query, high, o_last, shift = start_end_local_shift(o_last, key_segment, key_ends, query_ends)
        first_query = low
        if CAUSAL != 2:
            first_shift = 0
            shift = 0
    else:
        first_shift = -shift
        shift = -shift
    if CAUSAL:
        low = tl.minimum(tl.maximum(low, first_query + o_first + first_shift), end_query)
    if WINDOW:
        low = tl.minimum(tl.maximum(low, first_query + o_first + first_shift - window), end_query)
        high = tl.minimum(high, tl.maximum(last_query, last_query + o_last + shift + window + 1))
    return low, high


@triton.jit
def start_end_local_shift(o, segment, own_ends, other_ends):
    """Of the packed sequence that position `o` is in: first and one-past-last position on the other side, the position
    counted from the sequence's start, and how many more positions the other side has."""
    i_s = tl.load(segment + o)
    own = tl.load(own_ends + i_s).to(tl.int32)
    start = tl.load(other_ends + i_s).to(tl.int32)
    end = tl.load(other_ends + i_s + 1).to(tl.int32)
    return start, end, o - own, end - start - (tl.load(own_ends + i_s + 1).to(tl.int32) - own)


@triton.jit
def scored(
    b_x, o_q, o_k, i_b, i_h, n, s, length, shift, window, keep, query_segment, key_segment, query_ends, key_ends,
    bias_a, bias_b, a_b, a_h, a_q, a_k, c_b, c_h, c_q, c_k, n0, n1, n2, n3, n4, n5,
    BIAS: tl.constexpr, KEEP: tl.constexpr, SEGMENTS: tl.constexpr, PACKED: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Base-2 scores of a tile from its scaled products: bias added, -inf where a pair does not meet."""
    o_qi, o_kj, o_shift = local(o_q, o_k, shift, n, query_segment, query_ends, key_ends, CAUSAL, PACKED)
    b_x = biased(
        b_x, o_q, o_k, o_qi, o_kj, i_b, i_h, n, s, bias_a, bias_b,
        a_b, a_h, a_q, a_k, c_b, c_h, c_q, c_k, n0, n1, n2, n3, n4, n5, BIAS,
    )  # fmt: skip
    return masked(
        b_x, o_q, o_k, o_qi, o_kj, i_b, n, s, length, o_shift, window, keep,
        query_segment, key_segment, KEEP, SEGMENTS, CAUSAL, WINDOW,
    )  # fmt: skip


@triton.jit
def local(o_q, o_k, shift, n, query_segment, query_ends, key_ends, CAUSAL: tl.constexpr, PACKED: tl.constexpr):
    """Positions counted from the start of the query's packed sequence, and its shift; else what was given."""
    if PACKED:
        i_s = tl.load(query_segment + o_q, mask=o_q < n, other=0)
        o_query = tl.load(query_ends + i_s).to(tl.int32)
        o_key = tl.load(key_ends + i_s).to(tl.int32)
        if CAUSAL == 2:
            shift = (tl.load(key_ends + i_s + 1).to(tl.int32) - o_key) - (
                tl.load(query_ends + i_s + 1).to(tl.int32) - o_query
            )
        o_q = o_q - o_query
        o_k = o_k - o_key
    return o_q, o_k, shift


@triton.jit
def key_length(lengths, i_b, s, LENGTHS: tl.constexpr):
    """Number of valid keys of batch `i_b`."""
    length = s
    if LENGTHS:
        length = tl.minimum(tl.load(lengths + i_b).to(tl.int32), s)
    return length


@triton.jit
def biased(
    b_x, o_q, o_k, o_qi, o_kj, i_b, i_h, n, s, bias_a, bias_b,
    a_b, a_h, a_q, a_k, c_b, c_h, c_q, c_k, n0, n1, n2, n3, n4, n5,
    BIAS: tl.constexpr,
):  # fmt: skip
    """Add the bias, in base 2, to scores; the kinds are those of `kernels.bias`."""
    if BIAS == 0:
        return b_x
    inside = (o_q < n) & (o_k < s)
    a = bias_a + i_b.to(tl.int64) * a_b + i_h.to(tl.int64) * a_h
    if BIAS == 1:
        b_bias = upcast(tl.load(a + o_q.to(tl.int64) * a_q + o_k.to(tl.int64) * a_k, mask=inside, other=0.0))
    elif BIAS == 2:
        b_bias = upcast(tl.load(a + o_k * a_k, mask=o_k < s, other=0.0))
    elif BIAS == 3:
        c = bias_b + i_b.to(tl.int64) * c_b + i_h.to(tl.int64) * c_h
        b_x_part = upcast(tl.load(a + o_q.to(tl.int64) * a_q + (o_k % n0) * a_k, mask=inside, other=0.0))
        b_y_part = upcast(tl.load(c + o_q.to(tl.int64) * c_q + (o_k // n0) * c_k, mask=inside, other=0.0))
        b_bias = b_x_part.to(b_x.dtype) + b_y_part.to(b_x.dtype)
    elif BIAS == 4:
        o_entry = tl.minimum(tl.maximum(o_qi - o_kj + n0, 0), n1 - 1)
        b_bias = upcast(tl.load(a + o_entry * a_k, mask=inside, other=0.0))
    elif BIAS == 5:
        o_row = tl.minimum(tl.maximum(o_qi // n0 - o_kj // n1 + n2, 0), n4 - 1)
        o_column = tl.minimum(tl.maximum(o_qi % n0 - o_kj % n1 + n3, 0), n5 - 1)
        b_bias = upcast(tl.load(a + o_row * a_q + o_column * a_k, mask=inside, other=0.0))
    else:
        b_slope = upcast(tl.load(a))
        b_bias = -b_slope.to(b_x.dtype) * tl.abs(o_qi - o_kj + n0).to(b_x.dtype)
    return b_x + b_bias.to(b_x.dtype) * LOG2E


@triton.jit
def masked(
    b_x, o_q, o_k, o_qi, o_kj, i_b, n, s, length, shift, window, keep, query_segment, key_segment,
    KEEP: tl.constexpr, SEGMENTS: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Put -inf where a pair does not meet; the masks are those of `kernels.masks`."""
    allowed = (o_q < n) & (o_k < length)
    if KEEP:
        allowed = allowed & (tl.load(keep + i_b.to(tl.int64) * s + o_k, mask=o_k < s, other=0) != 0)
    if SEGMENTS:
        b_of_query = tl.load(query_segment + i_b.to(tl.int64) * n + o_q, mask=o_q < n, other=0)
        b_of_key = tl.load(key_segment + i_b.to(tl.int64) * s + o_k, mask=o_k < s, other=0)
        allowed = allowed & (b_of_query == b_of_key)
    if CAUSAL:
        allowed = allowed & (o_kj <= o_qi + shift)
    if WINDOW:
        allowed = allowed & (tl.abs(o_qi + shift - o_kj) <= window)
    return tl.where(allowed, b_x, float("-inf"))


@triton.jit
def dropout_factor(seed, i_b, i_h, o_q, o_k, threshold, survivor_factor):
    """0 or 1 / (1 - dropout) per pair: the numbers of `kernels.attention.dropout`."""
    w0, w1, w2, w3 = tl.philox(tl.load(seed), o_k // 4, o_q, i_h, i_b)
    o_word = o_k % 4
    word = tl.where(o_word < 2, tl.where(o_word == 0, w0, w1), tl.where(o_word == 2, w2, w3))
    return tl.where((word >> 8).to(tl.int32) >= threshold, survivor_factor, 0.0)
