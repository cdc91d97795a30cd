"""K3, the definition: every bag's few queries read that bag's keys, one bag at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class SplitAttended(NamedTuple):
    """What the queries read; `weights` is None unless asked for."""

    out: Float[Tensor, "b h n e"]
    lse: Float[Tensor, "b h n"]
    weights: Tensor | None = None


def wide(dtype: torch.dtype) -> torch.dtype:
    """Type of sums over keys: float32 for 16-bit inputs, else the input's own."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def split_keys_reference(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "m j s d"],
    v: Float[Tensor, "m j s e"],
    starts: Int[Tensor, " b"],
    lengths: Int[Tensor, " b"],
    scale: float,
) -> SplitAttended:
    """Softmax attention of bag i over lengths[i] keys from starts[i] of its own row of k, or of the one shared row.

    out = softmax(scale q k^T) v;  lse = log sum exp(scale q k^T);  an empty bag gives out 0, lse -inf and weights 0.
    """
    group = q.shape[1] // k.shape[1]
    outs, lses = [], []
    weights = q.new_zeros(k.shape[0], q.shape[1], q.shape[2], k.shape[2], dtype=wide(q.dtype))
    for i, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
        row = i if k.shape[0] > 1 else 0
        keys = slice(start, start + length)
        k_i, v_i = (x[row, :, keys].repeat_interleave(group, dim=0).to(wide(q.dtype)) for x in (k, v))
        scores = scale * torch.einsum("hnd,hsd->hns", q[i].to(wide(q.dtype)), k_i)
        lse = scores.logsumexp(dim=-1) if length else scores.new_full(scores.shape[:2], -torch.inf)
        share = scores.softmax(dim=-1)
        outs.append(torch.einsum("hns,hse->hne", share, v_i).to(q.dtype))
        lses.append(lse)
        weights = weights.index_put(
            (
                torch.tensor(row, device=q.device)[None, None, None],
                torch.arange(q.shape[1], device=q.device)[:, None, None],
                torch.arange(q.shape[2], device=q.device)[None, :, None],
                torch.arange(start, start + length, device=q.device)[None, None],
            ),
            share,
        )
    return SplitAttended(torch.stack(outs), torch.stack(lses), weights)
