"""K5: causal attention with relative distances, in its training form and as a decode step over a key-value cache."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kernels.dispatch import (
    Choice,
    autocast_cast,
    check_floating,
    check_like,
    check_shape,
    explained_by,
    register,
    select,
    triton_refusals,
)
from kernels.precision import as_given
from kernels.relative_attention.chunked import relative_attention_chunked, relative_attention_chunked_backward
from kernels.relative_attention.reference import RelativeAttended, relative_attention_reference, wide


def choose_relative(q: Tensor, k: Tensor, v: Tensor, *_: object, **__: object) -> Choice:
    """Triton where it can run, else chunked torch."""
    refusals = triton_refusals(q, q.shape[-1], v.shape[-1])
    if q.dtype == torch.float64:
        refusals.append("triton: sums are float32, float64 was given")
    return select("relative_attend", ("triton", refusals), ("chunked", ()), ("reference", ()))


def _check_start(start: Tensor, n: int, s: int) -> None:
    fits = (start >= 0) & (start + n <= s)
    if fits.device.type != "cpu":
        torch._assert_async(fits.all(), "relative_attend: a query's position lies outside the keys")
    elif not fits.all():
        item = int(fits.to(torch.uint8).argmin())
        first = int(start[item])
        raise ValueError(
            f"relative_attend: start[{item}]={first} puts {n} queries at positions {first} to {first + n - 1}, "
            f"but there are {s} keys; every query's own key must be among them"
        )


def _forward(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, keep: Tensor | None, start: Tensor, local: int, scale: float
) -> tuple[Tensor, Tensor]:
    _check_start(start, q.shape[2], k.shape[2])
    backend = choose_relative(q, k, v).backend
    arguments = (q, k, v, table, keep, start, local, scale)
    if q.numel() == 0:
        return _fake(*arguments)
    if backend == "triton":
        from kernels.relative_attention.triton import relative_attention_triton

        return relative_attention_triton(*arguments)
    if backend == "reference":
        out, lse = relative_attention_reference(*arguments)
        return out, lse
    return relative_attention_chunked(*arguments)


def _fake(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, keep: Tensor | None, start: Tensor, local: int, scale: float
) -> tuple[Tensor, Tensor]:
    return q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(q.shape[:3], dtype=wide(q.dtype))


def _backward(
    g_out: Tensor, delta: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor, keep: Tensor | None,
    start: Tensor, lse: Tensor, local: int, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    arguments = (g_out, delta, q, k, v, table, keep, start, lse, local, scale)
    if q.numel() and choose_relative(q, k, v).backend == "triton":
        from kernels.relative_attention.triton_backward import relative_attention_triton_backward

        return relative_attention_triton_backward(*arguments)
    return relative_attention_chunked_backward(*arguments)


def _backward_fake(
    g_out: Tensor, delta: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor, keep: Tensor | None,
    start: Tensor, lse: Tensor, local: int, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), table.new_empty(table.shape)


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    q, k, v, table, keep, start, ctx.local, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, table, keep, start, *output)


def _gradients(ctx, g_out, g_lse):  # type: ignore[no-untyped-def]
    q, k, v, table, keep, start, out, lse = ctx.saved_tensors
    delta = (g_out.to(lse.dtype) * out.to(lse.dtype)).sum(-1) - g_lse.masked_fill(lse.isinf(), 0)
    grads = _backward_op(g_out, delta, q, k, v, table, keep, start, lse, ctx.local, ctx.scale)
    return (*grads, None, None, None, None)


_backward_op = register("relative_attention_backward", as_given(_backward), fake=_backward_fake)
_op = register("relative_attention", as_given(_forward), fake=_fake, setup=_setup, backward=_gradients)


@explained_by(choose_relative)
def relative_attend(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b j s d"],
    v: Float[Tensor, "b j s e"],
    table: Float[Tensor, "i r d"],
    *,
    scale: float | None = None,
    keep: Bool[Tensor, "b s"] | None = None,
    start: Int[Tensor, " b"] | None = None,
    local: int | None = None,
) -> RelativeAttended:
    """Causal attention whose scores know the distance (Music Transformer), without the skewed L x L tensors.

    score[i, j] = scale q_i . (k_j + table[min(p_i - j, r - 1)]) for j <= p_i, where p_i = start + i.
    Gradients for q, k, v and the table, through out and lse; memory linear in n and s; repeats bitwise. The published
    table has distance 0 in its last row: pass `published.flip(0)`. Saved for backward: inputs, out, lse.
    Layout: any strides, last dimension contiguous (else copied). Backends: triton (widths to 256), chunked torch,
    reference.

    Args:
        q: queries, at consecutive positions
        k: keys, key j at position j; j, the number of key heads, must divide h
        v: values
        table: one row per distance, row 0 = the query's own position; per head [h, r, d] or shared [1, r, d]
        scale: factor on the scores; 1/sqrt(d) by default
        keep: True for real keys; a query that sees none gives out 0 and lse -inf
        start: position of the first query; s - n by default, so that the last query stands on the last key
        local: block length of relative-local attention: a query reads its own block and the one before

    Raises:
        ValueError: shapes, types or devices disagree, or a query stands outside the keys
    """
    op = "relative_attend"
    check_shape(op, "q", q, "[b, h, n, d]", None, None, None, None)
    (b, h, n, d) = q.shape
    check_shape(op, "k", k, "[b, j, s, d]", b, None, None, d)
    s = k.shape[2]
    check_shape(op, "v", v, "[b, j, s, e]", b, k.shape[1], s, None)
    check_shape(op, "table", table, "[h or 1, r, d]", table.shape[0] if table.dim() == 3 else None, None, d)
    check_shape(op, "keep", keep, "[b, s]", b, s)
    check_shape(op, "start", start, "[b]", b)
    check_floating(op, "q", q)
    check_like(op, "q", q, dtype=not torch.is_autocast_enabled(q.device.type), k=k, v=v, table=table)
    check_like(op, "q", q, dtype=False, keep=keep, start=start)
    if k.shape[1] == 0 or h % k.shape[1]:
        raise ValueError(f"{op}: k has {k.shape[1]} heads, which must divide the {h} heads of q")
    if table.shape[0] not in (1, h):
        raise ValueError(f"{op}: table has {table.shape[0]} heads; expected {h} or 1")
    if table.shape[1] == 0:
        raise ValueError(f"{op}: table has no rows; expected one row per distance, or use attend for no relative term")
    if keep is not None and keep.dtype != torch.bool:
        raise ValueError(f"{op}: keep is {keep.dtype}; expected bool, True = a real key")
    if local is not None and local < 1:
        raise ValueError(f"{op}: local={local}; expected a block length of at least 1, or None for all keys")
    if n > s and start is None:
        raise ValueError(f"{op}: {n} queries on {s} keys; every query's own key must be among them")
    q, k, v, table = autocast_cast(q, k, v, table)
    scale = d**-0.5 if scale is None else scale
    first = torch.full((b,), s - n, dtype=torch.long, device=q.device) if start is None else start.long()
    return RelativeAttended(*_op(q, k, v, table, keep, first, local or 0, scale))


def relative_step(
    q: Float[Tensor, "b h n d"],
    k_cache: Float[Tensor, "b j s d"],
    v_cache: Float[Tensor, "b j s e"],
    table: Float[Tensor, "i r d"],
    filled: Int[Tensor, " b"],
    *,
    scale: float | None = None,
    keep: Bool[Tensor, "b s"] | None = None,
    local: int | None = None,
) -> RelativeAttended:
    """Decode: the newest n positions read a cache of capacity s of which the first filled[i] places are written.

    The new keys and values must be in the cache already. Equals the last n rows of `relative_attend` over the written
    part, whatever lies behind it.

    Args:
        q: queries of the newest positions
        k_cache: keys so far; places from filled on are not read
        v_cache: values so far
        table: as in `relative_attend`
        filled: places written, the new ones included, n..s
        scale: factor on the scores; 1/sqrt(d) by default
        keep: True for real keys
        local: block length of relative-local attention
    """
    check_shape("relative_step", "filled", filled, "[b]", q.shape[0])
    return relative_attend(
        q, k_cache, v_cache, table, scale=scale, keep=keep, start=filled - q.shape[2], local=local
    )  # fmt: skip
