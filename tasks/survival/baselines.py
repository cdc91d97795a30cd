"""What a sceptic would try first: chance, covariates alone, ridge Cox on clipped genes, and ridge with covariates.

Each baseline takes the prepared matrix of a fold (`Prepared.matrix`: z-scored on training patients, clipped) and picks
its own columns. A missing value becomes the training mean; a constant column (sex in an all-female cohort) gets no
weight and breaks nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from data.errors import DataError
from tasks.survival.follow_up import FollowUp, StepCurve, kaplan_meier
from tasks.survival.ridge_cox import RidgeCox, event_folds

COVARIATES = ("age", "is_female")


class Baseline(ABC):
    """A survival model that is fitted in seconds."""

    name: str

    @abstractmethod
    def fit(self, matrix: pd.DataFrame, time: np.ndarray | pd.Series, event: np.ndarray | pd.Series) -> "Baseline":
        """Fit on training patients: one row per patient; time in months; event True or 1 = seen."""

    @abstractmethod
    def risk(self, matrix: pd.DataFrame) -> Float[np.ndarray, " m"]:
        """Log hazard ratio, higher = worse."""

    @abstractmethod
    def survival(self, matrix: pd.DataFrame, months: Float[np.ndarray, " t"]) -> Float[np.ndarray, "m t"]:
        """Probability of living beyond each month."""


class Chance(Baseline):
    """Everybody is the same: no ranking, and the training patients' Kaplan-Meier curve for all."""

    name = "chance"

    def fit(self, matrix: pd.DataFrame, time: np.ndarray | pd.Series, event: np.ndarray | pd.Series) -> "Chance":
        self.curve: StepCurve = kaplan_meier(FollowUp.of(time, event))
        return self

    def risk(self, matrix: pd.DataFrame) -> Float[np.ndarray, " m"]:
        return np.zeros(len(matrix))

    def survival(self, matrix: pd.DataFrame, months: Float[np.ndarray, " t"]) -> Float[np.ndarray, "m t"]:
        return np.tile(self.curve.at(np.asarray(months)), (len(matrix), 1))


class LinearBaseline(Baseline):
    """Ridge Cox regression on some columns of the prepared matrix.

    Args:
        name: as it stands in tables
        covariates: clinical columns to use
        genes: whether to use every other column too
        covariate_weight: factor on the covariates beside genes: their coefficients then carry 1 / factor^2 of the
            penalty. One covariate has to be heard among thousands of genes, and an unpenalised one would not be shrunk
            in a small fold
        penalty: of the ridge; None = chosen by cross-validation inside the training patients
    """

    def __init__(
        self,
        name: str,
        covariates: Sequence[str] = (),
        genes: bool = False,
        covariate_weight: float = 5.0,
        penalty: float | None = None,
    ):
        if not covariates and not genes:
            raise ValueError(f"baseline {name} has no columns: give covariates or genes=True")
        self.name, self.covariates, self.genes = name, tuple(covariates), genes
        self.covariate_weight, self.penalty = covariate_weight, penalty

    def fit(
        self, matrix: pd.DataFrame, time: np.ndarray | pd.Series, event: np.ndarray | pd.Series
    ) -> "LinearBaseline":
        """Choose the penalty, then fit.

        Raises:
            DataError: a column is missing from the matrix, or there are too few events
        """
        missing = [name for name in self.covariates if name not in matrix.columns]
        features = [name for name in matrix.columns if name not in COVARIATES] if self.genes else []
        if missing or (self.genes and not features):
            lacking = ", ".join(missing) or "gene columns"
            raise DataError(f"baseline {self.name}: the prepared matrix has no {lacking}; leave this baseline out")
        self.columns = [*features, *self.covariates]
        self.weights = np.where(np.isin(self.columns, self.covariates) & self.genes, self.covariate_weight, 1.0)
        known = matrix[self.columns].mean()
        self.means = known.where(known.notna(), 0.0).to_numpy(dtype=np.float64)
        self.cox = RidgeCox(self.penalty).fit(self._features(matrix), FollowUp.of(time, event))
        return self

    def risk(self, matrix: pd.DataFrame) -> Float[np.ndarray, " m"]:
        return self.cox.risk(self._features(matrix))

    def survival(self, matrix: pd.DataFrame, months: Float[np.ndarray, " t"]) -> Float[np.ndarray, "m t"]:
        return self.cox.survival(self._features(matrix), np.asarray(months))

    def _features(self, matrix: pd.DataFrame) -> Float[np.ndarray, "m g"]:
        values = matrix[self.columns].to_numpy(dtype=np.float64)
        return np.where(np.isnan(values), self.means, values) * self.weights


