"""Batches of pieces of like length, in an order that a resumed run finds again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from tasks.experiment.order import EpochOrder

WINDOW = 8


class LengthBatches(Sampler[list[int]]):
    """Pieces are drawn in the epoch's order and, within every `WINDOW` batches, sorted by length: little padding, and
    batches that differ between epochs.

    Args:
        lengths: of the pieces
        size: pieces per batch
        seed: of the unit
    """

    def __init__(self, lengths: Sequence[int], size: int, seed: int):
        self.lengths, self.size = lengths, size
        self.sampler = EpochOrder(len(lengths), seed)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        for start in range(0, len(order), WINDOW * self.size):
            window = order[start : start + WINDOW * self.size]
            drawn = {piece: at for at, piece in enumerate(window)}
            by_length = sorted(window, key=lambda piece: (self.lengths[piece], piece))
            batches = [by_length[at : at + self.size] for at in range(0, len(by_length), self.size)]
            yield from sorted(batches, key=lambda batch: drawn[batch[0]])

    def __len__(self) -> int:
        whole, rest = divmod(len(self.lengths), WINDOW * self.size)
        return whole * WINDOW + -(-rest // self.size)
