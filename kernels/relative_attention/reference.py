"""K5, the definition: causal attention whose scores know the distance between the two positions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class RelativeAttended(NamedTuple):
    """What the queries read and the log-sum-exp of their scores."""

    out: Float[Tensor, "b h n e"]
    lse: Float[Tensor, "b h n"]


def wide(dtype: torch.dtype) -> torch.dtype:
    """Type of sums: float32 for 16-bit inputs, else the input's own."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def visible(
    position: Int[Tensor, "b n"], s: int, keep: Bool[Tensor, "b s"] | None, local: int
) -> Bool[Tensor, "b 1 n s"]:
    """Which keys a query reads: none after itself; with `local`, its own block of that length and the one before."""
    key = torch.arange(s, device=position.device)
    allowed = key <= position[..., None]
    if local:
        allowed &= key >= (position // local - 1)[..., None] * local
    if keep is not None:
        allowed &= keep[:, None, :]
    return allowed[:, None]


def relative_attention_reference(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b j s d"],
    v: Float[Tensor, "b j s e"],
    table: Float[Tensor, "i r d"],
    keep: Bool[Tensor, "b s"] | None,
    start: Int[Tensor, " b"],
    local: int,
    scale: float,
) -> RelativeAttended:
    """score[i, j] = scale q_i . (k_j + table[distance]), distance = start + i - j, the last row for all beyond it.

    Builds the n x s map and the n x s x d table of distances' rows: for tests and for reading, not for use.
    """
    (_, h, n, _), s, r = q.shape, k.shape[2], table.shape[1]
    dtype = wide(q.dtype)
    k_h, v_h = (x.repeat_interleave(h // k.shape[1], dim=1).to(dtype) for x in (k, v))
    position = start[:, None] + torch.arange(n, device=q.device)
    distance = (position[..., None] - torch.arange(s, device=q.device)).clamp(0, r - 1)
    rows = table.expand(h, -1, -1).to(dtype)[:, distance].transpose(0, 1)
    wide_q = q.to(dtype)
    scores = torch.einsum("bhnd,bhsd->bhns", wide_q, k_h) + torch.einsum("bhnd,bhnsd->bhns", wide_q, rows)
    scores = (scores * scale).masked_fill(~visible(position, s, keep, local), -torch.inf)
    lse = scores.logsumexp(dim=-1)
    share = (scores - lse.masked_fill(lse.isinf(), 0)[..., None]).exp()
    return RelativeAttended((share @ v_h).to(q.dtype), lse)
