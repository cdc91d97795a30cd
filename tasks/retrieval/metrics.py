"""Retrieval metrics per query, their means with intervals over queries, and what a random order would reach.

One tie rule everywhere: among equal scores every irrelevant item stands first. A model that scores everything alike is
therefore last, and no metric depends on the order in which the gallery was stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from scipy.special import gammaln
from torch import Tensor

from data.errors import DataError
from tasks.experiment.compare import Counts, Draws, percentile_interval, resample

KS = (1, 5, 10)
TIE_RULE = "ties: among equal scores every irrelevant item stands first"
PER_QUERY = ("rank", "reciprocal_rank", "average_precision", "ndcg", "relevant", "gallery")
MEDIAN_RANK, MRR, MAP, NDCG = "median rank", "MRR", "mAP", "nDCG"


def recall_name(k: int) -> str:
    """`R@5`."""
    return f"R@{k}"


def metric_names(ks: Sequence[int] = KS) -> list[str]:
    """Every metric, in the order of the tables."""
    return [*(recall_name(k) for k in ks), MEDIAN_RANK, MRR, NDCG, MAP]


def per_query(
    scores: Float[Tensor, "q g"],
    relevant: Bool[Tensor, "q g"],
    excluded: Bool[Tensor, "q g"] | None = None,
) -> pd.DataFrame:
    """Measure every query that has a relevant item over the whole gallery.

    Args:
        scores: higher = nearer
        relevant: which items of the gallery are right answers; several may be
        excluded: items that are not part of this query's gallery, such as the query itself

    Returns:
        One row per query, with its position among the queries as index: rank of the first relevant item (1 = best),
        reciprocal_rank, average_precision, ndcg (binary gain, log2(rank + 1)), number of relevant items, gallery size.

    Raises:
        DataError: a score is not a number, or no query has a relevant item
    """
    if torch.isnan(scores).any():
        query, item = torch.isnan(scores).nonzero()[0].tolist()
        raise DataError(f"scores: query {query} and item {item} score NaN; look for NaN vectors on either side")
    here = torch.ones_like(relevant) if excluded is None else ~excluded
    right = relevant & here
    asked = right.any(dim=1).nonzero().flatten()
    if not len(asked):
        raise DataError("no query has a relevant item in this gallery; look at the split and at the matches")
    rows = []
    for query in asked.tolist():
        known = here[query]
        score, answer = scores[query][known].double().numpy(), right[query][known].numpy()
        rows.append(_measured(score, answer))
    return pd.DataFrame(rows, columns=list(PER_QUERY), index=asked.tolist())


def _measured(score: Float[np.ndarray, " g"], answer: Bool[np.ndarray, " g"]) -> tuple[float, ...]:
    order = np.lexsort((answer, -score))
    ranks = np.flatnonzero(answer[order]) + 1.0
    found = np.arange(1, len(ranks) + 1)
    gain = (1 / np.log2(ranks + 1)).sum() / (1 / np.log2(found + 1)).sum()
    first = float(ranks[0])
    precision = float((found / ranks).mean())
    return (first, 1 / first, precision, float(gain), float(len(ranks)), float(len(score)))


class Metric(NamedTuple):
    """One metric of one ranking. `low` and `high` are the ends of the 95 % interval over queries."""

    metric: str
    value: float
    low: float
    high: float
    chance: float
    n: int
    gallery: int


def draws_of(queries: pd.DataFrame, counts: Counts, ks: Sequence[int] = KS) -> dict[str, Draws]:
    """Every metric under the resamples of `tasks.experiment.compare.resample`, the sample itself first.

    Args:
        queries: of `per_query`, or their mean over seeds with one column `R@k` for every k
        counts: how often each query was drawn, `[b, n]`
        ks: of the recalls
    """
    share = counts / counts.sum(axis=1, keepdims=True)
    columns = {name: "reciprocal_rank" for name in (MRR,)} | {NDCG: "ndcg", MAP: "average_precision"}
    found: dict[str, Draws] = {}
    for k in ks:
        name = recall_name(k)
        hit = queries[name] if name in queries else queries["rank"] <= k
        found[name] = share @ hit.to_numpy(dtype=np.float64)
    found[MEDIAN_RANK] = _medians(queries["rank"].to_numpy(dtype=np.float64), counts)
    for name, column in columns.items():
        found[name] = share @ queries[column].to_numpy(dtype=np.float64)
    return {name: found[name] for name in metric_names(ks)}


def _medians(values: Float[np.ndarray, " n"], counts: Counts) -> Draws:
    """Median of each resample: the mean of the two middle values where their number is even."""
    order = np.argsort(values, kind="stable")
    reached = counts[:, order].cumsum(axis=1)
    total = reached[:, -1:]
    middle = [(reached >= np.floor((total + more) / 2)).argmax(axis=1) for more in (1, 2)]
    return (values[order][middle[0]] + values[order][middle[1]]) / 2


def summarise(queries: pd.DataFrame, ks: Sequence[int] = KS, draws: int = 1000, seed: int = 0) -> list[Metric]:
    """Every metric of one ranking with its interval over queries and the value of a random order."""
    counts = resample(len(queries), draws, seed)
    expected = chance(queries["relevant"].to_numpy(), queries["gallery"].to_numpy(), ks)
    rows = []
    for name, values in draws_of(queries, counts, ks).items():
        span = percentile_interval(values)
        gallery = round(float(queries["gallery"].median()))
        rows.append(Metric(name, span.value, span.low, span.high, expected[name], len(queries), gallery))
    return rows


def chance(relevant: np.ndarray, gallery: np.ndarray, ks: Sequence[int] = KS) -> dict[str, float]:
    """Expected value of every metric when the gallery is in random order, averaged over queries.

    The median rank is the median of the first relevant item's rank over queries and orders.

    Args:
        relevant: how many relevant items each query has
        gallery: how many items its gallery has
        ks: of the recalls
    """
    pairs, times = np.unique(np.stack([relevant, gallery]).astype(int), axis=1, return_counts=True)
    weight = times / times.sum()
    longest = int(pairs[1].max())
    first = np.zeros((len(times), longest))
    for i, (m, g) in enumerate(pairs.T):
        first[i, : g - m + 1] = _first_rank(int(m), int(g))
    ranks = np.arange(1, longest + 1)
    mean_first = weight @ first
    found = {recall_name(k): float(mean_first[:k].sum()) for k in ks}
    found[MEDIAN_RANK] = float(ranks[(mean_first.cumsum() >= 0.5 - 1e-12).argmax()])
    found[MRR] = float(mean_first @ (1 / ranks))
    found[NDCG] = float(weight @ [_random_ndcg(int(m), int(g)) for m, g in pairs.T])
    found[MAP] = float(weight @ [_random_precision(int(m), int(g)) for m, g in pairs.T])
    return found


def _first_rank(m: int, g: int) -> Float[np.ndarray, " r"]:
    """P(first of m relevant items among g stands at rank r) = C(g - r, m - 1) / C(g, m), for r = 1 .. g - m + 1."""
    r = np.arange(1, g - m + 2)

    def log_choose(n: np.ndarray | int, k: int) -> np.ndarray:
        return np.asarray(gammaln(np.asarray(n) + 1.0) - gammaln(k + 1.0) - gammaln(np.asarray(n) - k + 1.0))

    return np.asarray(np.exp(log_choose(g - r, m - 1) - log_choose(g, m)))


def _random_ndcg(m: int, g: int) -> float:
    gains = 1 / np.log2(np.arange(1, g + 1) + 1)
    return float(m / g * gains.sum() / gains[:m].sum())


def _random_precision(m: int, g: int) -> float:
    """Mean over ranks of the expected precision at a rank that holds a relevant item."""
    i = np.arange(1, g + 1)
    others = (m - 1) / (g - 1) if g > 1 else 0.0
    return float(((1 + (i - 1) * others) / i).mean())
