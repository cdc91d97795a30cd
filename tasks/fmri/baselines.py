"""What a sceptic would try first, one fit per subject: correlation, linear classifiers, position in the run, chance.

Voxels are centred (and, but for correlation, scaled) by the training samples of the subject alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from data.brain.brain import Brains
from data.errors import DataError
from tasks.fmri.decoder import Decoder, Scores
from tasks.fmri.discriminants import discriminants
from tasks.fmri.ridge import ridge_weights


class Standard:
    """Centre and scale voxels by training samples; a voxel constant in training is only centred.

    Args:
        x: training samples
        scale: divide by the standard deviation (of all training samples, ddof 0) as well
    """

    def __init__(self, x: Float[np.ndarray, "n x"], scale: bool = True):
        x = np.asarray(x, dtype=np.float64)
        self.mean = x.mean(axis=0)
        deviation = x.std(axis=0)
        self.deviation = np.where((deviation > 0) & scale, deviation, 1.0)

    def __call__(self, x: Float[np.ndarray, "m x"]) -> Float[np.ndarray, "m x"]:
        return (x - self.mean) / self.deviation


class PerSubject(Decoder):
    """One fit per subject, by the samples of that subject alone; a class unseen by the subject scores -inf."""

    def fit(self, brains: Brains, train: Sequence[str], *, seed: int, folder: Path | None = None) -> PerSubject:
        self.fitted: dict[str, Any] = {}
        for subject, (x, table) in brains.rows(train).items():
            truth = table[brains.truth].to_numpy()
            if len(set(truth)) < 2:
                raise DataError(
                    f"subject {subject}: {type(self).__name__} needs two classes in training and found "
                    f"{len(set(truth))}; hold out fewer runs"
                )
            self.fitted[subject] = self.learn(np.asarray(x, dtype=np.float64), truth, table, seed)
        return self

    def scores(self, brains: Brains, test: Sequence[str]) -> Scores:
        parts = []
        for subject, (x, table) in brains.rows(test).items():
            if subject not in self.fitted:
                raise DataError(
                    f"subject {subject}: {type(self).__name__} has no fit for it (only {', '.join(self.fitted)}); "
                    "train on some of its samples"
                )
            classes, matrix = self.rate(self.fitted[subject], np.asarray(x, dtype=np.float64), table)
            column = {name: place for place, name in enumerate(brains.candidates)}
            full = np.full((len(table), len(column)), -np.inf)
            full[:, [column[name] for name in classes]] = matrix
            parts.append(Scores(list(table.index), full, list(brains.candidates)))
        return Scores.joined(parts).of(test)

    @abstractmethod
    def learn(self, x: Float[np.ndarray, "n x"], truth: np.ndarray, table: pd.DataFrame, seed: int) -> Any:
        """Fit one subject: n samples and the name of the right candidate of each."""

    @abstractmethod
    def rate(self, fitted: Any, x: Float[np.ndarray, "m x"], table: pd.DataFrame) -> tuple[Sequence[str], np.ndarray]:
        """The classes that `learn` saw, and a score per sample and class."""


class Linear(PerSubject):
    """A linear score per class, `standard(x) @ weights + offset`; its weights are its maps."""

    def learn(self, x: Float[np.ndarray, "n x"], truth: np.ndarray, table: pd.DataFrame, seed: int) -> Any:
        standard = Standard(x)
        classes, of = np.unique(truth, return_inverse=True)
        weights, offset = self.solve(standard(x), of, len(classes), seed)
        return [str(name) for name in classes], standard, weights, offset

    def rate(self, fitted: Any, x: Float[np.ndarray, "m x"], table: pd.DataFrame) -> tuple[Sequence[str], np.ndarray]:
        classes, standard, weights, offset = fitted
        return classes, standard(x) @ weights + offset

    def maps(self, brains: Brains) -> dict[str, dict[str, Float[np.ndarray, " x"]]]:
        """Weights of the standardised voxels, one map per class."""
        return {
            subject: {name: weights[:, k] for k, name in enumerate(classes)}
            for subject, (classes, _, weights, _) in self.fitted.items()
        }

    @abstractmethod
    def solve(
        self, x: Float[np.ndarray, "n x"], of: Int[np.ndarray, " n"], classes: int, seed: int
    ) -> tuple[Float[np.ndarray, "x k"], Float[np.ndarray, " k"]]:
        """Weights and offsets from standardised samples and the class of each."""


class Ridge(Linear):
    """Least squares on one column per class with a penalty, solved in the smaller of samples and voxels.

    Args:
        alpha: penalty on the squared weights of standardised voxels
    """

    def __init__(self, alpha: float = 100.0):
        if not alpha > 0:
            raise ValueError(f"alpha={alpha}: the penalty must be above 0")
        self.alpha = alpha

    def solve(
        self, x: Float[np.ndarray, "n x"], of: Int[np.ndarray, " n"], classes: int, seed: int
    ) -> tuple[Float[np.ndarray, "x k"], Float[np.ndarray, " k"]]:
        target = np.eye(classes)[of]
        mean = target.mean(axis=0)
        return ridge_weights(x, target - mean, self.alpha), mean


class Logistic(Linear):
    """Multinomial logistic regression with an L2 penalty (scikit-learn).

    Args:
        c: inverse of the penalty
    """

    def __init__(self, c: float = 1.0):
        self.c = c

    def solve(
        self, x: Float[np.ndarray, "n x"], of: Int[np.ndarray, " n"], classes: int, seed: int
    ) -> tuple[Float[np.ndarray, "x k"], Float[np.ndarray, " k"]]:
        return _coefficients(LogisticRegression(C=self.c, max_iter=1000).fit(x, of))


class LinearSVM(Linear):
    """One linear support vector machine per class against the rest (scikit-learn, squared hinge).

    Args:
        c: inverse of the penalty
    """

    def __init__(self, c: float = 1.0):
        self.c = c

    def solve(
        self, x: Float[np.ndarray, "n x"], of: Int[np.ndarray, " n"], classes: int, seed: int
    ) -> tuple[Float[np.ndarray, "x k"], Float[np.ndarray, " k"]]:
        return _coefficients(LinearSVC(C=self.c, random_state=seed, max_iter=10000).fit(x, of))


class ShrinkageLDA(Linear):
    """Linear discriminants whose covariance is shrunk by the rule of Ledoit and Wolf, class by class as in
    scikit-learn; of all classes together where one has too few samples. See `discriminants`."""

    def solve(
        self, x: Float[np.ndarray, "n x"], of: Int[np.ndarray, " n"], classes: int, seed: int
    ) -> tuple[Float[np.ndarray, "x k"], Float[np.ndarray, " k"]]:
        return discriminants(x, of, classes)


def _coefficients(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Weights `[x, k]` and offsets of a fitted scikit-learn classifier; two classes are one line, used both ways."""
    weights, offset = model.coef_.T, model.intercept_
    if weights.shape[1] == 1:
        return np.hstack([-weights, weights]), np.hstack([-offset, offset])
    return weights, offset


