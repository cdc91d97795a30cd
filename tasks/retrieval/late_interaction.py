"""Exact scores of stored items for one query, whatever the score, and the best of all items by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.errors import DataError
from tasks.retrieval.exact_search import MEGABYTE, Found, Progress, best_of, merged
from tasks.retrieval.scores import Score
from tasks.retrieval.stored_items import StoredItems
from tasks.retrieval.two_towers import Encoded

QUERIES = 32
"""Queries scored together: their tokens share the reading of the stored ones."""


@dataclass(frozen=True)
class Query:
    """One item that asks.

    Attributes:
        vector: of unit length; of several wordings their mean
        tokens: unit vectors, none when only vectors are compared
        weights: share of each token in the score; None = all alike
    """

    vector: Float[Tensor, " d"]
    tokens: Float[Tensor, "t d"]
    weights: Float[Tensor, " t"] | None = None

    @property
    def shares(self) -> Float[Tensor, " t"]:
        """What each token counts; together 1."""
        return torch.full((len(self.tokens),), 1 / max(1, len(self.tokens))) if self.weights is None else self.weights

    @classmethod
    def ensemble(cls, wordings: Sequence[Query]) -> Query:
        """One query whose score of any item is the mean of what the wordings score."""
        number = len(wordings)
        return cls(
            torch.stack([one.vector for one in wordings]).mean(dim=0),
            torch.cat([one.tokens for one in wordings]),
            torch.cat([one.shares / number for one in wordings]),
        )

    @classmethod
    def each(cls, encoded: Encoded) -> list[Query]:
        """The items of a batch, without padding."""
        return [
            cls(encoded.global_vector[row].float().cpu(), encoded.x[row][encoded.keep[row]].float().cpu())
            for row in range(len(encoded))
        ]


@torch.no_grad()
def score_rows(
    queries: Sequence[Query], items: StoredItems, rows: Int[np.ndarray, " n"], score: Score, weight: float = 0.5
) -> Float[Tensor, "q n"]:
    """Exact scores of some rows, as `tasks.retrieval.scores.scores_of` defines them, the queries asking.

    One matrix product of all tokens of the queries with all tokens of the rows, then the maximum over each row's own.
    """
    if not len(rows) or not len(queries):
        return torch.empty(len(queries), len(rows))
    vectors = None
    if score != "tokens":
        vectors = torch.stack([query.vector for query in queries]) @ torch.from_numpy(items.vectors_of(rows)).T
    if score == "global":
        assert vectors is not None
        return vectors
    tokens, starts = items.tokens_of(rows)
    asking = torch.cat([query.tokens for query in queries])
    best = np.maximum.reduceat((asking @ torch.from_numpy(tokens).T).numpy(), starts, axis=1)
    ends = np.cumsum([0, *(len(query.tokens) for query in queries)])
    best *= torch.cat([query.shares for query in queries]).numpy()[:, None]
    picks = torch.from_numpy(np.add.reduceat(best, ends[:-1], axis=0))
    return picks if vectors is None else weight * vectors + (1 - weight) * picks


def nearest_items(
    queries: Sequence[Query],
    items: StoredItems,
    k: int,
    score: Score,
    weight: float = 0.5,
    *,
    memory_mb: float = 256.0,
    progress: Progress | None = None,
) -> list[Found]:
    """The k best items of every query by exact scores over all items, chunk by chunk.

    Args:
        queries: who asks
        items: what is searched
        k: how many; fewer come back where the index holds fewer
        score: which one
        weight: share of the global score in `both`
        memory_mb: bound on what is allocated beyond the arguments and the result
        progress: called after every chunk

    Raises:
        DataError: `memory_mb` is below what one item needs
    """
    living = np.flatnonzero(items.alive)
    longest = int(items.lengths[living].max(initial=1))
    found: list[Found] = []
    for asked in range(0, len(queries), QUERIES):
        together = queries[asked : asked + QUERIES]
        most = sum(len(query.tokens) for query in together)
        each = longest * (8 * items.width + 4 * most + 16) + 8 * items.width + (4 * most + 40 * len(together))
        if memory_mb * MEGABYTE < each:
            raise DataError(
                f"memory_mb={memory_mb:g} is too little for {len(together)} queries and items of {longest} tokens; "
                f"give at least {each / MEGABYTE:.2f}"
            )
        chunk = int(memory_mb * MEGABYTE // each)
        best = Found(torch.empty(len(together), 0), torch.empty(len(together), 0, dtype=torch.long))
        for start in range(0, len(living), chunk):
            rows = living[start : start + chunk]
            now = best_of(score_rows(together, items, rows, score, weight), k, 0)
            best = merged(best, Found(now.score, torch.from_numpy(rows)[now.row]), k)
            if progress is not None:
                progress(asked * len(living) + (start + len(rows)) * len(together), len(queries) * len(living))
        found += [Found(one, row) for one, row in zip(*best, strict=True)]
    return found


def best_of_candidates(
    query: Query, items: StoredItems, rows: Int[np.ndarray, " n"], k: int, score: Score, weight: float = 0.5
) -> Found:
    """The k best of some rows by their exact scores; equal scores in the order of the rows."""
    rows = np.unique(rows)
    now = best_of(score_rows([query], items, rows, score, weight), k, 0)
    return Found(now.score[0], torch.from_numpy(rows)[now.row[0]])
