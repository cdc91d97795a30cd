"""Every query of every test gallery, ranked in each way that a trained unit knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from data.errors import DataError
from data.pairs.items import Gallery, Pairs
from data.pairs.items import Side as Items
from tasks.retrieval.feed import Feed, encode
from tasks.retrieval.fit_rerank import rerank
from tasks.retrieval.fit_unit import Fitted
from tasks.retrieval.metrics import per_query
from tasks.retrieval.rerank import CrossEncoder
from tasks.retrieval.scores import Score, prompt_ensemble, scores_of
from tasks.retrieval.two_towers import Encoded

OWN, POOLED, RERANKED, PROMPTS = "own", "pooled", "reranked", "prompts"
WAYS = {
    OWN: "",
    POOLED: "pooled vectors only",
    RERANKED: "first hits read again",
    PROMPTS: "mean over prompts",
}
"""How the towers of an arm may rank; the first is what it was trained for, the others stand beside it."""


@dataclass(frozen=True)
class Beside:
    """What a unit ranks by beside its towers.

    Attributes:
        cross: reads the first hits again; None = there is none
        top: how many hits it reads
        prompts: wordings of every text, `{}` for the text; scores are averaged over them
        features: where tokens of frozen encoders are kept
    """

    cross: CrossEncoder | None = None
    top: int = 10
    prompts: Sequence[str] = ()
    features: Path = Path("features")


class Turn(NamedTuple):
    """One direction of a gallery: who asks, who is searched, and whether the right side asks."""

    asking: list[int]
    searched: list[int]
    turned: bool


class Encodings:
    """Encoded items of one side, found by their row in the collection.

    Args:
        fitted: whose tower
        left: which side
        rows: that will be asked for
        feed: of that side; None = the one it was trained with
    """

    def __init__(self, fitted: Fitted, left: bool, rows: Sequence[int], feed: Feed | None = None):
        towers = fitted.towers
        project = towers.project_left if left else towers.project_right
        self._items = encode(project, feed or fitted.feeds[0 if left else 1], rows)
        self._at = {row: at for at, row in enumerate(rows)}

    def __getitem__(self, rows: Sequence[int]) -> Encoded:
        return self._items[torch.tensor([self._at[row] for row in rows], dtype=torch.long)]


def ranked(fitted: Fitted, pairs: Pairs, beside: Beside = Beside()) -> pd.DataFrame:
    """Every query of every test gallery in both directions, in every way of `WAYS` that there is.

    Returns:
        gallery_name, direction (`image -> text`), score (of `WAYS`), query (its id) and the columns of `per_query`

    Raises:
        DataError: the collection has no test gallery
    """
    galleries = [gallery for gallery in pairs.galleries if gallery.split == "test"]
    if not galleries:
        raise DataError(f"{pairs.name}: no test items, so nothing can be measured; give some items the split test")
    wanted = _rows(galleries)
    left, right = (Encodings(fitted, side == 0, wanted[side]) for side in (0, 1))
    own: tuple[Score, float] = fitted.objective.score, float(fitted.objective.global_share)

    def by(score: Score, weight: float) -> Callable[[Turn], Float[Tensor, "q g"]]:
        def scored(turn: Turn) -> Float[Tensor, "q g"]:
            asking, searched = (right, left) if turn.turned else (left, right)
            return scores_of(asking[turn.asking], searched[turn.searched], score, weight)

        return scored

    ways = {OWN: by(*own)}
    if own[0] != "global":
        ways[POOLED] = by("global", 1.0)
    if beside.cross is not None:
        ways[RERANKED] = _read_again(by(*own), beside.cross, fitted, beside.top)
    if beside.prompts:
        ways[PROMPTS] = _worded(fitted, pairs, beside, wanted, (left, right), own)
    parts = []
    for gallery in galleries:
        for name, way in ways.items():
            parts += _both_ways(gallery, pairs, name, way)
    return pd.concat(parts, ignore_index=True)


def _rows(galleries: Sequence[Gallery]) -> tuple[list[int], list[int]]:
    """Left and right rows that any gallery asks or searches."""
    left = {row for g in galleries for row in (*g.left_queries, *g.left_gallery)}
    right = {row for g in galleries for row in (*g.right_queries, *g.right_gallery)}
    return sorted(left), sorted(right)


def _read_again(
    scored: Callable[[Turn], Float[Tensor, "q g"]], cross: CrossEncoder, fitted: Fitted, top: int
) -> Callable[[Turn], Float[Tensor, "q g"]]:
    """The towers' scores with their first hits in the order of the cross-encoder, above everything else."""

    def again(turn: Turn) -> Float[Tensor, "q g"]:
        scores = scored(turn)
        hits = rerank(cross, fitted, turn.asking, turn.searched, scores, top, turn.turned)
        places = torch.arange(hits.shape[1], 0, -1, dtype=scores.dtype).expand_as(hits)
        return scores.scatter(1, hits, scores.max() + places)

    return again


def _worded(
    fitted: Fitted, pairs: Pairs, beside: Beside, wanted: Sequence[list[int]], plain: Sequence[Encodings],
    own: tuple[Score, float],
) -> Callable[[Turn], Float[Tensor, "q g"]]:  # fmt: skip
    """Scores averaged over the wordings of every text; items of other modalities are as they are.

    Raises:
        DataError: neither side is text
    """
    sides = (pairs.left, pairs.right)
    if all(side.name != "text" for side in sides):
        raise DataError(f"{pairs.name}: prompts word texts, but its sides are {sides[0].name} and {sides[1].name}")
    encodings: list[list[Encodings]] = []
    for at, side in enumerate(sides):
        if side.name != "text":
            encodings.append([plain[at]])
            continue
        encoder = fitted.feeds[at].encoder
        feeds = [Feed(encoder, worded(side, prompt), beside.features) for prompt in beside.prompts]
        encodings.append([Encodings(fitted, at == 0, wanted[at], feed) for feed in feeds])

    def scored(turn: Turn) -> Float[Tensor, "q g"]:
        asking, searched = reversed(encodings) if turn.turned else encodings
        return prompt_ensemble([scores_of(a[turn.asking], b[turn.searched], *own) for a in asking for b in searched])

    return scored


def worded(side: Items, prompt: str) -> Items:
    """A side of texts under one wording."""
    return Items(side.name, side.ids, lambda rows: [prompt.replace("{}", str(text)) for text in side.load(rows)])


def _both_ways(
    gallery: Gallery, pairs: Pairs, name: str, way: Callable[[Turn], Float[Tensor, "q g"]]
) -> list[pd.DataFrame]:
    found = []
    for turn in (
        Turn(gallery.left_queries, gallery.right_gallery, False),
        Turn(gallery.right_queries, gallery.left_gallery, True),
    ):
        sides = (pairs.right, pairs.left) if turn.turned else (pairs.left, pairs.right)
        relevance = (
            pairs.relevance(turn.searched, turn.asking).T
            if turn.turned
            else pairs.relevance(turn.asking, turn.searched)
        )
        table = per_query(way(turn), torch.from_numpy(relevance.copy()))
        table.insert(0, "query", [sides[0].ids[turn.asking[at]] for at in table.index])
        table.insert(0, "score", name)
        table.insert(0, "direction", f"{sides[0].name} -> {sides[1].name}")
        table.insert(0, "gallery_name", gallery.name)
        found.append(table)
    return found
