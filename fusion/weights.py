"""Exact attention weights of a run of query rows, and statistics of all rows in chunks: never an n x s map."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kernels.bias import Bias
from kernels.bias import Dense as DenseBias
from kernels.masks import Masks

RowWeights = Callable[[int, int], Tensor]
CHUNK = 1 << 20


def exact_weights(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b j s d"],
    start: int,
    stop: int,
    *,
    scale: float | None = None,
    bias: Bias | Float[Tensor, "_ _ _ s"] | None = None,
    allowed: Bool[Tensor, "_ _ _ s"] | None = None,
    segments: tuple[Int[Tensor, "b n"], Int[Tensor, "b s"]] | None = None,
    **masks: Any,
) -> Float[Tensor, "b h _ s"]:
    """Softmax weights of the query rows `start..stop-1`; a row that may read nothing gets zeros.

    Args:
        q: queries
        k: keys; `j` divides `h`
        start: first row
        stop: one past the last row
        scale: default `d ** -0.5`
        bias: as in `kernels.attention.attend`
        allowed: which keys each of these rows may read, on top of the masks
        segments: as in `attend`
        masks: `keep`, `lengths`, `causal`, `window` as in `attend`
    """
    n, s = q.shape[2], k.shape[2]
    scale = q.shape[3] ** -0.5 if scale is None else scale
    k = repeat(k, "b j s d -> b (j r) s d", r=q.shape[1] // k.shape[1])
    scores = scale * (q[:, :, start:stop] @ k.transpose(-1, -2))
    if bias is not None:
        form = bias if isinstance(bias, Bias) else DenseBias(bias)
        scores = scores + form.rows(start, stop, s)
    own, theirs = (None, None) if segments is None else segments
    pairs = Masks(query_segment=own, key_segment=theirs, **masks).rows(start, stop, n, s, q.device)
    mask = torch.ones_like(scores, dtype=torch.bool)
    if pairs is not None:
        mask = mask & pairs[:, None]
    if allowed is not None:
        mask = mask & allowed
    return masked_softmax(scores, mask)


def masked_softmax(scores: Float[Tensor, "*rows s"], mask: Bool[Tensor, "*#rows s"]) -> Float[Tensor, "*rows s"]:
    """Softmax over the allowed keys; zeros (with zero gradients) where there is none."""
    some = mask.any(dim=-1, keepdim=True)
    scores = scores.masked_fill(~mask & some, float("-inf"))
    return torch.where(some, scores.softmax(dim=-1), 0.0)


def summarise(
    weights: RowWeights,
    shape: tuple[int, int, int, int],
    want: Collection[str],
    *,
    groups: Int[Tensor, "b s"] | None = None,
) -> dict[str, Tensor]:
    """Statistics of an attention map from chunks of its rows, in memory O(n + s); nothing wanted, nothing computed.

    Args:
        weights: exact weights of rows start..stop-1, `[b, h, stop - start, s]`
        shape: b, h, n, s of the map
        want: `mass` [b, h, s], `entropy`, `peak`, `argmax` [b, h, n], `group_mass` [b, h, n, groups]
        groups: group of each key, 0, 1, ...; negative = in no group
    """
    b, h, n, s = shape
    step = max(1, CHUNK // max(1, b * h * s))
    member = None
    if groups is not None:
        member = (groups[..., None] == torch.arange(int(groups.max()) + 1, device=groups.device))[:, None]
    elif "group_mass" in want:
        raise ValueError("group_mass needs groups: the group of each source token, ints [b, s]")
    rows = [(start, min(n, start + step)) for start in range(0, n if want else 0, step)]
    if torch.is_grad_enabled():  # the weights of a chunk are made again for its gradients
        parts = [checkpoint(_statistics, weights, *ends, want, member, use_reentrant=False) for ends in rows]
        joined = {name: [part[name] for part in parts] for name in (parts[0] if parts else ())}
        return {name: sum(part[1:], part[0]) if name == "mass" else torch.cat(part, 2) for name, part in joined.items()}
    found: dict[str, Tensor] = {}
    for start, stop in rows:
        for name, part in _statistics(weights, start, stop, want, member).items():
            if name == "mass":
                found[name] = found[name].add_(part) if name in found else part
            else:  # one result from the start: many small parts kept between large tensors scatter over the heap
                if name not in found:
                    found[name] = part.new_empty(b, h, n, *part.shape[3:])
                found[name][:, :, start:stop] = part
    return found


def _statistics(
    weights: RowWeights, start: int, stop: int, want: Collection[str], member: Bool[Tensor, "b 1 s groups"] | None
) -> dict[str, Tensor]:
    """Statistics of the rows start..stop-1; their `mass` is what these rows alone give."""
    w = weights(start, stop)
    found = {}
    if "mass" in want:
        found["mass"] = w.sum(dim=2)
    if "entropy" in want:
        found["entropy"] = -(w * w.clamp_min(torch.finfo(w.dtype).tiny).log()).sum(dim=-1)
    if "peak" in want:
        found["peak"] = w.amax(dim=-1)
    if "argmax" in want:
        found["argmax"] = torch.where(w.any(dim=-1), w.argmax(dim=-1), -1)
    if "group_mass" in want and member is not None:
        found["group_mass"] = w @ member.to(w.dtype)
    return found
