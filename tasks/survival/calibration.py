"""Are predicted survival probabilities true? D-calibration over the whole curve and a calibration curve at one month.

D-calibration: Haider et al. 2020. For a calibrated model S_i(t_i) is uniform over patients with the event; a censored
patient, known only to live beyond t_i, is spread over the bins below S_i(t_i). Pearson's chi-square against equal bins,
bins - 1 degrees of freedom.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import chi2

from tasks.survival.follow_up import FollowUp, kaplan_meier


def survival_at(
    survival: Float[np.ndarray, "n t"], months: Float[np.ndarray, " t"], time: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Read each patient's curve at the patient's own time: 1 at month 0, linear between months, flat after the last."""
    if months[0] > 0:
        survival = np.hstack([np.ones((len(survival), 1)), survival])
        months = np.concatenate([[0.0], months])
    return np.array([np.interp(at, months, curve) for at, curve in zip(time, survival, strict=True)])


def bin_memberships(
    outcome: FollowUp, reached: Float[np.ndarray, " n"], bins: int = 10
) -> Float[np.ndarray, "n {bins}"]:
    """Spread every patient over bins of survival probability, lowest bin first; each row sums to 1.

    Args:
        outcome: of the scored patients
        reached: S_i(t_i), the predicted probability of living as long as observed
        bins: equal bins of [0, 1]
    """
    low = np.arange(bins) / bins
    own = np.minimum((reached * bins).astype(int), bins - 1)
    seen = np.eye(bins)[own]
    below = np.clip(reached[:, None] - low, 0.0, 1 / bins)
    spread = np.divide(below, reached[:, None], out=seen.copy(), where=reached[:, None] > 0)
    return np.where(outcome.event[:, None], seen, spread)


def d_calibration(memberships: Float[np.ndarray, "n k"]) -> tuple[float, float]:
    """Chi-square statistic and p value of equal bins; a small p says that the curves are not calibrated."""
    n, bins = memberships.shape
    statistic = float(((memberships.sum(axis=0) - n / bins) ** 2 / (n / bins)).sum())
    return statistic, float(chi2.sf(statistic, bins - 1))


def unevenness(memberships: Float[np.ndarray, "n k"], counts: Float[np.ndarray, "b n"]) -> Float[np.ndarray, " b"]:
    """Mean absolute difference of the k bins' shares from 1 / k, per resample: 0 perfect, 2 (k - 1) / k^2 the worst."""
    drawn = counts.sum(axis=1, keepdims=True)
    shares = counts @ memberships / drawn
    return np.abs(shares - 1 / memberships.shape[1]).mean(axis=1)


def calibration_groups(predicted: Float[np.ndarray, " n"], groups: int = 5) -> np.ndarray:
    """Number the patients by rank of the prediction; equal predictions share a group, so there may be fewer groups."""
    ranks = pd.Series(predicted).rank(method="average").to_numpy()
    return np.unique(np.ceil(ranks / len(predicted) * groups).astype(int), return_inverse=True)[1]


def calibration_curve(
    outcome: FollowUp, predicted: Float[np.ndarray, " n"], month: float, groups: int = 5
) -> pd.DataFrame:
    """Set predicted against observed (Kaplan-Meier) survival at one month, by groups of similar prediction.

    Args:
        outcome: of the scored patients
        predicted: predicted probability of living beyond `month`
        month: where the curves are compared
        groups: groups of equal size

    Returns:
        One row per group: predicted, observed, low, high (95 % log-log interval of lifelines), n, events, at_risk (at
        `month`).
    """
    from lifelines import KaplanMeierFitter

    numbered = calibration_groups(predicted, groups)
    rows = []
    for group in range(numbered.max() + 1):
        own = numbered == group
        of_group = outcome[own]
        fit = KaplanMeierFitter().fit(of_group.time, of_group.event)
        interval = fit.confidence_interval_survival_function_
        low, high = interval.iloc[interval.index.searchsorted(month, side="right") - 1]
        rows.append(
            {
                "predicted": float(predicted[own].mean()),
                "observed": float(kaplan_meier(of_group).at(np.array([month]))[0]),
                "low": float(low),
                "high": float(high),
                "n": len(of_group),
                "events": of_group.events,
                "at_risk": int((of_group.time >= month).sum()),
            }
        )
    return pd.DataFrame(rows)


def calibration_error(
    outcome: FollowUp,
    predicted: Float[np.ndarray, " n"],
    month: float,
    counts: Float[np.ndarray, "b n"],
    groups: int = 5,
) -> Float[np.ndarray, " b"]:
    """Mean distance of predicted from observed survival at one month over groups, weighted by size, per resample."""
    numbered = calibration_groups(predicted, groups)
    distance, size = np.zeros(len(counts)), np.zeros(len(counts))
    for group in range(numbered.max() + 1):
        own = numbered == group
        drawn = counts[:, own]
        n = drawn.sum(axis=1)
        expected = np.divide(drawn @ predicted[own], n, out=np.zeros(len(counts)), where=n > 0)
        distance += n * np.abs(expected - resampled_survival(outcome[own], month, drawn))
        size += n
    return np.divide(distance, size, out=np.full(len(counts), np.nan), where=size > 0)


def resampled_survival(outcome: FollowUp, month: float, counts: Float[np.ndarray, "b n"]) -> Float[np.ndarray, " b"]:
    """Kaplan-Meier survival beyond one month, per resample; 1 where nobody was drawn."""
    times = np.unique(outcome.time[outcome.event & (outcome.time <= month)])
    at_risk = counts @ (outcome.time[:, None] >= times)
    died = counts @ ((outcome.time[:, None] == times) & outcome.event[:, None])
    hazard = np.divide(died, at_risk, out=np.zeros_like(died, dtype=np.float64), where=at_risk > 0)
    return np.prod(1 - hazard, axis=1)
