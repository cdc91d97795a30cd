"""Integrated Brier score: the squared error of predicted survival probabilities, beside that of one Kaplan-Meier curve
for all.

Graf et al. 1999: at month t a patient contributes S(t)^2 / G(t_i-) when the event came by t, (1 - S(t))^2 / G(t) when
still watched, and 0 when censored before. The score is additive over patients, so each patient's integrated share is
computed once and a resample is a weighted mean.
"""

import numpy as np
from jaxtyping import Float

from tasks.survival.follow_up import Censoring, FollowUp


def brier_shares(
    outcome: FollowUp,
    survival: Float[np.ndarray, "n t"],
    months: Float[np.ndarray, " t"],
    weights: Censoring,
) -> Float[np.ndarray, "n t"]:
    """Each patient's share of the Brier score at each month.

    Args:
        outcome: of the scored patients
        survival: predicted probability of living beyond each month
        months: the grid
        weights: censoring of the training patients; months beyond its horizon should have been dropped
    """
    of_events = weights.of_events(outcome)[:, None]
    dead = (outcome.time[:, None] <= months) & (of_events > 0)
    alive = np.stack([weights.of_survivors(outcome, float(month)) for month in months], axis=1)
    return np.where(dead, survival**2 * of_events, 0.0) + (1 - survival) ** 2 * alive


def integrated(shares: Float[np.ndarray, "n t"], months: Float[np.ndarray, " t"]) -> Float[np.ndarray, " n"]:
    """Average the shares over the grid by the trapezoid rule."""
    return np.trapezoid(shares, months, axis=1) / (months[-1] - months[0])


def mean_share(per_patient: Float[np.ndarray, " n"], counts: Float[np.ndarray, "b n"]) -> Float[np.ndarray, " b"]:
    """Mean over the patients of each resample; nan for a resample without patients."""
    drawn = counts.sum(axis=1)
    return np.divide(counts @ per_patient, drawn, out=np.full(len(counts), np.nan), where=drawn > 0)
