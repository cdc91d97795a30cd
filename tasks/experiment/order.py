"""The order in which an epoch visits the training cases: a function of the seed and the epoch's number alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class EpochOrder(Sampler[int]):
    """A fresh order every epoch that a resumed run finds again.

    Args:
        cases: how many there are
        seed: of the unit
        weights: draw with replacement in proportion to these, as many as there are cases; None = a permutation
    """

    def __init__(self, cases: int, seed: int, weights: Sequence[float] | None = None):
        self.cases, self.seed, self.epoch = cases, seed, 0
        self.weights = None if weights is None else torch.as_tensor(weights, dtype=torch.float64)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        if self.weights is None:
            order = torch.randperm(self.cases, generator=generator)
        else:
            order = torch.multinomial(self.weights, self.cases, replacement=True, generator=generator)
        return iter(order.tolist())

    def __len__(self) -> int:
        return self.cases


def balancing_weights(classes: Sequence[object]) -> list[float]:
    """Inverse class frequencies: every class is drawn equally often on average."""
    counts: dict[object, int] = {}
    for c in classes:
        counts[c] = counts.get(c, 0) + 1
    return [len(classes) / counts[c] for c in classes]
