"""How well risks order patients: Harrell's and Uno's c-index.

Both are a ratio of sums over pairs, so the pairs are laid out once and a bootstrap resample only reweights them:
c = sum_ij m_i m_j w_i A_ij C_ij / sum_ij m_i m_j w_i A_ij, where i had the event, A_ij = 1 when j is known to have
lived longer, C_ij = 1, 1/2 or 0 for a higher, equal or lower risk of i, and m counts how often a patient was drawn.
Harrell et al. 1996 (w = 1); Uno et al. 2011 (w_i = 1 / G(t_i)^2 up to a horizon, G the censoring curve of the training
patients).
"""

import numpy as np
from jaxtyping import Bool, Float

from tasks.survival.follow_up import FollowUp


def comparable(outcome: FollowUp) -> Bool[np.ndarray, "i n"]:
    """Mark the pairs whose order is known: rows are the patients with the event, columns all patients.

    A patient censored at the very time of another's event outlived it; two events at the same time are not compared.
    """
    time, event = outcome.time, outcome.event
    first = time[event][:, None]
    return (time > first) | ((time == first) & ~event)


def ordering(risk: Float[np.ndarray, " n"], cases: Bool[np.ndarray, " n"]) -> Float[np.ndarray, "i n"]:
    """Score every pair (case, patient): 1 for a higher risk of the case, 1/2 for the same risk, else 0."""
    of_case = risk[cases][:, None]
    return (of_case > risk) + 0.5 * (of_case == risk)


def over_pairs(
    counts: Float[np.ndarray, "b n"],
    cases: Bool[np.ndarray, " n"],
    pairs: Float[np.ndarray, "i n"],
    ordered: Float[np.ndarray, "i n"],
) -> Float[np.ndarray, " b"]:
    """Share of the weighted pairs that are in order, per resample; nan where a resample has no pair."""
    drawn = counts[:, cases]
    right = np.einsum("bn,bn->b", drawn @ (pairs * ordered), counts)
    total = np.einsum("bn,bn->b", drawn @ pairs, counts)
    return np.divide(right, total, out=np.full(len(counts), np.nan), where=total > 0)


def harrell(
    outcome: FollowUp, risk: Float[np.ndarray, " n"], counts: Float[np.ndarray, "b n"] | None = None
) -> Float[np.ndarray, " b"]:
    """Harrell's c-index under each row of counts (default: the patients as they are); nan without a comparable pair."""
    counts = np.ones((1, len(outcome))) if counts is None else counts
    return over_pairs(counts, outcome.event, comparable(outcome).astype(np.float64), ordering(risk, outcome.event))


def harrell_of_many(outcome: FollowUp, risks: Float[np.ndarray, "k n"]) -> Float[np.ndarray, " k"]:
    """Harrell's c-index of k risk vectors for the same patients."""
    pairs = comparable(outcome)
    total = pairs.sum()
    if not total:
        return np.full(len(risks), np.nan)
    return np.array([(ordering(risk, outcome.event) * pairs).sum() / total for risk in risks])


def uno(
    outcome: FollowUp,
    risk: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    counts: Float[np.ndarray, "b n"] | None = None,
) -> Float[np.ndarray, " b"]:
    """Uno's c-index.

    Args:
        outcome: of the scored patients
        risk: higher = worse
        weights: 1 / G(t-) of each event before the horizon, 0 for all others (`Censoring.of_events`)
        counts: resamples
    """
    counts = np.ones((1, len(outcome))) if counts is None else counts
    cases = weights > 0
    longer = outcome.time > outcome.time[cases][:, None]
    return over_pairs(counts, cases, longer * weights[cases][:, None] ** 2, ordering(risk, cases))


def describe_ranking(risk: Float[np.ndarray, " n"], high: float) -> str:
    """Say in words what is wrong with a ranking: not a number, collapsed, or inverted; empty when nothing is.

    Args:
        risk: the risks as predicted
        high: upper end of the interval of the c-index (nan when there is none)
    """
    broken = int((~np.isfinite(risk)).sum())
    if broken:
        return f"{broken} of {len(risk)} risks are not finite numbers"
    if len(risk) > 1 and np.ptp(risk) <= 1e-6 * max(1.0, float(np.abs(risk).max())):
        return f"collapsed: all {len(risk)} risks are the same up to rounding"
    if high < 0.5:
        return "inverted: patients are ranked the wrong way round, the whole interval lies below .5"
    return ""