# Covariates alone are not shrunk: 1e-6 only keeps a constant column from making the Hessian singular.
UNPENALISED = 1e-6


def age() -> LinearBaseline:
    return LinearBaseline("age", ["age"], penalty=UNPENALISED)


def ridge_genes_and_age() -> LinearBaseline:
    return LinearBaseline("ridge genes + age", ["age"], genes=True)


def score_fold(
    baselines: Iterable[Baseline],
    train: pd.DataFrame,
    test: pd.DataFrame,
    patients: pd.DataFrame,
    fold: int | str,
    months: Sequence[float],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fit baselines on the training patients of a fold and predict its test patients.

    Args:
        baselines: to be fitted
        train: prepared matrix of the training patients, indexed by case_id
        test: prepared matrix of the test patients
        patients: time and event of all of them, indexed by case_id
        fold: name of the fold
        months: grid of the survival curves

    Returns:
        Predictions (arm, fold, seed, case_id, time, event, risk) and curves (arm, fold, seed, case_id, one column per
        month).
    """
    seen, scored = patients.loc[train.index], patients.loc[test.index]
    predictions, curves = [], []
    for baseline in baselines:
        baseline.fit(train, seen["time"], seen["event"])
        of_arm = pd.DataFrame({"arm": baseline.name, "fold": fold, "seed": 0, "case_id": test.index})
        outcome = {"time": scored["time"].to_numpy(), "event": scored["event"].to_numpy(), "risk": baseline.risk(test)}
        predictions.append(of_arm.assign(**outcome))
        grid = baseline.survival(test, np.asarray(months, dtype=np.float64))
        curves.append(pd.concat([of_arm, pd.DataFrame(grid, columns=[f"{month:g}" for month in months])], axis=1))
    return pd.concat(predictions, ignore_index=True), pd.concat(curves, ignore_index=True)


def out_of_fold_risk(
    make: Callable[[], Baseline],
    train: pd.DataFrame,
    time: np.ndarray | pd.Series,
    event: np.ndarray | pd.Series,
    test: pd.DataFrame,
    folds: int = 5,
    seed: int = 0,
) -> tuple[pd.Series, pd.Series]:
    """Risk of training patients from models that never saw them, and of test patients from the model of all training
    patients.

    Args:
        make: builds an unfitted baseline; its penalty is chosen anew inside every inner training set
        train: prepared matrix of the training patients
        time: months of the training patients, in the order of `train`
        event: of the training patients
        test: prepared matrix of patients outside training
        folds: inner folds, each with its share of events
        seed: of the inner folds

    Returns:
        Log hazard ratios of the training and of the test patients, by case_id. A linear baseline's are centred on the
        patients it was fitted on, so those of different inner models share a scale.

    Raises:
        DataError: with fewer than two events
    """
    outcome = FollowUp.of(time, event)
    if outcome.events < 2:
        raise DataError(
            f"out-of-fold risk needs at least 2 events among the training patients and there are {outcome.events}"
        )
    fold = event_folds(outcome.event, min(folds, outcome.events), seed)
    risk = pd.Series(np.nan, index=train.index, name="risk")
    for left_out in range(fold.max() + 1):
        inside = fold != left_out
        model = make().fit(train[inside], outcome.time[inside], outcome.event[inside])
        risk[~inside] = model.risk(train[~inside])
    everybody = make().fit(train, outcome.time, outcome.event)
    return risk, pd.Series(everybody.risk(test), index=test.index, name="risk")
