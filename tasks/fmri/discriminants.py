"""Linear discriminants whose covariance is shrunk, solved in the space of the samples: that of a whole brain's voxels
would fill any memory.

The covariance is that of scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")`: of each class,
its voxels brought to unit variance, by the rule of Ledoit and Wolf (2004, Journal of Multivariate Analysis 88), and
averaged by the share of the class. As it is a diagonal plus what few samples span, the matrix inversion lemma gives the
same weights without ever holding it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

FEWEST = 3
"""Samples of a class from which its own covariance is shrunk. Of two samples the rule shrinks nothing, so that the
discriminants live where the covariance is singular: .09 of Haxby's subject 1 with two training runs, .54 pooled."""

ROUNDING = 1e-12
"""A share of shrinkage below which it is what is left of 0."""


def discriminants(
    x: Float[np.ndarray, "n x"], of: Int[np.ndarray, " n"], classes: int
) -> tuple[Float[np.ndarray, "x k"], Float[np.ndarray, " k"]]:
    """Weights and offsets of each class.

    Where a class has fewer than `FEWEST` samples, the deviations of all classes from their means make one covariance,
    and where no class has a second sample, those from the mean of all do.

    Args:
        x: samples by voxels
        of: the class of each, from 0
        classes: how many; each has a sample
    """
    means = np.stack([x[of == k].mean(axis=0) for k in range(classes)])
    counts = np.bincount(of, minlength=classes)
    deviations = x - means[of]
    groups = [deviations[of == k] for k in range(classes)]
    if counts.min() < FEWEST:
        groups = [deviations if counts.max() > 1 else x - x.mean(axis=0)]
    diagonal, spanned = np.zeros(x.shape[1]), []
    for group in groups:
        share, deviation = len(group) / len(x), group.std(axis=0)
        scale = np.where(deviation > 0, deviation, 1.0)
        shrunk, size = ledoit_wolf(group / scale)
        diagonal += share * shrunk * size * scale**2
        spanned.append(np.sqrt(share * (1 - shrunk) / len(group)) * group)
    weights = _solved(diagonal, np.concatenate(spanned), means.T)
    offset = np.log(counts / len(x)) - 0.5 * (means.T * weights).sum(axis=0)
    return weights, offset


def ledoit_wolf(z: Float[np.ndarray, "n x"]) -> tuple[float, float]:
    """How far the covariance of centred samples is shrunk, from 0 to 1, and the variance it is shrunk to."""
    n, voxels = z.shape
    size = float((z**2).sum()) / n / voxels
    if voxels == 1 or size == 0:
        return 0.0, size
    fourth = float(((z**2).sum(axis=1) ** 2).sum()) / n
    squared = float(((z @ z.T) ** 2).sum()) / n**2
    spread = (squared - voxels * size**2) / voxels
    noise = min((fourth - squared) / (voxels * n), spread)
    return (noise / spread if noise > ROUNDING * spread else 0.0), size


def _solved(
    diagonal: Float[np.ndarray, " x"], spanned: Float[np.ndarray, "m x"], means: Float[np.ndarray, "x k"]
) -> Float[np.ndarray, "x k"]:
    """(diagonal + spanned' spanned)^-1 means."""
    if not diagonal.all():  # nothing is shrunk, so no voxel has a diagonal: the least-norm weights
        least = np.linalg.pinv(spanned, rcond=np.sqrt(np.finfo(float).eps * len(diagonal)))
        return np.asarray(least @ (least.T @ means))
    plain, thin = means / diagonal[:, None], spanned / diagonal
    inner = np.eye(len(spanned)) + thin @ spanned.T
    return np.asarray(plain - thin.T @ np.linalg.solve(inner, spanned @ plain))
