"""What towers are fed with: tokens of items by row, computed once for a frozen encoder and every time for another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from data.errors import DataError
from data.pairs.items import Pairs, Side
from encoders.encoder import Encoder
from encoders.frozen import Features, Progress, features_of
from fusion.tokens import Tokens
from tasks.retrieval.two_towers import Encoded, TwoTowers, joined


class Feed:
    """Tokens of one side of a collection.

    Args:
        encoder: of that side
        side: the items
        folder: where tokens of frozen encoders are kept
        progress: told while they are computed
    """

    def __init__(self, encoder: Encoder, side: Side, folder: Path, progress: Progress | None = None):
        self.encoder, self.side = encoder, side
        self.kept: Features | None = features_of(encoder, side, folder, progress=progress) if encoder.frozen else None

    def __call__(self, rows: Sequence[int]) -> Tokens:
        """Tokens of these rows, on the encoder's device; rows may repeat.

        Raises:
            DataError: the encoder keeps no token of one of them
        """
        tokens: Tokens = self.encoder(self.side.load(rows)) if self.kept is None else self.kept[rows]
        there = tokens.present
        if not there.all():
            item, kind = self.side.ids[rows[int((~there).int().argmax())]], type(self.encoder).__name__
            raise DataError(f"{self.side.name} {item}: {kind} keeps no token of it; leave it out of the collection")
        device = self.encoder.device
        return Tokens(tokens.x.to(device), tokens.keep.to(device)) if self.kept is not None else tokens


SHOWN = 20_000
"""Training items at most from which something is learnt before the first step."""


def learn(encoder: Encoder, side: Side, rows: Sequence[int]) -> None:
    """Let an encoder that is trained see the training items.

    Args:
        encoder: whose vocabulary or scale is to be learnt
        side: the items
        rows: of the training items
    """
    if not encoder.frozen:
        encoder.learn(side.load(_spread(rows)))


def shown(feed: Feed, rows: Sequence[int], batch: int = 256) -> Iterator[Tokens]:
    """Tokens of training items, some at a time.

    Args:
        feed: of their side
        rows: of the training items
        batch: items at once
    """
    chosen = _spread(rows)
    for start in range(0, len(chosen), batch):
        yield feed(chosen[start : start + batch])


def _spread(rows: Sequence[int]) -> Sequence[int]:
    """At most `SHOWN` of them, evenly spread."""
    return rows[:: max(1, -(-len(rows) // SHOWN))]


@torch.no_grad()
def encode(
    embed: Callable[[Tokens], Encoded],
    feed: Feed,
    rows: Sequence[int],
    batch: int = 256,
    progress: Progress | None = None,
) -> Encoded:
    """Items of these rows in the shared space, on the CPU.

    Args:
        embed: `TwoTowers.project_left` or `project_right`, of towers in evaluation mode
        feed: tokens of that side
        rows: which items
        batch: items at once
        progress: told after every batch
    """
    parts = []
    for start in range(0, len(rows), batch):
        parts.append(embed(feed(rows[start : start + batch])).to(torch.device("cpu")))
        if progress is not None:
            progress(min(start + batch, len(rows)), len(rows))
    return joined(parts)


def feeds(towers: TwoTowers, pairs: Pairs, folder: Path) -> tuple[Feed, Feed]:
    """Both sides of a collection."""
    return Feed(towers.left, pairs.left, folder), Feed(towers.right, pairs.right, folder)
