"""Launches the attention kernels: strides, tiles, row terms of the backward pass, and the buffers they write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kernels.attention import dropout
from kernels.attention.bias_gradient import walks_of
from kernels.attention.problem import Gradients, Problem, RowGradients, Rows
from kernels.attention.triton import attend_forward_kernel, attend_groups_kernel, received_mass_kernel
from kernels.attention.triton_backward import (
    attend_backward_bias_kernel,
    attend_backward_kv_kernel,
    attend_backward_q_kernel,
)
from kernels.bias import ALiBi, Bias, PerKey
from kernels.dispatch import interpreting
from kernels.masks import CAUSAL
from kernels.tile_rows import Row, bits_of, tile_row
from kernels.tiles import power_of_two, tl

INTERPRETED = Row("interpreted", 32, 256, (128, 128), 4, 1)


class Tile(NamedTuple):
    """Tile of queries x keys."""

    queries: int
    keys: int


def row_of(kernel: str, x: Tensor, width: int) -> Row:
    """The table's row for a kernel, a type and a padded head width; the interpreter is fastest with large tiles."""
    return INTERPRETED if interpreting() else tile_row(kernel, bits_of(x.dtype), width)


def _dense_last(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _precision(x: Tensor) -> dict[str, Any]:
    exact = x.dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest"
    return {"PRECISION": "ieee" if exact else "tf32", "ACC": tl.float64 if x.dtype == torch.float64 else tl.float32}


def bias_strides(bias: Bias | None) -> list[int]:
    """Strides (batch, head, row, column) of the first and second bias tensor, 0 where it broadcasts."""
    strides: list[int] = []
    for tensor in bias.tensors if bias is not None else ():
        kind = type(bias).__name__
        step = [0 if size == 1 else stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)]
        match kind:
            case "Dense" | "AxisFactored":
                strides += step
            case "PerKey":
                strides += [step[0], step[1], 0, step[2]]
            case "Relative1D":
                strides += [0, step[0], 0, step[1]]
            case "Relative2D":
                strides += [0, *step]
            case _:
                strides += [0, step[0], 0, 0]
    return strides + [0] * (8 - len(strides))


