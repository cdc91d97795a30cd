"""Ridge regression in closed form: weights, the hat matrix, and a penalty per target chosen on held-out folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import cho_factor, cho_solve, eigh


def ridge_weights(x: Float[np.ndarray, "n x"], y: Float[np.ndarray, "n k"], alpha: float) -> Float[np.ndarray, "x k"]:
    """Ridge regression of y on x, both centred: `(x'x + alpha)^-1 x'y`, by way of the smaller Gram matrix."""
    n, voxels = x.shape
    if n <= voxels:
        return x.T @ cho_solve(cho_factor(x @ x.T + alpha * np.eye(n)), y)
    return cho_solve(cho_factor(x.T @ x + alpha * np.eye(voxels)), x.T @ y)


def hat_matrix(
    train: Float[np.ndarray, "n x"], test: Float[np.ndarray, "m x"], alpha: float
) -> Float[np.ndarray, "m n"]:
    """Ridge as a linear map from training targets to predictions: `predicted = hat @ targets`, intercept included.

    Args:
        train: training samples, centred
        test: samples to predict, the training mean taken off
        alpha: penalty

    Returns:
        Rows that each sum to 1: targets that are all alike are predicted as they are.
    """
    n = len(train)
    hat = cho_solve(cho_factor(train @ train.T + alpha * np.eye(n)), train @ test.T).T
    return hat + (1 - hat.sum(axis=1, keepdims=True)) / n


@dataclass(frozen=True)
class RidgeCV:
    """A fitted ridge regression with its own penalty for every target.

    Args:
        weights: of the features as given
        offset: intercepts
        alpha: the penalty chosen for each target
        loss: mean squared error on the held-out folds, per penalty and target
    """

    weights: Float[np.ndarray, "f x"]
    offset: Float[np.ndarray, " x"]
    alpha: Float[np.ndarray, " x"]
    loss: Float[np.ndarray, "a x"]

    def predict(self, features: Float[np.ndarray, "m f"]) -> Float[np.ndarray, "m x"]:
        return features.astype(self.weights.dtype) @ self.weights + self.offset


def ridge_cv(
    features: Float[np.ndarray, "n f"],
    y: Float[np.ndarray, "n x"],
    alphas: Sequence[float],
    fold: Int[np.ndarray, " n"],
) -> RidgeCV:
    """Choose each target's penalty by its mean squared error on folds that are held out whole, then fit on everything.

    The Gram matrices are decomposed in float64, once per fold; what is multiplied with the many targets has their type.

    Args:
        features: of n samples
        y: targets, such as voxels
        alphas: penalties to choose from, above 0; of equal losses the first wins
        fold: number of the fold of each sample, from 0; at least two

    Raises:
        ValueError: fewer than two folds, or a penalty that is not above 0
    """
    if fold.max() < 1 or not min(alphas) > 0:
        raise ValueError(f"ridge_cv: {fold.max() + 1} folds, smallest penalty {min(alphas)}; two folds, above 0 needed")
    loss = np.zeros((len(alphas), y.shape[1]))
    folds = np.unique(fold)
    for k in folds:
        out = fold == k
        path = _Path(features[~out], y[~out])
        read, truth = path.read(features[out]), y[out] - path.y_mean
        for row, alpha in enumerate(alphas):
            error = path.predict(read, alpha)
            error -= truth
            loss[row] += np.einsum("nx,nx->x", error, error) / len(error)
    best = loss.argmin(axis=0)
    path = _Path(features, y)
    weights = np.empty((features.shape[1], y.shape[1]), dtype=y.dtype)
    for row in np.unique(best):
        own = best == row
        weights[:, own] = path.weights(alphas[row], own)
    offset = path.y_mean - path.x_mean.astype(y.dtype) @ weights
    return RidgeCV(weights, offset, np.asarray(alphas, dtype=np.float64)[best], loss / len(folds))


class _Path:
    """All penalties of one training set: `weights(alpha) = basis @ diag(1 / (values + alpha)) @ target`."""

    def __init__(self, x: Float[np.ndarray, "n f"], y: Float[np.ndarray, "n x"]):
        self.x_mean, self.y_mean = x.mean(axis=0, dtype=np.float64), y.mean(axis=0)
        x, y = x - self.x_mean, y - self.y_mean
        wide = len(x) < x.shape[1]
        self.values, vectors = eigh(x @ x.T if wide else x.T @ x)
        self.basis = x.T @ vectors if wide else vectors
        self.target = (vectors if wide else x @ vectors).T.astype(y.dtype) @ y

    def read(self, features: Float[np.ndarray, "m f"]) -> Float[np.ndarray, "m e"]:
        return (features - self.x_mean) @ self.basis

    def predict(self, read: Float[np.ndarray, "m e"], alpha: float) -> Float[np.ndarray, "m x"]:
        return (read / (self.values + alpha)).astype(self.target.dtype) @ self.target

    def weights(self, alpha: float, own: np.ndarray) -> Float[np.ndarray, "f _"]:
        return (self.basis / (self.values + alpha)).astype(self.target.dtype) @ self.target[:, own]
