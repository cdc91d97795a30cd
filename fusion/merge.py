"""Reads of disjoint key sets become one softmax: the log-sum-exp merge (papers/x-attention-summary.md)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from kernels.attention import Attended


def shares(lses: Sequence[Float[Tensor, "b h n"]]) -> tuple[list[Float[Tensor, "b h n"]], Float[Tensor, "b h n"]]:
    """How much of the joint softmax falls on each key set, and the joint log-sum-exp.

    `share_a = exp(lse_a - lse)`, `lse = log(sum_a exp(lse_a))`. A query that no set has a key for gets shares of 0 and
    a log-sum-exp of -inf, with zero gradients.
    """
    if not lses:
        raise ValueError("merge: no key set was given; expected the reads of at least one")
    stacked = torch.stack(list(lses))
    top = stacked.detach().amax(dim=0)
    top = torch.where(torch.isneginf(top), 0.0, top)
    mass = torch.exp(stacked - top)
    total = mass.sum(dim=0)
    some = total > 0
    safe = torch.where(some, total, 1.0)
    return list(mass / safe), torch.where(some, top + safe.log(), float("-inf"))


def merge(parts: Sequence[Attended]) -> Attended:
    """One softmax over several disjoint key sets, from a read of each that carries its `lse`; exact."""
    lses: list[Tensor] = []
    for part in parts:
        if part.lse is None:
            raise ValueError('merge: a read has no lse; ask for it with attend(..., want=frozenset({"lse"}))')
        lses.append(part.lse)
    share, lse = shares(lses)
    out = sum(
        (part.out * s[..., None].to(part.out.dtype) for part, s in zip(parts, share, strict=True)), 0 * parts[0].out
    )
    return Attended(out, lse)
