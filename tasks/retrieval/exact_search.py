"""Exact nearest vectors of a stored collection, chunk by chunk within a bound on memory: the default and the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.errors import DataError

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (done, in all) now and then."""

MEGABYTE = 2**20
QUERIES = 1024
"""Queries scored at once: more would only take memory from the rows of a chunk."""


class Found(NamedTuple):
    """The best rows per query, best first; equal scores in the order of the rows."""

    score: Float[Tensor, "*q k"]
    row: Int[Tensor, "*q k"]


def rows_per_chunk(width: int, queries: int, k: int, memory_mb: float) -> int:
    """How many stored vectors are scored at once: their float32 copy and, per query, score, comparison and order.

    Raises:
        DataError: not even one fits
    """
    fixed = 32 * queries * k
    each = 8 * width + 10 * queries
    room = memory_mb * MEGABYTE - fixed
    if room < each:
        raise DataError(
            f"memory_mb={memory_mb:g} is too little for {queries} queries and k={k}; give at least "
            f"{(fixed + each) / MEGABYTE:.1f}"
        )
    return int(room // each)


@torch.no_grad()
def nearest(
    queries: Float[Tensor, "q d"],
    vectors: np.ndarray,
    k: int,
    *,
    alive: Bool[np.ndarray, " n"] | None = None,
    memory_mb: float = 256.0,
    progress: Progress | None = None,
) -> Found:
    """Find the k stored vectors with the largest inner product with every query.

    Args:
        queries: float32
        vectors: stored, `[n, d]` float16 or float32; a memory-mapped array is read chunk by chunk
        k: how many; fewer come back where fewer are alive
        alive: which rows count; None = all
        memory_mb: bound on what is allocated beyond the arguments and the result
        progress: called after every chunk

    Raises:
        DataError: `memory_mb` is below what one row needs
    """
    total, living = len(vectors), len(vectors) if alive is None else int(alive.sum())
    k = min(k, living)
    at_once = min(len(queries), QUERIES)
    chunk = rows_per_chunk(queries.shape[1], max(at_once, 1), k, memory_mb)
    parts = []
    for first in range(0, len(queries), QUERIES):
        asking = queries[first : first + QUERIES].float()
        best = Found(torch.empty(len(asking), 0), torch.empty(len(asking), 0, dtype=torch.long))
        for start in range(0, total, chunk):
            stop = min(start + chunk, total)
            stored = torch.from_numpy(np.ascontiguousarray(vectors[start:stop], dtype=np.float32))
            scores = asking @ stored.T
            if alive is not None:
                scores[:, torch.from_numpy(~alive[start:stop])] = -torch.inf
            best = merged(best, best_of(scores, k, start), k)
            if progress is not None:
                progress(first * total + stop * len(asking), len(queries) * total)
        parts.append(best)
    if not parts:
        return Found(torch.empty(0, k), torch.empty(0, k, dtype=torch.long))
    return Found(torch.cat([part.score for part in parts]), torch.cat([part.row for part in parts]))


def best_of(scores: Float[Tensor, "q c"], k: int, start: int) -> Found:
    """The k best of a chunk; of equal scores the earliest rows, also where the k-th ties with rows left out."""
    k = min(k, scores.shape[1])
    if k == 0:
        return Found(scores[:, :0], torch.empty(len(scores), 0, dtype=torch.long))
    score, row = scores.topk(k, dim=1)
    tied = (scores >= score[:, -1:]).sum(dim=1) > k
    if tied.any():
        full = scores[tied].sort(dim=1, descending=True, stable=True)
        score[tied], row[tied] = full.values[:, :k], full.indices[:, :k]
    row, order = row.sort(dim=1)
    score, order = score.gather(1, order).sort(dim=1, descending=True, stable=True)
    return Found(score, row.gather(1, order) + start)


def merged(before: Found, now: Found, k: int) -> Found:
    """Both lists in one; `before` holds earlier rows, so a stable sort keeps the order of equals."""
    score = torch.cat([before.score, now.score], dim=1)
    score, order = score.sort(dim=1, descending=True, stable=True)
    row = torch.cat([before.row, now.row], dim=1).gather(1, order)
    return Found(score[:, :k].contiguous(), row[:, :k].contiguous())
