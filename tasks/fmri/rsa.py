"""Compare geometries: dissimilarities between patterns, models against brains, brains against brains, and the ceiling.

An RDM is a symmetric matrix of dissimilarities between n conditions with zeros on the diagonal (Kriegeskorte et al.
2008); the ceiling is that of Nili et al. 2014. Correlations are over the pairs of conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata

from data.brain.brain import Brains
from data.errors import DataError
from tasks.experiment.compare import Interval, percentile_interval
from tasks.fmri.metrics import top_k

Kind = Literal["spearman", "pearson"]
Distance = Literal["correlation", "euclidean", "cosine"]


def rdm(patterns: Float[np.ndarray, "n x"], distance: Distance = "correlation") -> Float[np.ndarray, "n n"]:
    """Dissimilarity of every pair of patterns; `correlation` is 1 - Pearson r.

    Raises:
        DataError: fewer than three patterns, or a constant one, whose correlation does not exist
    """
    if len(patterns) < 3:
        raise DataError(f"an RDM of {len(patterns)} patterns has nothing to compare; give at least three")
    if distance == "correlation" and (np.ptp(patterns, axis=1) == 0).any():
        at = int((np.ptp(patterns, axis=1) == 0).argmax())
        raise DataError(f"pattern {at} is constant, so its correlations do not exist; drop it or use euclidean")
    return squareform(pdist(np.asarray(patterns, dtype=np.float64), distance))


def rdms_of(brains: Brains, distance: Distance = "correlation") -> dict[str, Float[np.ndarray, "k k"]]:
    """One RDM per subject over the candidates, from the mean pattern of each.

    The mean over all samples is taken off every voxel first, since a shared activation makes everything alike.

    Raises:
        DataError: a subject never saw a candidate
    """
    found = {}
    for subject, brain in brains.subjects.items():
        truth = brain.table[brains.truth].to_numpy()
        unseen = [name for name in brains.candidates if name not in set(truth)]
        if unseen:
            raise DataError(f"subject {subject}: no sample of '{unseen[0]}', so it has no RDM over all candidates")
        means = np.stack([brain.x[truth == name].mean(axis=0) for name in brains.candidates])
        found[subject] = rdm(means - means.mean(axis=0), distance)
    return found


def geometries(brains: Brains) -> dict[str, Float[np.ndarray, "s k k"]]:
    """RDMs over all candidates that can be set beside one another: those of a subject's runs, and those of subjects.

    A run or a subject that lacks a candidate is left out; fewer than two give nothing.
    """
    found = {}
    for subject, brain in brains.subjects.items():
        per_run = [brains.only(list(of.index)) for _, of in brain.table.groupby("run", sort=False)]
        whole = [part for part in per_run if set(part.table[brains.truth]) == set(brains.candidates)]
        if len(whole) > 1:
            found[f"runs of subject {subject}"] = np.stack([rdms_of(part)[subject] for part in whole])
    seen = {s for s, b in brains.subjects.items() if set(b.table[brains.truth]) == set(brains.candidates)}
    if len(seen) > 1:
        every = rdms_of(brains.only(list(brains.table.index[brains.table["subject"].isin(seen)])))
        found["subjects"] = np.stack(list(every.values()))
    return found


def pairs(rdms: Float[np.ndarray, "*s n n"]) -> Float[np.ndarray, "*s d"]:
    """The dissimilarities above the diagonal, row by row."""
    upper = np.triu_indices(rdms.shape[-1], 1)
    return rdms[..., upper[0], upper[1]]


def noise_ceiling(rdms: Float[np.ndarray, "s n n"], kind: Kind = "spearman") -> Interval:
    """Between which correlations the best possible model of these people lies.

    Upper end: each person against the mean of all, itself included. Lower end: against the mean of the others. The mean
    is taken of ranks (spearman) or of z-scored dissimilarities (pearson), which is what no other RDM can exceed on
    average. Some programs average the raw dissimilarities instead, which moves the ends by about .005.

    Returns:
        The middle as value, the two ends as low and high.

    Raises:
        DataError: fewer than two people
    """
    if len(rdms) < 2:
        raise DataError(f"a noise ceiling needs at least two people, found {len(rdms)}")
    each = _standard(pairs(rdms), kind)
    total = each.sum(axis=0)
    upper = float(np.mean(_agreement(each, np.broadcast_to(total, each.shape), kind)))
    lower = float(np.mean(_agreement(each, total - each, kind)))
    return Interval((lower + upper) / 2, lower, upper)


def between_people(rdms: Float[np.ndarray, "s n n"], kind: Kind = "spearman") -> Float[np.ndarray, "s s"]:
    """Correlation of every person's RDM with every other's."""
    each = _standard(pairs(rdms), kind)
    return each @ each.T / each.shape[1]


def compare_rdms(
    models: Mapping[str, Float[np.ndarray, "_ _"]],
    rdms: Float[np.ndarray, "s n n"],
    *,
    kind: Kind = "spearman",
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate model RDMs with every person's and set the mean beside the noise ceiling.

    The interval resamples people; a generalisation over conditions is not claimed. The null permutes the conditions of
    the model, rows and columns together.

    Returns:
        One row per model: model, value, low, high, p (share of permutations that reach the value), p95 of the null,
        ceiling_low, ceiling_high, people, conditions, kind.
    """
    each, ceiling = _standard(pairs(rdms), kind), noise_ceiling(rdms, kind)
    draw = np.random.default_rng(seed)
    counts = draw.multinomial(len(rdms), np.full(len(rdms), 1 / len(rdms)), size=draws)
    weights = np.vstack([np.ones(len(rdms)), counts]) / len(rdms)
    mean, rows = each.mean(axis=0), []
    for name, model in models.items():
        if model.shape != rdms.shape[1:]:
            raise DataError(f"model {name}: an RDM of {len(model)} conditions for brains with {rdms.shape[1]}")
        own = _standard(pairs(model[None]), kind)[0]
        interval = percentile_interval(weights @ (each @ own / len(own)))
        null = []
        for _ in range(draws):
            order = draw.permutation(len(model))
            null.append(mean @ _standard(pairs(model[np.ix_(order, order)][None]), kind)[0] / len(own))
        reached = np.array(null) >= interval.value - 1e-12
        rows.append(
            {
                "model": name,
                "value": interval.value,
                "low": interval.low,
                "high": interval.high,
                "p": (1 + reached.sum()) / (1 + draws),
                "p95": float(np.quantile(null, 0.95)) if draws else np.nan,
                "ceiling_low": ceiling.low,
                "ceiling_high": ceiling.high,
                "people": len(rdms),
                "conditions": len(model),
                "kind": kind,
            }
        )
    return pd.DataFrame(rows)


