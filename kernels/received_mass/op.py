"""Received mass as an operator of its own: per key, weighted, per group of queries, with its gradient."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kernels.attention import chunked
from kernels.attention.operator import choose_attend_kernel
from kernels.attention.problem import Problem, RowGradients
from kernels.bias import Bias, rebuild
from kernels.dispatch import (
    Choice,
    autocast_cast,
    check_floating,
    check_like,
    check_shape,
    explained_by,
    register,
)
from kernels.masks import CAUSAL, Alignment, Masks
from kernels.received_mass import reference

_ALIGNMENT = {code: name for name, code in CAUSAL.items()}


def choose_received_mass(q: Tensor, k: Tensor, **_: Any) -> Choice:
    """The backend of `received_mass` with these arguments."""
    return choose_attend_kernel(q, k)


def _forward(
    q: Tensor,
    k: Tensor,
    weight: Tensor,
    keep: Tensor | None,
    lengths: Tensor | None,
    bias_a: Tensor | None,
    bias_b: Tensor | None,
    scale: float,
    bias_kind: int,
    bias_numbers: list[int],
    causal: int,
    window: int,
) -> Tensor:
    problem = _problem(keep, lengths, bias_a, bias_b, scale, bias_kind, bias_numbers, causal, window)
    match choose_attend_kernel(q, k).backend:
        case "triton":
            import kernels.attention.launch as launch

            lse = launch.forward(q, k, k[..., :1], problem).lse
            return launch.received_mass(q, k, lse, problem, weight.to(lse.dtype))
        case "chunked":
            return chunked.received_mass(q, k, problem, weight)
        case _:
            return reference.received_mass(q, k, weight, problem).contiguous()


def _problem(
    keep: Tensor | None,
    lengths: Tensor | None,
    bias_a: Tensor | None,
    bias_b: Tensor | None,
    scale: float,
    bias_kind: int,
    bias_numbers: list[int],
    causal: int,
    window: int,
) -> Problem:
    masks = Masks(keep, lengths, causal=_ALIGNMENT[causal], window=None if window < 0 else window)
    return Problem(scale, masks, rebuild(bias_kind, [t for t in (bias_a, bias_b) if t is not None], bias_numbers))


def _fake(q: Tensor, k: Tensor, weight: Tensor, *_: Any) -> Tensor:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(*weight.shape[:3], k.shape[2], dtype=wide)


def _backward(
    q: Tensor,
    k: Tensor,
    weight: Tensor,
    keep: Tensor | None,
    lengths: Tensor | None,
    bias_a: Tensor | None,
    bias_b: Tensor | None,
    grad: Tensor,
    scale: float,
    bias_kind: int,
    bias_numbers: list[int],
    causal: int,
    window: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Mass is linear in the weights, so its gradient is that of attention with the columns of `grad` as values."""
    problem = _problem(keep, lengths, bias_a, bias_b, scale, bias_kind, bias_numbers, causal, window)
    (b, h, _, d), (_, j, s, _) = q.shape, k.shape
    keys = k.repeat_interleave(h // j, dim=1).to(grad.dtype)
    values, pull = grad.transpose(2, 3).contiguous(), weight.transpose(2, 3).to(grad.dtype).contiguous()
    queries = q.to(grad.dtype)
    if choose_attend_kernel(q, k).backend == "triton":
        import kernels.attention.launch as launch

        rows = launch.forward(queries, keys, values, problem)
        result = launch.backward(queries, keys, values, rows, RowGradients(out=pull), problem)
    else:
        rows = chunked.forward(queries, keys, values, problem)
        result = chunked.backward(queries, keys, values, rows, RowGradients(out=pull), problem)
    dk = result.k.view(b, j, h // j, s, d).sum(dim=2).to(k.dtype)
    tensors = [t for t in (bias_a, bias_b) if t is not None]
    bias = [g.to(t.dtype).contiguous() for g, t in zip(result.bias, tensors, strict=True)]
    bias += [q.new_empty(0) for _ in range(2 - len(bias))]
    return result.q.to(q.dtype), dk, rows.out.transpose(2, 3).to(weight.dtype).contiguous(), bias[0], bias[1]


def _backward_fake(q: Tensor, k: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    like = [q, k, weight, *rest[2:4]]
    return tuple(q.new_empty(0) if t is None else t.new_empty(t.shape) for t in like)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:7])
    ctx.rest = inputs[7:]


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    dq, dk, dw, da, db = _backward_op(*saved, grad.contiguous(), *ctx.rest)
    bias = [g if t is not None else None for g, t in zip((da, db), saved[5:7], strict=True)]
    return dq, dk, dw, None, None, *bias, *([None] * len(ctx.rest))


_backward_op = register("received_mass_backward", _backward, fake=_backward_fake)
_op = register("received_mass", _forward, fake=_fake, setup=_setup, backward=_gradients)


@explained_by(choose_received_mass)
def received_mass(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b j s d"],
    *,
    weight: Float[Tensor, "b h n"] | None = None,
    query_groups: Int[Tensor, "b n"] | None = None,
    groups: int = 1,
    scale: float | None = None,
    keep: Bool[Tensor, "b s"] | None = None,
    lengths: Int[Tensor, " b"] | None = None,
    bias: Bias | None = None,
    causal: Alignment | None = None,
    window: int | None = None,
) -> Float[Tensor, "b h g s"]:
    """The attention each key receives: mass_gj = sum over queries i of group g of weight_i p_ij.

    The sum needs the finished normaliser of each row, so it is a second pass with keys stationary after one for the
    log-sum-exp: O(n + s) memory, no atomics, the same bits on every run. Saved for backward: the inputs.

    Args:
        q: queries
        k: keys; the number of key heads `j` must divide `h`
        weight: factor on each query; default 1
        query_groups: group of each query, in 0..groups-1
        groups: number of query groups
        scale: factor on `q.k`; default `1 / sqrt(d)`
        keep: keys that exist
        lengths: only the first `lengths[b]` keys exist
        bias: an object of `kernels.bias`
        causal: as for `attend`
        window: as for `attend`

    Returns:
        float32 masses (float64 for float64 inputs), one row per query group.

    Raises:
        ValueError: an argument does not fit; the text names it.
    """
    op = "received_mass"
    check_shape(op, "q", q, "[b, h, n, d]", None, None, None, None)
    check_floating(op, "q", q)
    b, h, n, d = q.shape
    check_shape(op, "k", k, "[b, j, s, d]", b, None, None, d)
    if k.shape[1] == 0 or h % k.shape[1]:
        raise ValueError(f"{op}: k has {k.shape[1]} heads, which must divide the {h} heads of q")
    check_shape(op, "weight", weight, "[b, h, n]", b, h, n)
    check_shape(op, "query_groups", query_groups, "[b, n]", b, n)
    check_shape(op, "keep", keep, "[b, s]", b, k.shape[2])
    check_shape(op, "lengths", lengths, "[b]", b)
    check_like(op, "q", q, k=k)
    check_like(op, "q", q, dtype=False, weight=weight, query_groups=query_groups, keep=keep, lengths=lengths)
    if groups < 1 or (groups > 1 and query_groups is None):
        raise ValueError(f"{op}: groups={groups} needs query_groups, the group 0..groups-1 of each query, [b, n]")
    if causal not in CAUSAL:
        raise ValueError(f"{op}: causal={causal!r} is unknown; use 'top-left', 'bottom-right' or None")
    if bias is not None:
        bias.check(b, h, n, k.shape[2])
    q, k = autocast_cast(q, k)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    factor = (q.new_ones(b, h, n, dtype=wide) if weight is None else weight.to(wide))[:, :, None]
    if query_groups is not None:
        factor = factor * F.one_hot(query_groups.long(), groups).to(wide).mT[:, None]
    tensors = [*(bias.tensors if bias is not None else ()), None, None]
    return _op(
        q, k, factor.contiguous(), keep, lengths, *tensors[:2], 1.0 / math.sqrt(d) if scale is None else float(scale),
        bias.kind if bias is not None else 0, bias.numbers if bias is not None else [],
        CAUSAL[causal], -1 if window is None else window,
    )  # fmt: skip