class _Call:
    """What every kernel of one call shares."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor | None, problem: Problem):
        self.q, self.k, self.problem = _dense_last(q), _dense_last(k), problem
        self.v = self.k if v is None else _dense_last(v)
        self.b, self.h, self.n, self.d = q.shape
        self.s, self.e = self.v.shape[2:]
        self.shared = self.h // k.shape[1]
        masks, bias = problem.masks, problem.bias
        unused = self.q
        given = (
            masks.keep, masks.lengths, masks.query_segment, masks.key_segment, masks.query_ends, masks.key_ends,
            problem.seed,
        )  # fmt: skip
        tensors = [unused if t is None else t.contiguous() for t in given]
        if masks.keep is not None:
            tensors[0] = tensors[0].view(torch.uint8)
        bias_tensors = [*(bias.tensors if bias is not None else ()), unused, unused][:2]
        self.mask_tensors = tensors[:6]
        self.seed = tensors[6]
        self.bias_tensors = bias_tensors
        self.strides = [*self.q.stride()[:3], *self.k.stride()[:3], *self.v.stride()[:3]]
        self.bias_layout = [*bias_strides(bias), *([*(bias.numbers if bias is not None else []), *[0] * 6][:6])]
        self.window = -1 if masks.window is None else masks.window
        p = problem.dropout
        self.drop = [dropout.threshold(p), 1.0 / (1.0 - p)]
        self.flags = {
            "BIAS": bias.kind if bias is not None else 0,
            "KEEP": masks.keep is not None,
            "LENGTHS": masks.lengths is not None,
            "SEGMENTS": masks.query_segment is not None,
            "PACKED": masks.query_ends is not None,
            "CAUSAL": CAUSAL[masks.causal],
            "WINDOW": masks.window is not None,
            **_precision(q),
        }
        self.blocks = {"BD": power_of_two(self.d), "BE": power_of_two(self.e)}
        self.width = max(self.blocks.values())

    def run(self, kernel: Callable[..., Any], name: str, grid: Callable[[Tile], int], *args: Any, **flags: Any) -> None:
        row = row_of(name, self.q, self.width)
        tile = Tile(*row.blocks)
        programs = grid(tile)
        if programs:
            kernel[(programs,)](  # type: ignore[index]
                *args, **self.flags, **flags, BM=tile.queries, BN=tile.keys,
                num_warps=row.warps, num_stages=row.stages, enable_fp_fusion=True,
            )  # fmt: skip


def _fixed(programs: int, _: Tile) -> int:
    return programs


def _up(size: int, tile: int) -> int:
    return -(-size // tile)


def forward(q: Tensor, k: Tensor, v: Tensor, problem: Problem) -> Rows:
    """Attention with every option; see `reference.attend` for the formulas."""
    call = _Call(q, k, v, problem)
    b, h, n, s, e = call.b, call.h, call.n, call.s, call.e
    want, wide = problem.want, _wide(q)
    out = q.new_empty(b, h, n, e)
    lse = q.new_empty(b, h, n, dtype=wide)
    entropy, peak = (torch.empty_like(lse) if name in want else None for name in ("entropy", "peak"))
    peak_at = torch.empty_like(lse, dtype=torch.int32) if peak is not None else None
    spare = lse
    call.run(
        attend_forward_kernel, "attend_fwd", lambda t: _up(n, t.queries) * b * h,
        call.q, call.k, call.v, out, lse, *(spare if x is None else x for x in (entropy, peak, peak_at)),
        *call.mask_tensors, call.seed, *call.bias_tensors, *call.strides, *out.stride()[:3], *call.bias_layout,
        h, call.shared, n, s, call.d, e, problem.scale, call.window, *call.drop,
        DROPOUT=bool(problem.dropout), ENTROPY=entropy is not None, PEAK=peak is not None, **call.blocks,
    )  # fmt: skip
    mass = received_mass(q, k, lse, problem, None)[:, :, 0] if "mass" in want else None
    group_mass = group_out = None
    if problem.groups is not None:
        count = problem.group_count
        group_mass = q.new_empty(b, h, n, count, dtype=wide)
        group_out = q.new_empty(b, h, n, count, e) if "group_out" in want else None
        call.run(
            attend_groups_kernel, "attend_groups", lambda t: _up(n, t.queries) * b * h * count,
            call.q, call.k, call.v, lse, problem.groups.contiguous(), group_mass, out if group_out is None else group_out,  # noqa: E501
            *call.mask_tensors, call.seed, *call.bias_tensors, *call.strides, *call.bias_layout,
            h, call.shared, count, n, s, call.d, e, problem.scale, call.window, *call.drop,
            DROPOUT=bool(problem.dropout), VALUES=group_out is not None, **call.blocks,
        )  # fmt: skip
    return Rows(out, lse, entropy, peak, peak_at, mass, group_mass if "group_mass" in want else None, group_out)


def received_mass(
    q: Tensor, k: Tensor, lse: Tensor, problem: Problem, weight: Float[Tensor, "b h groups n"] | None
) -> Float[Tensor, "b h groups s"]:
    """Sum over queries of (weighted) attention weights, per key and query group."""
    call = _Call(q, k, None, problem)
    groups = 1 if weight is None else weight.shape[2]
    mass = lse.new_empty(call.b, call.h, groups, call.s)
    call.run(
        received_mass_kernel, "received_mass", lambda t: _up(call.s, t.keys) * call.b * call.h * groups,
        call.q, call.k, lse, lse if weight is None else weight.contiguous(), mass,
        *call.mask_tensors, *call.bias_tensors, *call.strides[:6], *call.bias_layout,
        call.h, call.shared, groups, call.n, call.s, call.d, problem.scale, call.window,
        WEIGHT=weight is not None, BD=call.blocks["BD"],
    )  # fmt: skip
    return mass


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rows: Rows,
    grads: RowGradients,
    problem: Problem,
    *,
    need_bias: bool = True,
    need_mass: bool = False,
) -> Gradients:
    """Gradients of all inputs from the gradients of all outputs; see `triton_backward`.

    The dK/dV pass rebuilds the weights, so the received mass costs it one row sum: `need_mass` stores that.
    """
    call = _Call(q, k, v, problem)
    b, h, n, s, d, e = call.b, call.h, call.n, call.s, call.d, call.e
    wide = _wide(q)
    grouped = grads.group_mass is not None or grads.group_out is not None
    row, pull = _row_terms(call, rows, grads, problem)
    slots = problem.group_count + 1 if grouped else 1
    g_out = _output_gradient(call, grads, slots)
    spare = rows.lse
    g_mass = spare if grads.mass is None else grads.mass.to(wide).contiguous()
    g_entropy = spare if grads.entropy is None else grads.entropy.to(wide).contiguous()
    groups = g_group_mass = spare
    if grouped and problem.groups is not None:
        inside = (problem.groups >= 0) & (problem.groups < problem.group_count)
        groups = torch.where(inside, problem.groups, problem.group_count).contiguous()
        g_group_mass = q.new_zeros(b, h, n, slots, dtype=wide)
        if grads.group_mass is not None:
            g_group_mass[..., :-1] = grads.group_mass
    peaked = grads.peak is not None and rows.peak_at is not None
    incoming = (
        call.q, call.k, call.v, g_out, rows.lse, row, g_entropy, pull,
        rows.peak_at if peaked else spare, g_mass, groups, g_group_mass,
    )  # fmt: skip
    layout = (
        *call.mask_tensors, call.seed, *call.bias_tensors, *call.strides,
        g_out.stride(0), g_out.stride(1), g_out.stride(2), g_out.stride(3), *call.bias_layout,
        h, call.shared, slots, n, s, d, e, problem.scale, call.window, *call.drop,
    )  # fmt: skip
    flags = {
        "DROPOUT": bool(problem.dropout),
        "ENTROPY": grads.entropy is not None,
        "PEAK": peaked,
        "MASS": grads.mass is not None,
        "GROUPS": grouped,
        **call.blocks,
    }
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    call.run(
        attend_backward_q_kernel, "attend_dq", lambda t: _up(n, t.queries) * b * h,
        *incoming, dq, *layout, **flags,
    )  # fmt: skip
    per_key = need_bias and isinstance(problem.bias, PerKey)
    column_mass = rows.lse.new_empty(b, h, s) if need_mass else None
    column_ds = rows.lse.new_empty(b, h, s) if per_key else spare
    call.run(
        attend_backward_kv_kernel, "attend_dkv", lambda t: _up(s, t.keys) * b * k.shape[1],
        *incoming, dk, dv, spare if column_mass is None else column_mass, column_ds, *layout,
        STORE_MASS=need_mass, PER_KEY=per_key, **flags,
    )  # fmt: skip
    bias: tuple[Tensor, ...] = ()
    if per_key and problem.bias is not None:
        bias = (column_ds.sum_to_size(problem.bias.tensors[0].shape),)
    elif need_bias and problem.bias is not None:
        bias = _bias_gradients(call, problem.bias, incoming, layout, flags)
    return Gradients(dq, dk, dv, bias, column_mass)


def _row_terms(call: _Call, rows: Rows, grads: RowGradients, problem: Problem) -> tuple[Tensor, Tensor]:
    """`row_i` and `pull_i` of `triton_backward`."""
    wide = rows.lse.dtype
    row = torch.zeros_like(rows.lse)
    if grads.out is not None:
        row -= (grads.out.to(wide) * rows.out.to(wide)).sum(dim=-1)
    if grads.group_out is not None and rows.group_out is not None:
        row -= (grads.group_out.to(wide) * rows.group_out.to(wide)).sum(dim=(-2, -1))
    if grads.group_mass is not None and rows.group_mass is not None:
        row -= (grads.group_mass * rows.group_mass).sum(dim=-1)
    if grads.mass is not None:
        row -= _mean_over_keys(call, grads.mass, problem)
    if grads.lse is not None:
        row += grads.lse
    pull = row
    if grads.peak is not None and rows.peak is not None:
        pull = grads.peak * rows.peak
        row = row - pull
    if grads.entropy is not None and rows.entropy is not None:
        row -= grads.entropy * (rows.entropy - rows.lse.where(rows.lse.isfinite(), 0.0))
    return row.contiguous(), pull.contiguous()


def _mean_over_keys(call: _Call, x: Float[Tensor, "b h s"], problem: Problem) -> Float[Tensor, "b h n"]:
    """sum_j p_ij x_j: attention with a value of one column, which is different for every query head."""
    keys = call.k if call.shared == 1 else call.k.repeat_interleave(call.shared, dim=1)
    plain = Problem(problem.scale, problem.masks, problem.bias)
    wide = x.to(torch.float64 if call.q.dtype == torch.float64 else torch.float32)
    if call.q.dtype.itemsize == 2:
        return forward(call.q.float(), keys.float(), wide[..., None].contiguous(), plain).out[..., 0]
    return forward(call.q, keys, wide[..., None].contiguous(), plain).out[..., 0]


def _output_gradient(call: _Call, grads: RowGradients, slots: int) -> Float[Tensor, "b h slots n e"]:
    """What meets the values of each key group, the last slot of those in none: gradients of `out` and of its part."""
    b, h, n, e = call.b, call.h, call.n, call.e
    out = call.q.new_zeros(e).expand(b, h, n, e) if grads.out is None else _dense_last(grads.out.to(call.q.dtype))
    whole = out[:, :, None].expand(b, h, slots, n, e)
    if grads.group_out is None:
        return whole
    return whole + F.pad(grads.group_out.to(call.q.dtype).transpose(2, 3), (0, 0, 0, 0, 0, 1))


def _bias_gradients(
    call: _Call, bias: Bias, incoming: tuple[Any, ...], layout: tuple[Any, ...], flags: dict[str, Any]
) -> tuple[Tensor, ...]:
    tile = Tile(*row_of("attend_bias", call.q, call.width).blocks)
    gradients = []
    for place, tensor in enumerate(bias.tensors):
        pieces = [(walks_of(bias, n, s, tile.queries, tile.keys)[place], q0, k0) for q0, n, k0, s in _sequences(call)]
        walks = pieces[0][0]
        has_batch = tensor.ndim == 4
        bias_heads = tensor.shape[1] if has_batch else tensor.shape[0]
        batches = tensor.shape[0] if has_batch else 1
        laid = [(q0 + a, qs, k0 + c, ks, t) for piece, q0, k0 in pieces for a, qs, c, ks, t in piece.rows]
        rows = torch.tensor(laid, dtype=torch.int32, device=call.q.device)
        owners = batches * bias_heads
        sums = incoming[4].new_empty(batches, bias_heads, len(rows), tile.queries, tile.keys)
        count = len(rows)
        call.run(
            attend_backward_bias_kernel, "attend_bias", partial(_fixed, owners * count),
            *incoming, rows, sums, *layout, count, call.b, call.b // batches, call.h // bias_heads,
            walks.query_step, walks.key_step, walks.key_stride, **flags,
        )  # fmt: skip
        parts = sums.split([len(piece.rows) for piece, *_ in pieces], dim=2)
        gradient = torch.stack([piece.fold(part) for (piece, *_), part in zip(pieces, parts, strict=True)]).sum(dim=0)
        gradients.append(gradient if isinstance(bias, ALiBi) else gradient.reshape(tensor.shape))
    return tuple(gradients)


def _sequences(call: _Call) -> list[tuple[int, int, int, int]]:
    """First query, queries, first key and keys of each packed sequence that has both; else the whole."""
    masks = call.problem.masks
    if masks.query_ends is None or masks.key_ends is None:
        return [(0, call.n, 0, call.s)]
    q, k = masks.query_ends.tolist(), masks.key_ends.tolist()
    runs = zip(q, q[1:], k, k[1:], strict=False)
    return [(q0, q1 - q0, k0, k1 - k0) for q0, q1, k0, k1 in runs if q1 > q0 and k1 > k0]
