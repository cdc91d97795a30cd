"""Ridge Cox regression for more features than patients: Newton's method in the space the patients span.

Minimises  - log PL(X b) / n + penalty / 2 |b|^2,  PL the Cox partial likelihood (ties: Efron 1977 or Breslow 1974). The
scale of the penalty is that of lifelines (`penalizer`, `l1_ratio=0`) and of scikit-survival's Coxnet (`alpha`,
`l1_ratio` -> 0). The optimum lies in the row space of X (van Houwelingen et al. 2006), so with X = U S V' only c in b =
V c is sought: at most n numbers instead of thousands. Products with the Hessian need two cumulative sums, and Newton's
steps are solved by conjugate gradients, preconditioned by the Hessian's diagonal in that basis.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from data.errors import DataError
from tasks.survival.follow_up import FollowUp

Ties = Literal["efron", "breslow"]
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class PartialLikelihood:
    """- log PL / n of the linear predictor, with gradient and Hessian products in linear time.

    Args:
        outcome: follow-up of n patients
        ties: how events at the same month share their risk set

    Raises:
        DataError: without an event
    """

    def __init__(self, outcome: FollowUp, ties: Ties = "efron"):
        if not outcome.events:
            raise DataError(
                f"Cox regression: none of the {len(outcome)} patients had the event; at least one is needed"
            )
        self.n = len(outcome)
        self.event = outcome.event
        _, self.at = np.unique(outcome.time, return_inverse=True)
        self.times = int(self.at.max()) + 1
        # One term per event: when it happened, and the share of its tied events that has already left (0 for Breslow).
        self.term = np.sort(self.at[outcome.event])
        first = np.searchsorted(self.term, self.term, side="left")
        tied = np.bincount(self.term, minlength=self.times)
        self.left = (
            (np.arange(len(self.term)) - first) / tied[self.term] if ties == "efron" else np.zeros(len(self.term))
        )

    def value(self, eta: Float[np.ndarray, " n"]) -> float:
        """- log PL / n."""
        shift = float(eta.max())
        weight = np.exp(eta - shift)
        return float((np.log(self._risk_sets(weight)) + shift).sum() - eta[self.event].sum()) / self.n

    def gradient(self, eta: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Derivative of `value`: expected minus seen events, per patient."""
        weight = np.exp(eta - eta.max())
        return (self._over_terms(1 / self._risk_sets(weight)) * weight - self.event) / self.n

    def curvature(self, eta: Float[np.ndarray, " n"]) -> "Curvature":
        """The Hessian of `value` at eta."""
        weight = np.exp(eta - eta.max())
        sets = self._risk_sets(weight)
        return Curvature(self, weight, sets, self._over_terms(1 / sets) * weight / self.n)

    def _risk_sets(self, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " i"]:
        """Sum values over the risk set of each term, less the share of tied events that has left."""
        watched = np.bincount(self.at, values, self.times)[::-1].cumsum()[::-1]
        tied = np.bincount(self.at, values * self.event, self.times)
        return watched[self.term] - self.left * tied[self.term]

    def _over_terms(self, values: Float[np.ndarray, " i"]) -> Float[np.ndarray, " n"]:
        """The transpose of `_risk_sets`: sum values over the terms whose risk set holds each patient."""
        met = np.bincount(self.term, values, self.times).cumsum()
        tied = np.bincount(self.term, values * self.left, self.times)
        return met[self.at] - self.event * tied[self.at]


