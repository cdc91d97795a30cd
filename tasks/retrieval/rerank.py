"""Re-ranking: a cross-encoder reads both items of a pair together, for the first few hits of a dual encoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fusion.block import Block, FeedForward
from fusion.core import FusionCore, Stream
from fusion.operators.dense import Dense
from fusion.summary import Mean
from fusion.tokens import Tokens


class CrossEncoder(nn.Module):
    """Does this left item belong to this right item? Both read each other through the fusion core.

    Args:
        left_width: width of the left encoder's tokens
        right_width: width of the right encoder's tokens
        width: of the streams
        heads: attention heads; must divide width
        dropout: of inputs, reads and feed-forward layers
    """

    def __init__(self, left_width: int, right_width: int, width: int = 128, heads: int = 4, dropout: float = 0.1):
        super().__init__()
        self.left, self.right = (
            nn.Sequential(nn.Dropout(dropout), nn.Linear(given, width)) for given in (left_width, right_width)
        )

        def block() -> Block:
            return Block(width, Dense(width, heads), FeedForward(width, 2 * width, dropout), dropout=dropout)

        self.core = FusionCore(
            width,
            {side: Stream(block(), summary=Mean()) for side in ("left", "right")},
            {"left <- right": block(), "right <- left": block()},
        )
        self.score = nn.Sequential(nn.LayerNorm(3 * width), nn.Linear(3 * width, 1))

    def forward(self, left: Tokens, right: Tokens) -> Float[Tensor, " b"]:
        """One logit per pair; left and right items stand side by side."""
        streams = {"left": _through(self.left, left), "right": _through(self.right, right)}
        read = self.core(streams).summaries
        a, b = read["left"], read["right"]
        return self.score(torch.cat([a, b, a * b], dim=1))[:, 0]


def _through(layer: nn.Module, tokens: Tokens) -> Tokens:
    tokens = tokens.zeroed()
    return tokens.with_x(layer(tokens.x))


def hard_negatives(scores: Float[Tensor, "a b"], partner: Bool[Tensor, "a b"], number: int) -> Int[Tensor, "a number"]:
    """The best scored wrong answers of every query, best first; ties in the order of the gallery.

    Raises:
        ValueError: a query has fewer wrong answers than that
    """
    wrong = (~partner).sum(dim=1)
    if len(wrong) and number > int(wrong.min()):
        raise ValueError(f"number={number}: query {int(wrong.argmin())} has {int(wrong.min())} wrong answers")
    order = scores.masked_fill(partner, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return order[:, :number]


def rerank_loss(
    model: CrossEncoder, left: Tokens, right: Tokens, negatives: Int[Tensor, "b k"], partner: Int[Tensor, " b"]
) -> Float[Tensor, ""]:
    """Cross entropy of the partner among itself and some wrong answers, averaged over left items.

    Args:
        model: the cross-encoder
        left: items that ask
        right: items to choose from
        negatives: rows of `right` that are wrong for each left item
        partner: the row of `right` that is right
    """
    choice = torch.cat([partner[:, None], negatives], dim=1)
    logits = _pairs(model, left, right, choice)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


@torch.no_grad()
def reranked(
    model: CrossEncoder,
    left: Tokens,
    right: Tokens,
    hits: Int[Tensor, "a k"],
    chunk: int = 64,
    progress: Callable[[int, int], None] | None = None,
    turned: bool = False,
) -> tuple[Float[Tensor, "a k"], Int[Tensor, "a k"]]:
    """The first hits of every query in the order of the cross-encoder; ties keep the order they had.

    Args:
        model: the cross-encoder; used in evaluation mode, its mode is restored
        left: items that ask
        right: the gallery
        hits: rows of the gallery per query, best first
        chunk: queries at once
        progress: called with (queries done, queries in all)
        turned: the items that ask are right ones, the gallery is of left ones

    Returns:
        logits and rows of the gallery, best first
    """
    training = model.training
    model.eval()
    logits, order = [], []
    for start in range(0, len(hits), chunk):
        rows = slice(start, start + chunk)
        found = _pairs(model, _taken(left, torch.arange(len(hits))[rows]), right, hits[rows], turned)
        value, at = found.sort(dim=1, descending=True, stable=True)
        logits.append(value)
        order.append(hits[rows].gather(1, at))
        if progress is not None:
            progress(min(start + chunk, len(hits)), len(hits))
    model.train(training)
    return torch.cat(logits), torch.cat(order)


def _pairs(
    model: CrossEncoder, asking: Tokens, gallery: Tokens, choice: Int[Tensor, "a k"], turned: bool = False
) -> Float[Tensor, "a k"]:
    a, k = choice.shape
    rows = torch.arange(a, device=choice.device).repeat_interleave(k)
    pair = _taken(asking, rows), _taken(gallery, choice.flatten())
    return model(*(reversed(pair) if turned else pair)).view(a, k)


def _taken(tokens: Tokens, rows: Int[Tensor, " m"]) -> Tokens:
    return Tokens(tokens.x[rows], tokens.keep[rows])
