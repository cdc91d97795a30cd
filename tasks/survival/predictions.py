"""The predictions of a run as one checked table: arms, folds, seeds, and what each fold was trained on."""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from data.errors import DataError
from tasks.survival.follow_up import FollowUp


@dataclass(frozen=True)
class Run:
    """The scored cases of one arm with one seed: of one fold, or of all of them when pooled.

    Args:
        cases: position of each row's patient among all patients of the table, so that arms are resampled alike
        fold: the fold each row was scored in
        outcome: follow-up of the rows
        risk: higher = worse
        survival: survival probability at each month of the grid; None without curves
    """

    cases: Int[np.ndarray, " n"]
    fold: np.ndarray
    outcome: FollowUp
    risk: Float[np.ndarray, " n"]
    survival: Float[np.ndarray, "n t"] | None


@dataclass(frozen=True)
class Predictions:
    """Checked predictions of all arms.

    Args:
        arms: in the order they came in
        rows: arm, fold, seed, case_id, time, event, risk, sorted by the first four
        months: the grid of the curves, rising
        curves: survival probabilities in the order of `rows` (nan rows where an arm has none), or None
        follow_up: fold -> follow-up of its training patients
        cases: all patients, sorted
    """

    arms: list[str]
    rows: pd.DataFrame
    months: Float[np.ndarray, " t"]
    curves: Float[np.ndarray, "r t"] | None
    follow_up: dict[Hashable, FollowUp]
    cases: pd.Index

    @classmethod
    def of(cls, predictions: pd.DataFrame, curves: pd.DataFrame | None, training: pd.DataFrame | None) -> "Predictions":
        """Check the tables and join the curves to the risks.

        Raises:
            DataError: naming the table and what is wrong with it
        """
        _need(predictions, ("arm", "fold", "case_id", "time", "event", "risk"), "predictions")
        rows = predictions if "seed" in predictions else predictions.assign(seed=0)
        if rows.empty:
            raise DataError("predictions: no rows; at least one scored case is needed")
        key = ["arm", "fold", "seed", "case_id"]
        rows = rows[[*key, "time", "event", "risk"]].sort_values(key, kind="stable").reset_index(drop=True)
        _once(rows, key, "predictions")
        outcomes = rows.groupby("case_id", sort=False)[["time", "event"]].nunique().max(axis=1)
        if (outcomes > 1).any():
            raise DataError(f"predictions: case {outcomes.idxmax()} has different outcomes in different rows; keep one")
        FollowUp.of(rows["time"], rows["event"])
        months, values = _grid(rows, curves, key)
        followed = {} if training is None else _followed(training, rows["fold"].unique())
        arms = list(dict.fromkeys(predictions["arm"]))
        return cls(arms, rows, months, values, followed, pd.Index(np.sort(rows["case_id"].unique())))

    def folds(self, arm: str) -> list[Hashable]:
        return list(dict.fromkeys(self.rows.loc[self.rows["arm"] == arm, "fold"]))

    def training(self, fold: Hashable) -> FollowUp:
        """Follow-up of the patients a fold was trained on."""
        return self.follow_up[fold]

    def runs(self, arm: str, fold: Hashable) -> list[Run]:
        """One run per seed."""
        return self._runs((self.rows["arm"] == arm) & (self.rows["fold"] == fold))

    def pooled(self, arm: str) -> list[Run]:
        """All folds together as they were predicted, one run per seed."""
        return self._runs(self.rows["arm"] == arm)

    def outcome(self, arm: str, fold: Hashable | None = None) -> FollowUp:
        """Follow-up of the patients an arm scored, in one fold or in all."""
        keep = (self.rows["arm"] == arm) & ((self.rows["fold"] == fold) | (fold is None))
        once = self.rows[keep].drop_duplicates("case_id")
        return FollowUp.of(once["time"], once["event"])

    def shared_by(self, a: str, b: str) -> "Predictions":
        """Only the (fold, case) pairs that both arms scored.

        Raises:
            DataError: if an arm is unknown or they share nothing
        """
        for arm in (a, b):
            if arm not in self.arms:
                raise DataError(f"predictions: no arm {arm!r}; there are {', '.join(map(repr, self.arms))}")
        place = pd.MultiIndex.from_frame(self.rows[["fold", "case_id"]])
        both = place[self.rows["arm"] == a].intersection(place[self.rows["arm"] == b])
        keep = place.isin(both) & self.rows["arm"].isin([a, b]).to_numpy()
        if not keep.any():
            raise DataError(
                f"predictions: {a} and {b} scored no case in the same fold; compare arms of the same splits"
            )
        return Predictions.of(self.rows[keep], None, None)

    def _runs(self, keep: pd.Series) -> list[Run]:
        runs = []
        for _, own in self.rows[keep].groupby("seed", sort=True):
            survival = None if self.curves is None else self.curves[own.index.to_numpy()]
            if survival is not None and np.isnan(survival).all():
                survival = None
            outcome = FollowUp.of(own["time"], own["event"])
            risk = own["risk"].to_numpy(dtype=np.float64)
            runs.append(Run(self.cases.get_indexer(own["case_id"]), own["fold"].to_numpy(), outcome, risk, survival))
        return runs


def _need(table: pd.DataFrame, names: tuple[str, ...], which: str) -> None:
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise DataError(f"{which}: no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}")


def _once(table: pd.DataFrame, key: list[str], which: str) -> None:
    twice = table[table.duplicated(key)]
    if len(twice):
        arm, fold, seed, case = twice.iloc[0][key]
        raise DataError(f"{which}: case {case} stands twice in arm {arm}, fold {fold}, seed {seed}; keep one row")


def _followed(training: pd.DataFrame, folds: np.ndarray) -> dict[Hashable, FollowUp]:
    _need(training, ("fold", "time", "event"), "training")
    followed = {fold: FollowUp.of(own["time"], own["event"]) for fold, own in training.groupby("fold", sort=False)}
    unknown = [str(fold) for fold in folds if fold not in followed]
    if unknown:
        raise DataError(
            f"training: no patients for fold {', '.join(unknown)}; every scored fold needs its training follow-up"
        )
    return followed


def _grid(rows: pd.DataFrame, curves: pd.DataFrame | None, key: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    if curves is None:
        return np.zeros(0), None
    _need(curves, ("arm", "fold", "case_id"), "curves")
    with_seed = curves if "seed" in curves else curves.assign(seed=0)
    names = [name for name in curves.columns if name not in (*key, "time", "event")]
    try:
        months = np.array([float(name) for name in names])
    except ValueError:
        odd = next(name for name in names if not _is_number(name))
        raise DataError(f"curves: column {odd!r} is not a month; expected numbers such as '12.0'") from None
    if len(months) < 1 or (np.diff(months) <= 0).any():
        raise DataError("curves: expected one column per month, in rising order")
    _once(with_seed, key, "curves")
    joined = rows[key].merge(with_seed, on=key, how="left")
    return months, joined[names].to_numpy(dtype=np.float64)


def _is_number(name: object) -> bool:
    try:
        float(str(name))
    except ValueError:
        return False
    return True
