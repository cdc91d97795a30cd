"""Late-interaction retrieval: the k best items of a stored collection, scored chunk by chunk within a memory bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kernels.max_similarity.chunked import TILE
from kernels.max_similarity.op import Reduction, max_similarity
from kernels.max_similarity.reference import score_dtype

Direction = Literal["query", "item", "both"]
MEGABYTE = 2**20


class Matches(NamedTuple):
    """The best items per query, best first; equal scores in the order of the collection."""

    score: Float[Tensor, "a k"]
    item: Int[Tensor, "a k"]


def _items_per_chunk(query: Tensor, items: Tensor, k: int, memory_mb: float) -> int:
    a, n, d = query.shape
    s = items.shape[1]
    width = torch.finfo(score_dtype(query.dtype)).bits // 8
    tokens = 2 * s * d * width + s * width  # a chunk on the query's device, and its re-laid block
    scores = a * (4 * width + 2 * (width + 8))  # both directions, the merged one, and the sort's values and positions
    fixed = TILE * width + 2 * n * d * width * min(a, 128) + 3 * a * k * (width + 8)
    room = memory_mb * MEGABYTE - fixed
    if room < tokens + scores:
        needed = (fixed + tokens + scores) / MEGABYTE
        raise ValueError(
            f"best_matches: memory_mb={memory_mb:g} is too little for {a} queries and k={k}; "
            f"one item at a time needs {needed:.1f} MB: raise memory_mb or pass fewer queries at once"
        )
    return int(room // (tokens + scores))


@torch.no_grad()
def best_matches(
    query: Float[Tensor, "a n d"],
    items: Float[Tensor, "b s d"],
    k: int,
    *,
    query_keep: Bool[Tensor, "a n"] | None = None,
    items_keep: Bool[Tensor, "b s"] | None = None,
    direction: Direction = "query",
    reduce: Reduction = "mean",
    memory_mb: float = 256.0,
    progress: Callable[[int, int], None] | None = None,
) -> Matches:
    """Find the k best items for every query by exact token-wise maximum similarity.

    Args:
        query: query tokens, on the device that computes
        items: the collection, on any device and of any float type; a memory-mapped tensor is read chunk by chunk
        k: how many to return, at most the size of the collection
        query_keep: True for real query tokens
        items_keep: True for real item tokens
        direction: "query" = query tokens pick, "item" = item tokens pick, "both" = the average of the two
        reduce: "mean" or "sum" over the tokens that pick
        memory_mb: bound on what is allocated beyond the arguments
        progress: called with (items done, items in all) after every chunk

    Raises:
        ValueError: k outside 1..b, an unknown direction, or memory_mb below what one item needs
    """
    b = len(items)
    if not 1 <= k <= b:
        raise ValueError(f"best_matches: k={k} with {b} items in the collection; k must be 1 to {b}")
    if direction not in ("query", "item", "both"):
        raise ValueError(f"best_matches: direction={direction!r} is unknown; use 'query', 'item' or 'both'")
    chunk = _items_per_chunk(query, items, k, memory_mb)
    score = torch.empty(len(query), 0, dtype=score_dtype(query.dtype), device=query.device)
    index = torch.empty(len(query), 0, dtype=torch.long, device=query.device)
    for start in range(0, b, chunk):
        stop = min(start + chunk, b)
        pair = max_similarity(
            query,
            items[start:stop].to(query),
            x_keep=query_keep,
            y_keep=None if items_keep is None else items_keep[start:stop].to(query.device),
            reduce=reduce,
        )
        found = {"query": pair.x_to_y, "item": pair.y_to_x}.get(direction)
        if found is None:
            found = (pair.x_to_y + pair.y_to_x) / 2
        here = torch.arange(start, stop, device=query.device).expand(len(query), -1)
        merged = torch.cat([score, found], dim=1)
        score, order = merged.sort(dim=1, descending=True, stable=True)  # stable: the earlier of equals stays ahead
        index = torch.cat([index, here], dim=1).gather(1, order[:, :k])
        score = score[:, :k].contiguous()
        if progress is not None:
            progress(stop, b)
    return Matches(score, index)
