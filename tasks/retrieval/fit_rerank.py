"""Fit a cross-encoder on the mistakes of trained towers; the epoch is chosen on validation items."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.optim import Optimizer

from data.pairs.items import Pairs
from tasks.experiment.schedule import without_decay
from tasks.retrieval.feed import encode
from tasks.retrieval.fit_unit import Fitted, training_pairs, validation_galleries
from tasks.retrieval.rerank import CrossEncoder, hard_negatives, rerank_loss, reranked
from tasks.retrieval.scores import scores_of


@dataclass(frozen=True)
class RerankOptions:
    """How a cross-encoder is trained and used.

    Attributes:
        top: first hits of the towers that are read again
        negatives: wrong answers per right one, the best scored of the batch
        batch_size: pairs per step
        epochs: passes over the training pairs
        width, heads, dropout: of the cross-encoder; heads must divide width
    """

    top: int = 10
    negatives: int = 7
    batch_size: int = 32
    epochs: int = 5
    width: int = 128
    heads: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("top", "negatives", "epochs", "width", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"rerank.{name}: expected at least 1, found {getattr(self, name)}")
        if self.width % self.heads:
            raise ValueError(f"rerank.heads: {self.heads} does not divide width={self.width}")
        if self.batch_size <= self.negatives:
            raise ValueError(
                f"rerank.batch_size: expected more than negatives={self.negatives}, found {self.batch_size}"
            )


def fit_cross_encoder(
    model: CrossEncoder,
    fitted: Fitted,
    pairs: Pairs,
    optimizer: Callable[[Iterable[Any]], Optimizer],
    seed: int,
    options: RerankOptions,
) -> pd.DataFrame:
    """Train on training pairs and keep the epoch that ranks the towers' first hits best on validation.

    The negatives of a left item are the right items of its batch that the towers score highest.

    Args:
        model: changed in place; left in evaluation mode
        fitted: trained towers, which stay as they are
        pairs: the collection; its test items are never looked at
        optimizer: built from parameter groups
        seed: of order and dropout
        options: batches, negatives, epochs

    Returns:
        one row per epoch: epoch, train_loss, validation_mrr. Epoch -1 is the order of the towers
    """
    matched = torch.tensor(training_pairs(pairs))
    stepper = optimizer(without_decay(model))
    truth, hits = _validation_hits(fitted, pairs, options.top)
    rows = [{"epoch": -1.0, "train_loss": float("nan"), "validation_mrr": _reciprocal_rank(truth, hits)}]
    best: tuple[float, dict[str, Tensor]] = (-1.0, {})
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    for epoch in range(options.epochs):
        model.train()
        total, steps = 0.0, 0
        for batch in matched[torch.randperm(len(matched), generator=generator)].split(options.batch_size):
            if len(batch) > options.negatives:
                loss = _step(model, fitted, pairs, batch, options.negatives)
                if loss is not None:
                    stepper.zero_grad()
                    loss.backward()
                    stepper.step()
                    total, steps = total + float(loss.detach()), steps + 1
        model.eval()
        score = _reciprocal_rank(truth, _reordered(model, fitted, pairs, hits))
        rows.append({"epoch": float(epoch), "train_loss": total / max(1, steps), "validation_mrr": score})
        if score > best[0]:
            best = (score, copy.deepcopy(model.state_dict()))
    model.load_state_dict(best[1])
    return pd.DataFrame(rows)


def rerank(
    model: CrossEncoder,
    fitted: Fitted,
    asking: list[int],
    searched: list[int],
    scores: Float[Tensor, "a b"],
    top: int,
    turned: bool = False,
) -> Int[Tensor, "a k"]:
    """Positions in `searched` of the first hits of every item that asks, in the cross-encoder's order.

    Args:
        model: trained
        fitted: whose feeds give the tokens
        asking: rows of the items that ask
        searched: rows of the gallery
        scores: of the towers
        top: how many hits are read again, at most the size of the gallery
        turned: right items ask and left ones are searched
    """
    hits = scores.argsort(dim=1, descending=True, stable=True)[:, :top]
    ask, search = reversed(fitted.feeds) if turned else fitted.feeds
    return reranked(model, ask(asking), search(searched), hits, turned=turned)[1]


@torch.no_grad()
def _ranked(fitted: Fitted, left: list[int], right: list[int]) -> Float[Tensor, "a b"]:
    towers, (left_feed, right_feed) = fitted.towers, fitted.feeds
    asking, searched = encode(towers.project_left, left_feed, left), encode(towers.project_right, right_feed, right)
    return scores_of(asking, searched, fitted.objective.score, fitted.objective.global_share)


def _step(
    model: CrossEncoder, fitted: Fitted, pairs: Pairs, batch: Int[Tensor, "b 2"], negatives: int
) -> Float[Tensor, ""] | None:
    """The loss of a batch, or None when some item has too few wrong answers in it."""
    left, right = (column.tolist() for column in batch.unbind(dim=1))
    unique = list(dict.fromkeys(right))
    partner = torch.from_numpy(pairs.relevance(left, unique))
    if int((~partner).sum(dim=1).min()) < negatives:
        return None
    wrong = hard_negatives(_ranked(fitted, left, unique), partner, negatives)
    own = torch.tensor([unique.index(row) for row in right])
    return rerank_loss(model, fitted.feeds[0](left), fitted.feeds[1](unique), wrong, own)


class _Hits:
    """The first hits of one validation gallery: who asks, who is searched, positions of the hits."""

    def __init__(self, left: list[int], right: list[int], at: Int[Tensor, "a k"]):
        self.left, self.right, self.at = left, right, at


def _validation_hits(fitted: Fitted, pairs: Pairs, top: int) -> tuple[list[Bool[Tensor, "a b"]], list[_Hits]]:
    truths, found = [], []
    for gallery in validation_galleries(pairs):
        left, right = list(gallery.left_queries), list(gallery.right_gallery)
        order = _ranked(fitted, left, right).argsort(dim=1, descending=True, stable=True)
        truths.append(torch.from_numpy(pairs.relevance(left, right)))
        found.append(_Hits(left, right, order[:, : min(top, len(right))]))
    return truths, found


def _reordered(model: CrossEncoder, fitted: Fitted, pairs: Pairs, hits: list[_Hits]) -> list[_Hits]:
    again = []
    for one in hits:
        left, right = fitted.feeds[0](one.left), fitted.feeds[1](one.right)
        again.append(_Hits(one.left, one.right, reranked(model, left, right, one.at)[1]))
    return again


def _reciprocal_rank(truth: list[Bool[Tensor, "a b"]], hits: list[_Hits]) -> float:
    """Mean over queries of 1 / place of the first right answer among the hits, 0 when there is none."""
    found = []
    for right, one in zip(truth, hits, strict=True):
        correct = right.gather(1, one.at).double()
        place = torch.arange(1, correct.shape[1] + 1)
        found.append((correct / place).amax(dim=1))
    return float(torch.cat(found).mean())
