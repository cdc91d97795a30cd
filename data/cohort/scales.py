"""What training patients teach about scales: time bins, and mean and spread of every gene."""

from __future__ import annotations

import numpy as np
import pandas as pd

from data.cohort.cohort import Cohort
from data.errors import DataError


def time_bins(time: np.ndarray, event: np.ndarray, bins: int, name: str = "cohort") -> tuple[float, ...]:
    """Bounds of time bins that hold equally many events.

    Args:
        time: months
        event: True = died
        bins: how many
        name: of the cohort, for messages

    Returns:
        bins + 1 bounds; the first is 0, the last infinite, the others quantiles of the event times

    Raises:
        DataError: fewer different event times than bins
    """
    died = time[event]
    inner = np.quantile(died, np.linspace(0, 1, bins + 1)[1:-1]) if len(died) else np.empty(0)
    if len(np.unique(died)) < bins or (np.diff([0.0, *inner]) <= 0).any():
        raise DataError(
            f"cohort {name}: {len(died)} events at {len(np.unique(died))} different times among {len(time)} training "
            f"patients cannot be cut into {bins} time bins. Use fewer bins or larger folds"
        )
    return (0.0, *inner.tolist(), float("inf"))


def gene_scales(
    cohort: Cohort, train: pd.DataFrame, robust: bool
) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
    if cohort.genes is None:
        return (), (), ()
    values = cohort.genes.loc[cohort.genes.index.intersection(train.index, sort=False)]
    if not len(values):
        raise DataError(
            f"cohort {cohort.name}: none of the {len(train)} training patients has genes, so they cannot be scaled"
        )
    mean, scale = _moments(values.to_numpy(np.float64))
    if robust:
        mean, scale = _robust(values, mean, scale)
    return tuple(values.columns), tuple(mean.tolist()), tuple(scale.tolist())


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column without its gaps; 0 and 0 for a column of gaps."""
    known = ~np.isnan(values)
    n = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0).sum(axis=0) / n
    scale = np.sqrt((np.where(known, values - mean, 0) ** 2).sum(axis=0) / n)
    constant = scale <= 1e-6 * np.abs(mean)
    return mean, np.where(constant, 0.0, scale)


def _robust(values: pd.DataFrame, mean: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and half the central 68 % (a normal variable's standard deviation) where that is above 0 and narrower.

    A mutation found in few patients has no central spread, and keeps its mean and standard deviation.
    """
    low, middle, high = values.quantile([0.1587, 0.5, 0.8413]).to_numpy(np.float64)
    spread = (high - low) / 2
    narrower = (spread > 1e-6 * np.abs(middle)) & (spread < scale)
    return np.where(narrower, middle, mean), np.where(narrower, spread, scale)