class Correlation(PerSubject):
    """Pearson correlation over voxels with the mean pattern of each class (Haxby et al. 2001).

    The mean over all training samples is taken off every voxel first.
    """

    def learn(self, x: Float[np.ndarray, "n x"], truth: np.ndarray, table: pd.DataFrame, seed: int) -> Any:
        standard = Standard(x, scale=False)
        classes, of = np.unique(truth, return_inverse=True)
        patterns = np.stack([standard(x)[of == k].mean(axis=0) for k in range(len(classes))])
        return [str(name) for name in classes], standard, patterns

    def rate(self, fitted: Any, x: Float[np.ndarray, "m x"], table: pd.DataFrame) -> tuple[Sequence[str], np.ndarray]:
        classes, standard, patterns = fitted
        return classes, correlations(standard(x), patterns)

    def maps(self, brains: Brains) -> dict[str, dict[str, Float[np.ndarray, " x"]]]:
        """Mean patterns, one per class, less the mean over all."""
        return {
            subject: {name: patterns[k] for k, name in enumerate(classes)}
            for subject, (classes, _, patterns) in self.fitted.items()
        }


def correlations(a: Float[np.ndarray, "n x"], b: Float[np.ndarray, "k x"]) -> Float[np.ndarray, "n k"]:
    """Pearson correlation of every row of a with every row of b; a constant row correlates 0 with everything."""
    return _unit(a - a.mean(axis=1, keepdims=True)) @ _unit(b - b.mean(axis=1, keepdims=True)).T


def _unit(rows: Float[np.ndarray, "n x"]) -> Float[np.ndarray, "n x"]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)


class Position(PerSubject):
    """The control that sees no brain: how often each class stood at this place of the run in training.

    Whatever it scores above chance, the order of the classes gives away. Of equally frequent classes the first in the
    alphabet is preferred; a place unseen in training scores by the frequency of the classes overall.
    """

    def learn(self, x: Float[np.ndarray, "n x"], truth: np.ndarray, table: pd.DataFrame, seed: int) -> Any:
        counts = pd.crosstab(table["position"].to_numpy(), truth)
        return [str(name) for name in counts.columns], counts.div(counts.sum(axis=1), axis=0), counts.sum() / len(truth)

    def rate(self, fitted: Any, x: Float[np.ndarray, "m x"], table: pd.DataFrame) -> tuple[Sequence[str], np.ndarray]:
        classes, at_place, overall = fitted
        seen = table["position"].isin(at_place.index)
        rows = np.tile(overall.to_numpy(dtype=np.float64), (len(table), 1))
        rows[seen.to_numpy()] = at_place.loc[table.loc[seen, "position"]].to_numpy()
        return classes, rows - 1e-9 * np.arange(len(classes))


class Chance(Decoder):
    """Every candidate alike, for every sample and every subject."""

    cross_subject = True

    def fit(self, brains: Brains, train: Sequence[str], *, seed: int, folder: Path | None = None) -> Chance:
        return self

    def scores(self, brains: Brains, test: Sequence[str]) -> Scores:
        return Scores(list(test), np.zeros((len(test), len(brains.candidates))), list(brains.candidates))
