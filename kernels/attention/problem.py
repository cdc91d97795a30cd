"""What is asked of one attention call, apart from its queries, keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kernels.bias import Bias
from kernels.masks import Masks

EXTRAS = ("lse", "entropy", "peak", "mass", "group_mass", "group_out")
MOST_GROUPS = 8


@dataclass(frozen=True)
class Problem:
    """Masks, bias, dropout and the extras wanted.

    Attributes:
        scale: factor on `q.k`
        masks: which pairs meet
        bias: additive score term
        dropout: probability of dropping a weight of the output (extras see the undropped weights)
        seed: key of the dropout mask
        groups: group of each key, 0..group_count-1; any other number is in no group
        group_count: number of key groups
        want: extras wanted, names from `EXTRAS`
    """

    scale: float
    masks: Masks
    bias: Bias | None = None
    dropout: float = 0.0
    seed: Int[Tensor, " 1"] | None = None
    groups: Int[Tensor, "*any"] | None = None
    group_count: int = MOST_GROUPS
    want: frozenset[str] = frozenset()

    def member(self, dtype: torch.dtype) -> Float[Tensor, "_ 1 _ g"] | None:
        """1 where a key is of a group, `[b, 1, s, groups]`; None without groups."""
        if self.groups is None:
            return None
        ids = torch.arange(self.group_count, device=self.groups.device)
        return (self.groups[:, None, :, None] == ids).to(dtype)


class Rows(NamedTuple):
    """Everything a forward pass can give; what was not asked for is None.

    `peak_at` is the key of the largest weight: the gradient of `peak` needs it.
    """

    out: Float[Tensor, "b h n e"]
    lse: Float[Tensor, "b h n"]
    entropy: Float[Tensor, "b h n"] | None = None
    peak: Float[Tensor, "b h n"] | None = None
    peak_at: Int[Tensor, "b h n"] | None = None
    mass: Float[Tensor, "b h s"] | None = None
    group_mass: Float[Tensor, "b h n g"] | None = None
    group_out: Float[Tensor, "b h n g e"] | None = None


class RowGradients(NamedTuple):
    """Gradients arriving at the outputs of a forward pass; None where nothing depends on one."""

    out: Float[Tensor, "b h n e"] | None = None
    lse: Float[Tensor, "b h n"] | None = None
    entropy: Float[Tensor, "b h n"] | None = None
    peak: Float[Tensor, "b h n"] | None = None
    mass: Float[Tensor, "b h s"] | None = None
    group_mass: Float[Tensor, "b h n g"] | None = None
    group_out: Float[Tensor, "b h n g e"] | None = None


class Gradients(NamedTuple):
    """Gradients leaving at the inputs, `bias` in the order of `Bias.tensors`; and the mass each key received."""

    q: Float[Tensor, "b h n d"]
    k: Float[Tensor, "b j s d"]
    v: Float[Tensor, "b j s e"]
    bias: tuple[Tensor, ...] = ()
    mass: Float[Tensor, "b h s"] | None = None