@dataclass(frozen=True)
class Curvature:
    """Hessian of the negative log partial likelihood: sum over terms of diag(p) - p p', p the chance of each patient to
    be the one.

    Args:
        likelihood: whose Hessian it is
        weight: hazard ratio of each patient
        sets: summed hazard ratio of each term
        diagonal: sum over terms of p / n, an upper bound of the Hessian's diagonal
    """

    likelihood: PartialLikelihood
    weight: Float[np.ndarray, " n"]
    sets: Float[np.ndarray, " i"]
    diagonal: Float[np.ndarray, " n"]

    def times(self, vector: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Hessian times a vector."""
        mean = self.likelihood._risk_sets(self.weight * vector) / self.sets
        return self.diagonal * vector - self.weight * self.likelihood._over_terms(mean / self.sets) / self.likelihood.n


@dataclass(frozen=True)
class Basis:
    """Patients in the coordinates of their own row space: X - mean = scores V', V = (X - mean)' mixing.

    Args:
        scores: one row per patient, one column per direction in which the patients differ
        mixing: how patients are combined into those directions
        mean: feature means that were taken out (the partial likelihood does not see them)
    """

    scores: Float[np.ndarray, "n r"]
    mixing: Float[np.ndarray, "n r"]
    mean: Float[np.ndarray, " g"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "n g"]) -> "Basis":
        """Rotate features, by whichever of the two Gram matrices is smaller."""
        mean = features.mean(axis=0)
        centred = features - mean
        if centred.shape[0] > centred.shape[1]:
            squared, directions = np.linalg.eigh(centred.T @ centred)
            keep = squared > 1e-12 * max(float(squared.max(initial=0.0)), 1e-300)
            scores = centred @ directions[:, keep]
            return cls(scores, scores / squared[keep], mean)
        squared, u = np.linalg.eigh(centred @ centred.T)
        keep = squared > 1e-12 * max(float(squared.max(initial=0.0)), 1e-300)
        s = np.sqrt(squared[keep])
        return cls(u[:, keep] * s, u[:, keep] / s, mean)

    def coefficients(self, features: Float[np.ndarray, "n g"], c: Float[np.ndarray, " r"]) -> Float[np.ndarray, " g"]:
        """Coefficients of the features this basis was made of, for coordinates c."""
        weight = self.mixing @ c
        return weight @ features - weight.sum() * self.mean


def fit_in(
    scores: Float[np.ndarray, "n r"],
    likelihood: PartialLikelihood,
    penalty: float,
    start: Float[np.ndarray, " r"] | None = None,
    tolerance: float = 1e-8,
) -> Float[np.ndarray, " r"]:
    """Minimise in coordinates `scores`, by Newton's method with halved steps.

    Raises:
        ValueError: penalty not above zero
        DataError: if Newton's method does not settle, which a penalty above zero should exclude
    """
    if not penalty > 0:
        raise ValueError(f"penalty={penalty} must be above zero; 1e-6 is as good as none")
    c = np.zeros(scores.shape[1]) if start is None else start
    squared = scores**2
    value = likelihood.value(scores @ c) + penalty / 2 * c @ c
    for _ in range(100):
        eta = scores @ c
        gradient = scores.T @ likelihood.gradient(eta) + penalty * c
        if np.abs(gradient).max(initial=0.0) <= tolerance:
            return c
        step = _newton_step(scores, squared, likelihood.curvature(eta), penalty, gradient)
        slope, size = float(gradient @ step), 1.0
        while True:
            tried = c - size * step
            new = likelihood.value(scores @ tried) + penalty / 2 * tried @ tried
            if new <= value - 1e-4 * size * slope or size < 1e-6:
                break
            size /= 2
        if size < 1e-6:  # no descent left above rounding
            return c
        c, value = tried, new
    raise DataError(
        f"ridge Cox did not settle in 100 Newton steps at penalty {penalty}; look for features of extreme size"
    )


def _newton_step(
    scores: np.ndarray, squared: np.ndarray, curvature: Curvature, penalty: float, gradient: np.ndarray
) -> np.ndarray:
    """Solve (Z' H Z + penalty) step = gradient by preconditioned conjugate gradients."""
    scale = 1 / (curvature.diagonal @ squared + penalty)
    step, rest = np.zeros_like(gradient), gradient.copy()
    scaled = scale * rest
    direction, power = scaled.copy(), float(rest @ scaled)
    enough = min(0.1, np.sqrt(np.linalg.norm(gradient))) * np.linalg.norm(gradient)
    for _ in range(2 * len(gradient) + 10):
        pushed = scores.T @ curvature.times(scores @ direction) + penalty * direction
        along = power / float(direction @ pushed)
        step += along * direction
        rest -= along * pushed
        if np.linalg.norm(rest) <= enough:
            break
        scaled = scale * rest
        power, before = float(rest @ scaled), power
        direction = scaled + power / before * direction
    return step


def event_folds(event: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Deal patients into folds so that each gets its share of events: the fold of each patient."""
    rng, fold = np.random.default_rng(seed), np.empty(len(event), dtype=int)
    order = np.concatenate([rng.permutation(np.flatnonzero(event)), rng.permutation(np.flatnonzero(~event))])
    fold[order] = np.arange(len(event)) % folds
    return fold


def cross_validated(
    scores: Float[np.ndarray, "n r"],
    outcome: FollowUp,
    penalties: Sequence[float] = PENALTIES,
    folds: int = 5,
    seed: int = 0,
    ties: Ties = "efron",
) -> Float[np.ndarray, " k"]:
    """Cross-validated log partial likelihood per patient of each penalty, higher = better.

    A left-out fold is scored by the log partial likelihood of everybody minus that of those fitted on, both at the
    coefficients fitted without it (Verweij and van Houwelingen 1993): well defined with a handful of events per fold.

    Args:
        scores: features, or their coordinates in a `Basis`, which give the same fits
        outcome: follow-up
        penalties: the path
        folds: inner folds, no more than there are events
        seed: of the inner folds
        ties: Efron or Breslow

    Raises:
        DataError: with fewer than two events, so that no fold can be left out
    """
    if outcome.events < 2:
        raise DataError(f"choosing a penalty needs at least 2 events and there are {outcome.events}; give the penalty")
    fold = event_folds(outcome.event, min(folds, outcome.events), seed)
    everybody, reached = PartialLikelihood(outcome, ties), np.zeros(len(penalties))
    for left_out in range(fold.max() + 1):
        inside = fold != left_out
        fitted_on, inner, c = PartialLikelihood(outcome[inside], ties), np.ascontiguousarray(scores[inside]), None
        for at in np.argsort(penalties)[::-1]:
            c = fit_in(inner, fitted_on, penalties[at], c, tolerance=1e-5)
            reached[at] += fitted_on.n * fitted_on.value(inner @ c) - everybody.n * everybody.value(scores @ c)
    return reached / len(outcome)


class RidgeCox:
    """Ridge Cox regression whose penalty is chosen by cross-validation inside the patients it is fitted on.

    Args:
        penalty: a number, or None to choose from `penalties` by `cross_validated`
        penalties: the path
        folds: inner folds, each with its share of events
        seed: of the inner folds
        ties: Efron or Breslow
    """

    def __init__(
        self,
        penalty: float | None = None,
        penalties: Sequence[float] = PENALTIES,
        folds: int = 5,
        seed: int = 0,
        ties: Ties = "efron",
    ):
        self.penalty, self.penalties, self.folds, self.seed, self.ties = penalty, penalties, folds, seed, ties

    def fit(self, features: Float[np.ndarray, "n g"], outcome: FollowUp) -> "RidgeCox":
        """Choose the penalty (unless given), fit on all patients, and estimate the baseline hazard.

        Raises:
            DataError: a feature is not finite, or there is no event
        """
        if not np.isfinite(features).all():
            column = int(np.flatnonzero(~np.isfinite(features).all(axis=0))[0])
            raise DataError(f"ridge Cox: feature {column} holds a missing or infinite value; impute it first")
        likelihood = PartialLikelihood(outcome, self.ties)
        basis = Basis.of(features)
        self.chosen = self.penalty if self.penalty is not None else self._choose(basis.scores, outcome)
        self.mean = basis.mean
        self.coefficients = basis.coefficients(features, fit_in(basis.scores, likelihood, self.chosen))
        self.times, self.hazard = breslow(outcome, self.risk(features))
        return self

    def risk(self, features: Float[np.ndarray, "m g"]) -> Float[np.ndarray, " m"]:
        """Log hazard ratio against the mean training patient."""
        return (features - self.mean) @ self.coefficients

    def survival(self, features: Float[np.ndarray, "m g"], months: Float[np.ndarray, " t"]) -> Float[np.ndarray, "m t"]:
        """Probability of living beyond each month; flat after the last training event."""
        cumulative = np.concatenate([[0.0], self.hazard])[np.searchsorted(self.times, months, side="right")]
        return np.exp(-np.exp(self.risk(features))[:, None] * cumulative)

    def _choose(self, scores: np.ndarray, outcome: FollowUp) -> float:
        score = cross_validated(scores, outcome, self.penalties, self.folds, self.seed, self.ties)
        return float(self.penalties[int(np.argmax(score))])


def breslow(
    outcome: FollowUp, risk: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """Breslow's cumulative baseline hazard at the event times: events over the summed hazard ratios at risk, summed."""
    times = np.unique(outcome.time[outcome.event])
    died = ((outcome.time[:, None] == times) & outcome.event[:, None]).sum(axis=0)
    at_risk = np.exp(risk) @ (outcome.time[:, None] >= times)
    return times, np.cumsum(died / at_risk)
