"""From a network's logits to survival curves on a grid of months."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from data.cohort.cohort import Cohort
from tasks.survival.follow_up import FollowUp
from tasks.survival.losses import DiscreteHazard, SurvivalLoss
from tasks.survival.ridge_cox import breslow

POINTS = 60


def month_grid(cohort: Cohort) -> Float[np.ndarray, " t"]:
    """Whole months from 0 to the last follow-up of the cohort, at most about sixty of them. Only for reporting."""
    last = int(np.ceil(cohort.patients["time"].max()))
    return np.arange(0, last + 1, max(1, round(last / POINTS)), dtype=np.float64)


def survival_curves(
    loss: SurvivalLoss,
    logits: Float[Tensor, "n k"],
    months: Float[np.ndarray, " t"],
    edges: tuple[float, ...],
    train_logits: Float[Tensor, "m j"],
    train: pd.DataFrame,
) -> Float[np.ndarray, "n t"]:
    """Probability of living beyond each month.

    Discrete hazards give the probability at the end of each bin; between ends the curve is straight, and the last bin
    ends at the last training follow-up. A Cox risk takes Breslow's baseline hazard from the training patients.

    Args:
        loss: says what the logits mean
        logits: of the patients to predict
        months: the grid
        edges: bounds of the time bins in months, first 0, last inf
        train_logits: of the training patients, in the order of `train`; their risks will do, as one column
        train: time and event of the training patients
    """
    if isinstance(loss, DiscreteHazard):
        ends = np.array([*edges[:-1], max(float(train["time"].max()), edges[-2] + 1e-6)])
        at_ends = np.pad(loss.survival(logits).double().numpy(), ((0, 0), (1, 0)), constant_values=1.0)
        return np.stack([np.interp(months, ends, row) for row in at_ends])
    outcome = FollowUp.of(train["time"], train["event"])
    times, hazard = breslow(outcome, loss.risk(train_logits).double().numpy())
    cumulative = np.concatenate([[0.0], hazard])[np.searchsorted(times, months, side="right")]
    return np.exp(-np.exp(loss.risk(logits).double().numpy())[:, None] * cumulative)
