"""Time-dependent AUC: do those who have the event by month t carry a higher risk than those who live beyond it?

Cumulative cases and dynamic controls with inverse censoring weights: Uno et al. 2007, Hung and Chiang 2010. The mean
over several months weights each by the drop of the scored patients' own survival curve (Lambert and Chevret 2016).
"""

import numpy as np
from jaxtyping import Float

from tasks.survival.concordance import ordering, over_pairs
from tasks.survival.follow_up import FollowUp, kaplan_meier


def auc_at(
    outcome: FollowUp,
    risk: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    month: float,
    counts: Float[np.ndarray, "b n"],
) -> Float[np.ndarray, " b"]:
    """AUC at one month, per resample; nan without a case or without a control.

    Args:
        outcome: of the scored patients
        risk: higher = worse
        weights: 1 / G(t-) of each event before the horizon, 0 for all others
        month: up to which an event makes a case; patients watched beyond it are the controls
        counts: resamples
    """
    cases = (weights > 0) & (outcome.time <= month)
    controls = outcome.time > month
    pairs = weights[cases][:, None] * controls[None, :]
    return over_pairs(counts, cases, pairs, ordering(risk, cases))


def mean_auc(
    outcome: FollowUp,
    risk: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    months: Float[np.ndarray, " t"],
    counts: Float[np.ndarray, "b n"],
) -> Float[np.ndarray, " b"]:
    """Mean of the AUC over months, each weighted by how much of the scored patients' survival is lost up to it."""
    lost = -np.diff(kaplan_meier(outcome).at(months), prepend=1.0)
    total, weight = np.zeros(len(counts)), np.zeros(len(counts))
    for month, share in zip(months, lost, strict=True):
        auc = auc_at(outcome, risk, weights, float(month), counts)
        known = ~np.isnan(auc)
        total[known] += share * auc[known]
        weight[known] += share
    return np.divide(total, weight, out=np.full(len(counts), np.nan), where=weight > 0)
