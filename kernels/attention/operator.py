"""The registered operators behind `attend`: flat arguments, fakes, and the gradient as an operator of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.attention import chunked, reference
from kernels.attention.problem import Problem, RowGradients, Rows
from kernels.bias import rebuild
from kernels.dispatch import Choice, register, select, triton_refusals
from kernels.masks import CAUSAL, Masks

_ALIGNMENT = {code: name for name, code in CAUSAL.items()}


def choose_attend_kernel(q: Tensor, v: Tensor) -> Choice:
    """The backend that runs the operator once plain calls have gone to scaled_dot_product_attention."""
    return select(
        "attend", ("triton", triton_refusals(q, q.shape[-1], v.shape[-1])), ("chunked", ()), ("reference", ())
    )


def _problem(
    keep: Tensor | None,
    lengths: Tensor | None,
    query_segment: Tensor | None,
    key_segment: Tensor | None,
    groups: Tensor | None,
    bias_a: Tensor | None,
    bias_b: Tensor | None,
    seed: Tensor | None,
    query_ends: Tensor | None,
    key_ends: Tensor | None,
    scale: float,
    bias_kind: int,
    bias_numbers: list[int],
    causal: int,
    window: int,
    dropout: float,
    group_count: int,
    want: str,
) -> Problem:
    alignment, reach = _ALIGNMENT[causal], None if window < 0 else window
    masks = Masks(keep, lengths, query_segment, key_segment, alignment, reach, query_ends, key_ends)
    bias = rebuild(bias_kind, [t for t in (bias_a, bias_b) if t is not None], bias_numbers)
    extras = frozenset(want.split(",")) if want else frozenset[str]()
    return Problem(scale, masks, bias, dropout, seed, groups, group_count, extras)


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keep: Tensor | None,
    lengths: Tensor | None,
    query_segment: Tensor | None,
    key_segment: Tensor | None,
    groups: Tensor | None,
    bias_a: Tensor | None,
    bias_b: Tensor | None,
    seed: Tensor | None,
    query_ends: Tensor | None,
    key_ends: Tensor | None,
    mass_probe: Tensor | None,
    scale: float,
    bias_kind: int,
    bias_numbers: list[int],
    causal: int,
    window: int,
    dropout: float,
    group_count: int,
    want: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    problem = _problem(
        keep, lengths, query_segment, key_segment, groups, bias_a, bias_b, seed, query_ends, key_ends,
        scale, bias_kind, bias_numbers, causal, window, dropout, group_count, want,
    )  # fmt: skip
    match choose_attend_kernel(q, v).backend:
        case "triton":
            import kernels.attention.launch as launch

            rows = launch.forward(q, k, v, problem)
        case "chunked":
            rows = chunked.forward(q, k, v, problem)
        case _:
            rows = reference.attend(q, k, v, problem)
    out, lse, *extras = rows
    asked = (name in problem.want for name in ("entropy", "peak", "peak", "mass", "group_mass", "group_out"))
    given = [x if x is not None and wanted else q.new_empty(0) for x, wanted in zip(extras, asked, strict=True)]
    return out.contiguous(), lse.contiguous(), *(x.contiguous() for x in given)  # type: ignore[return-value]


def _fake(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    (b, h, n, _), (_, _, s, e) = q.shape, v.shape
    count, want = rest[-2], rest[-1].split(",")
    wide = q.dtype if q.dtype == torch.float64 else torch.float32

    def extra(name: str, *shape: int, dtype: torch.dtype = wide) -> Tensor:
        return q.new_empty(shape, dtype=dtype) if name in want else q.new_empty(0)

    return (
        q.new_empty(b, h, n, e),
        q.new_empty(b, h, n, dtype=wide),
        extra("entropy", b, h, n),
        extra("peak", b, h, n),
        extra("peak", b, h, n, dtype=torch.int32),
        extra("mass", b, h, s),
        extra("group_mass", b, h, n, count),
        extra("group_out", b, h, n, count, e, dtype=q.dtype),
    )


def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keep: Tensor | None,
    lengths: Tensor | None,
    query_segment: Tensor | None,
    key_segment: Tensor | None,
    groups: Tensor | None,
    bias_a: Tensor | None,
    bias_b: Tensor | None,
    seed: Tensor | None,
    query_ends: Tensor | None,
    key_ends: Tensor | None,
    out: Tensor,
    lse: Tensor,
    entropy: Tensor,
    peak: Tensor,
    peak_at: Tensor,
    group_mass: Tensor,
    group_out: Tensor,
    grad_out: Tensor | None,
    grad_lse: Tensor | None,
    grad_entropy: Tensor | None,
    grad_peak: Tensor | None,
    grad_mass: Tensor | None,
    grad_group_mass: Tensor | None,
    grad_group_out: Tensor | None,
    scale: float,
    bias_kind: int,
    bias_numbers: list[int],
    causal: int,
    window: int,
    dropout: float,
    group_count: int,
    want: str,
    need_bias: bool,
    need_mass: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    problem = _problem(
        keep, lengths, query_segment, key_segment, groups, bias_a, bias_b, seed, query_ends, key_ends,
        scale, bias_kind, bias_numbers, causal, window, dropout, group_count, want,
    )  # fmt: skip
    rows = Rows(out, lse, entropy, peak, peak_at, None, group_mass, group_out)
    grads = RowGradients(grad_out, grad_lse, grad_entropy, grad_peak, grad_mass, grad_group_mass, grad_group_out)
    if choose_attend_kernel(q, v).backend == "triton":
        import kernels.attention.launch as launch

        result = launch.backward(q, k, v, rows, grads, problem, need_bias=need_bias, need_mass=need_mass)
    else:
        result = chunked.backward(q, k, v, rows, grads, problem, need_bias=need_bias, need_mass=need_mass)
    tensors = [t for t in (bias_a, bias_b) if t is not None]
    bias = [g.to(t.dtype).contiguous() for g, t in zip(result.bias, tensors, strict=False)] if need_bias else []
    bias += [q.new_empty(0) for _ in range(2 - len(bias))]
    mass = lse.new_empty(0) if result.mass is None else result.mass
    return result.q.contiguous(), result.k.contiguous(), result.v.contiguous(), *bias, mass  # type: ignore[return-value]


def _backward_fake(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *_, need_bias, need_mass = rest
    like = [q, k, v, *(t if need_bias else None for t in rest[5:7])]
    lse = rest[11]
    mass = lse.new_empty(*q.shape[:2], k.shape[2]) if need_mass else lse.new_empty(0)
    return *(q.new_empty(0) if t is None else t.new_empty(t.shape) for t in like), mass


_SAVED = 13
_TENSORS = _SAVED + 1


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    out, lse, entropy, peak, peak_at, _mass, group_mass, group_out = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(peak_at)
    ctx.save_for_backward(*inputs[:_SAVED], out, lse, entropy, peak, peak_at, group_mass, group_out)
    ctx.rest = inputs[_TENSORS:]


def _gradients(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    out, lse, entropy, peak, _, mass, group_mass, group_out = grads
    bias = saved[8:10]
    need_bias, need_mass = any(ctx.needs_input_grad[8:10]), ctx.needs_input_grad[_SAVED]
    incoming = (out, lse, entropy, peak, mass, group_mass, group_out)
    dq, dk, dv, da, db, received = attend_backward(*saved, *incoming, *ctx.rest, need_bias, need_mass)
    dbias = [g if need_bias and t is not None else None for g, t in zip((da, db), bias, strict=True)]
    probe = received if need_mass else None
    return dq, dk, dv, None, None, None, None, None, *dbias, None, None, None, probe, *([None] * len(ctx.rest))


attend_backward = register("attend_backward", _backward, fake=_backward_fake)
attend_forward = register("attend", _forward, fake=_fake, setup=_setup, backward=_gradients)
