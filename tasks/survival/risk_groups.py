"""Risk groups: patients split at quantiles of the risk, and the log-rank p value of equal survival in all of them."""

import numpy as np
from jaxtyping import Float, Int

from tasks.survival.follow_up import FollowUp


def split_at_quantiles(risk: Float[np.ndarray, " n"], groups: int = 2) -> Int[np.ndarray, " n"]:
    """Number the patients 0 (lowest risk) up: for two groups, group 1 is `risk > median`.

    Raises:
        ValueError: for fewer than two groups
    """
    if groups < 2:
        raise ValueError(f"groups={groups}: risk groups are compared, so give at least 2")
    return np.searchsorted(np.quantile(risk, np.arange(1, groups) / groups), risk, side="left")


def logrank(outcome: FollowUp, group: Int[np.ndarray, " n"]) -> tuple[float, str]:
    """The p value (lifelines), or nan and the reason why there is none."""
    from lifelines.statistics import multivariate_logrank_test

    if len(np.unique(group)) < 2:
        return np.nan, "undefined: all patients fall into one risk group"
    if not outcome.events:
        return np.nan, "undefined: no patient had the event"
    p = float(multivariate_logrank_test(outcome.time, group, outcome.event).p_value)
    return p, "" if np.isfinite(p) else "undefined: no event while both groups were watched"
