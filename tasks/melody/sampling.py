"""Choose among legal values: temperature, nucleus, and whether a rule bound the choice."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tasks.melody.rules import Sampling


class Draws:
    """Uniform numbers, a stream per song that depends on the seed and the song's number alone.

    Args:
        seed: of the sampling
        rows: songs
    """

    def __init__(self, seed: int, rows: int):
        self.generators = [torch.Generator().manual_seed(seed * 1_000_003 + row) for row in range(rows)]
        self.left = torch.empty(rows, 0)

    def next(self) -> Float[Tensor, " b"]:
        if not self.left.shape[1]:
            self.left = torch.stack([torch.rand(256, generator=generator) for generator in self.generators])
        value, self.left = self.left[:, 0], self.left[:, 1:]
        return value


def choose(
    logits: Float[Tensor, "b v"], legal: Bool[Tensor, "b v"], uniform: Float[Tensor, " b"], sampling: Sampling
) -> Int[Tensor, " b"]:
    """A legal value per row by inversion of the nucleus' distribution; rows without one give 0.

    Args:
        logits: of the model
        legal: what the grammar allows
        uniform: in [0, 1)
        sampling: temperature and nucleus
    """
    masked = (logits / sampling.temperature).masked_fill(~legal, -torch.inf)
    masked = masked.masked_fill(~legal.any(dim=1, keepdim=True), 0.0)
    share, order = masked.softmax(dim=1).sort(dim=1, descending=True, stable=True)
    before = share.cumsum(dim=1) - share
    nucleus = share.masked_fill(before >= sampling.top_p, 0.0)
    total = nucleus.cumsum(dim=1)
    # Strictly below the last sum, so that rounding never leads beyond the nucleus.
    wanted = (uniform * total[:, -1]).clamp(max=torch.nextafter(total[:, -1], total.new_zeros(())))
    at = torch.searchsorted(total, wanted[:, None], right=True).clamp(max=share.shape[1] - 1)
    return order.gather(1, at)[:, 0]


def bound_by(
    logits: Float[Tensor, "b v"], legal: Bool[Tensor, "b v"]
) -> tuple[Bool[Tensor, " b"], Float[Tensor, " b"]]:
    """Whether the likeliest value of each row is illegal, and the probability of all that are."""
    share = logits.softmax(dim=1)
    best = share.argmax(dim=1, keepdim=True)
    return ~legal.gather(1, best)[:, 0], share.masked_fill(legal, 0.0).sum(dim=1)