def category_model(labels: list[str]) -> Float[np.ndarray, "n n"]:
    """0 between conditions of one category, 1 between categories."""
    names = np.array(labels)
    return (names[:, None] != names[None]).astype(np.float64)


def match_rows(own: Float[np.ndarray, "n n"], other: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """How alike condition a of one RDM and condition b of another are: Pearson r of their dissimilarities to all the
    n - 2 conditions that are neither a nor b.

    A condition is never compared with itself: the zeros of the diagonal would give every answer away.
    """
    n = len(own)
    if n < 5:
        raise DataError(f"matching rows of an RDM needs at least five conditions, found {n}")
    own, other = np.asarray(own, dtype=np.float64), np.asarray(other, dtype=np.float64)
    a, b = own - own.sum(axis=1, keepdims=True) / (n - 1), other - other.sum(axis=1, keepdims=True) / (n - 1)
    np.fill_diagonal(a, 0.0)
    np.fill_diagonal(b, 0.0)
    m = np.where(np.eye(n, dtype=bool), n - 1, n - 2)
    sum_a, sum_b = a.sum(axis=1)[:, None] - a, b.sum(axis=1)[None] - b.T
    square_a, square_b = (a**2).sum(axis=1)[:, None] - a**2, (b**2).sum(axis=1)[None] - (b**2).T
    cross = a @ b.T - sum_a * sum_b / m
    spread = np.sqrt(np.maximum(square_a - sum_a**2 / m, 0) * np.maximum(square_b - sum_b**2 / m, 0))
    return np.divide(cross, spread, out=np.zeros_like(cross), where=spread > 1e-12)


def identification(rdms: Float[np.ndarray, "s n n"]) -> pd.DataFrame:
    """Identify every condition of each person from the mean RDM of the others, by `match_rows`.

    Returns:
        One row per person: person, top1, top5.
    """
    total, rows = rdms.sum(axis=0), []
    for person, own in enumerate(rdms):
        match = match_rows(own, (total - own) / (len(rdms) - 1))
        right = np.arange(len(own))
        rows.append((person, top_k(match, right, 1).mean(), top_k(match, right, 5).mean()))
    return pd.DataFrame(rows, columns=["person", "top1", "top5"])


def _standard(values: Float[np.ndarray, "s d"], kind: Kind) -> Float[np.ndarray, "s d"]:
    if kind == "spearman":
        values = rankdata(values, axis=1)
    values = values - values.mean(axis=1, keepdims=True)
    deviation = values.std(axis=1, keepdims=True)
    if not (deviation > 0).all():
        raise DataError(f"RDM {int((deviation == 0).argmax())}: all its dissimilarities are equal; nothing correlates")
    return values / deviation


def _agreement(a: Float[np.ndarray, "s d"], b: Float[np.ndarray, "s d"], kind: Kind) -> Float[np.ndarray, " s"]:
    """Correlation row by row."""
    return (a * _standard(np.asarray(b), kind)).mean(axis=1)
