"""Attention and its gradient in plain torch, a few query rows at a time: memory O(L) beyond the inputs.

Each chunk sees whole rows of the map, so every extra is computed where the reference computes it. The backward pass
rebuilds the weights from the saved log-sum-exp. 16-bit inputs are computed in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kernels.attention import dropout
from kernels.attention.problem import Gradients, Problem, RowGradients, Rows

CHUNK_SCORES = 2**20


class _Chunk(NamedTuple):
    start: int
    stop: int
    scores: Float[Tensor, "b h rows s"]


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _per_key_head(x: Float[Tensor, "b h rows _"], key_heads: int) -> Float[Tensor, "b j stacked _"]:
    """Stack the query heads that share a key head along the rows."""
    return x if x.shape[1] == key_heads else x.reshape(x.shape[0], key_heads, -1, x.shape[-1])


def _chunks(q: Tensor, k: Tensor, problem: Problem) -> Iterator[_Chunk]:
    (b, h, n, _), (_, j, s, _) = q.shape, k.shape
    step = max(1, CHUNK_SCORES // max(1, b * h * s))
    for start in range(0, n, step):
        stop = min(n, start + step)
        rows = q[:, :, start:stop]
        scores = (_per_key_head(rows, j) @ k.mT).view(b, h, stop - start, s).mul_(problem.scale)
        if problem.bias is not None:
            scores += problem.bias.rows(start, stop, s)
        allowed = problem.masks.rows(start, stop, n, s, q.device)
        if allowed is not None:
            scores.masked_fill_(~allowed[:, None], -torch.inf)
        yield _Chunk(start, stop, scores)


def _drop(problem: Problem, b: int, h: int, chunk: _Chunk, keys: int) -> Tensor | None:
    if not problem.dropout or problem.seed is None:
        return None
    survive = dropout.survivors(problem.seed, problem.dropout, b, h, chunk.start, chunk.stop, keys)
    return survive.to(chunk.scores.dtype) / (1.0 - problem.dropout)


def forward(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b j s d"], v: Float[Tensor, "b j s e"], problem: Problem
) -> Rows:
    """Attention with every option; see `reference.attend` for the formulas."""
    (b, h, n, _), (_, j, s, e) = q.shape, v.shape
    dtype = q.dtype
    q, k, v = _wide(q), _wide(k), _wide(v)
    want, grouped, count = problem.want, problem.groups is not None, problem.group_count
    out = q.new_zeros(b, h, n, e)
    lse = q.new_full((b, h, n), -torch.inf)
    entropy = torch.zeros_like(lse) if "entropy" in want else None
    peak = torch.zeros_like(lse) if "peak" in want else None
    peak_at = torch.zeros_like(lse, dtype=torch.int32) if "peak" in want else None
    mass = q.new_zeros(b, h, s) if "mass" in want else None
    group_mass = q.new_zeros(b, h, n, count) if grouped else None
    group_out = q.new_zeros(b, h, n, count, e) if grouped and "group_out" in want else None
    member = problem.member(q.dtype)
    for chunk in _chunks(q, k, problem) if s else ():
        rows = slice(chunk.start, chunk.stop)
        scores = chunk.scores
        top, at = scores.max(dim=-1)
        top = top.where(top.isfinite(), 0.0)
        p = (scores - top[..., None]).exp_()
        total = p.sum(dim=-1)
        p /= total.where(total > 0, 1.0)[..., None]
        lse[:, :, rows] = total.log() + top
        if entropy is not None:
            mean_score = (p * scores.masked_fill(scores == -torch.inf, 0.0)).sum(dim=-1)
            entropy[:, :, rows] = torch.where(total > 0, lse[:, :, rows] - mean_score, 0.0)
        if peak is not None and peak_at is not None:
            peak[:, :, rows] = p.gather(-1, at[..., None])[..., 0]
            peak_at[:, :, rows] = at
        if mass is not None:
            mass += p.sum(dim=-2)
        if group_mass is not None and member is not None:
            group_mass[:, :, rows] = p @ member
        drop = _drop(problem, b, h, chunk, s)
        if drop is not None:
            p = p * drop
        out[:, :, rows] = (_per_key_head(p, j) @ v).view(b, h, -1, e)
        if group_out is not None and member is not None:
            for g in range(count):
                part = _per_key_head(p * member[:, :, None, :, g], j) @ v
                group_out[:, :, rows, g] = part.view(b, h, -1, e)
    return Rows(
        out.to(dtype),
        lse,
        entropy,
        peak,
        peak_at,
        mass,
        group_mass if "group_mass" in want else None,
        None if group_out is None else group_out.to(dtype),
    )


def backward(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b j s d"],
    v: Float[Tensor, "b j s e"],
    rows: Rows,
    grads: RowGradients,
    problem: Problem,
    *,
    need_bias: bool = True,
    need_mass: bool = False,
) -> Gradients:
    """Gradients of all inputs from the gradients of all outputs, and the received mass when `need_mass`.

    dS = p (dP - sum_j p dP) + g_lse p - g_entropy p (s - lse + entropy) + g_peak peak (1[j = peak_at] - p), where
    dP_ij = z_ij g_out_i.v_j + g_mass_j + g_group_mass_i,g(j) + z_ij g_group_out_i,g(j).v_j.
    """
    (b, h), (_, j, s, _) = q.shape[:2], v.shape
    dtypes = q.dtype, k.dtype, v.dtype
    q, k, v = _wide(q), _wide(k), _wide(v)
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    mass = q.new_zeros(b, h, s) if need_mass else None
    dbias = [torch.zeros_like(_wide(t)) for t in problem.bias.tensors] if problem.bias is not None else []
    member = problem.member(q.dtype)
    for chunk in _chunks(q, k, problem) if s else ():
        part = slice(chunk.start, chunk.stop)
        lse = rows.lse[:, :, part]
        p = (chunk.scores - lse.where(lse.isfinite(), 0.0)[..., None]).exp_()
        if mass is not None:
            mass += p.sum(dim=-2)
        drop = _drop(problem, b, h, chunk, s)
        used = p if drop is None else p * drop
        dp = torch.zeros_like(p)
        if grads.out is not None:
            g = _per_key_head(_wide(grads.out[:, :, part]), j)
            dv += _per_key_head(used, j).mT @ g
            dp += (g @ v.mT).view_as(p)
        if grads.group_out is not None and member is not None:
            for index in range(problem.group_count):
                of_group = member[:, :, None, :, index]
                g = _per_key_head(_wide(grads.group_out[:, :, part, index]), j)
                dv += _per_key_head(used * of_group, j).mT @ g
                dp += (g @ v.mT).view_as(p) * of_group
        if drop is not None:
            dp *= drop
        if grads.mass is not None:
            dp += grads.mass[:, :, None, :]
        if grads.group_mass is not None and member is not None:
            dp += grads.group_mass[:, :, part] @ member.mT
        ds = dp.sub_((p * dp).sum(dim=-1, keepdim=True))
        if grads.lse is not None:
            ds += grads.lse[:, :, part, None]
        if grads.entropy is not None and rows.entropy is not None:
            surplus = chunk.scores - lse[..., None] + rows.entropy[:, :, part, None]
            ds -= grads.entropy[:, :, part, None] * surplus.masked_fill(~surplus.isfinite(), 0.0)
        if grads.peak is not None and rows.peak is not None and rows.peak_at is not None:
            pull = (grads.peak * rows.peak)[:, :, part, None]
            ds -= pull
            ds *= p
            ds.scatter_add_(-1, rows.peak_at[:, :, part, None].long(), pull)
        else:
            ds *= p
        if problem.bias is not None and need_bias:
            problem.bias.accumulate(dbias, ds, chunk.start)
        ds *= problem.scale
        stacked = _per_key_head(ds, j)
        dq[:, :, part] = (stacked @ k).view(b, h, -1, q.shape[-1])
        dk += stacked.mT @ _per_key_head(q[:, :, part], j)
    return Gradients(dq.to(dtypes[0]), dk.to(dtypes[1]), dv.to(dtypes[2]), tuple(dbias), mass)


def received_mass(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b j s d"], problem: Problem, weight: Float[Tensor, "b h g n"]
) -> Float[Tensor, "b h g s"]:
    """Weighted sums of the attention weights each key receives, per group of queries."""
    q, k = _wide(q), _wide(k)
    mass = q.new_zeros(*weight.shape[:3], k.shape[2])
    for chunk in _chunks(q, k, problem) if k.shape[2] else ():
        top = chunk.scores.amax(dim=-1, keepdim=True)
        p = chunk.scores.sub_(top.where(top.isfinite(), 0.0)).exp_()
        total = p.sum(dim=-1)
        share = weight[..., chunk.start : chunk.stop].to(p.dtype) / total.where(total > 0, 1.0)[:, :, None]
        mass += share @ p
    return mass
