"""What is known about each patient's outcome, and the Kaplan-Meier curves that every censored metric rests on."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from data.errors import DataError


@dataclass(frozen=True)
class FollowUp:
    """Time under observation and whether it ended with the event.

    Args:
        time: months, above zero
        event: True = the event was seen, False = censored

    Raises:
        DataError: lengths differ, a time is missing or not above zero, an event is not a truth value
    """

    time: Float[np.ndarray, " n"]
    event: Bool[np.ndarray, " n"]

    @classmethod
    def of(cls, time: object, event: object) -> "FollowUp":
        """Check and convert columns or arrays; 0/1 and booleans are accepted for the event."""
        months, seen = np.asarray(time, dtype=np.float64), np.asarray(event)
        if months.shape != seen.shape or months.ndim != 1:
            raise DataError(f"follow-up: {months.shape} times for {seen.shape} events; give one of each per patient")
        if len(seen) and not np.isin(seen, [0, 1]).all():
            odd = seen[~np.isin(seen, [0, 1])][0]
            raise DataError(f"follow-up: event is {odd!r}; expected True (1) for the event and False (0) for censored")
        if not (np.isfinite(months) & (months > 0)).all():
            at = int(np.flatnonzero(~(np.isfinite(months) & (months > 0)))[0])
            raise DataError(f"follow-up: time is {months[at]} for patient {at}; expected months above zero")
        return cls(months, seen.astype(bool))

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, keep: np.ndarray) -> "FollowUp":
        return FollowUp(self.time[keep], self.event[keep])

    @property
    def events(self) -> int:
        return int(self.event.sum())


@dataclass(frozen=True)
class StepCurve:
    """A right-continuous survival curve that starts at 1 and steps down at `time`."""

    time: Float[np.ndarray, " t"]
    survival: Float[np.ndarray, " t"]

    def at(self, time: np.ndarray) -> np.ndarray:
        """The probability of lasting beyond `time`."""
        return self._after(np.searchsorted(self.time, time, side="right"))

    def before(self, time: np.ndarray) -> np.ndarray:
        """The probability of lasting up to, but not through, `time` (the limit from the left)."""
        return self._after(np.searchsorted(self.time, time, side="left"))

    def _after(self, steps: np.ndarray) -> np.ndarray:
        return np.concatenate([[1.0], self.survival])[steps]


def kaplan_meier(outcome: FollowUp, of_censoring: bool = False) -> StepCurve:
    """Estimate the curve of the event or, reversed, of being censored.

    At a shared time events come before censoring, so a patient who has the event at t is no longer at risk of being
    censored at t.
    """
    times, at = np.unique(outcome.time, return_inverse=True)
    event = np.bincount(at, weights=outcome.event, minlength=len(times))
    left = np.bincount(at, minlength=len(times))
    at_risk = left[::-1].cumsum()[::-1]
    if of_censoring:
        fallen, at_risk = left - event, at_risk - event
    else:
        fallen = event
    hazard = np.divide(fallen, at_risk, out=np.zeros(len(times)), where=at_risk > 0)
    return StepCurve(times, np.cumprod(1 - hazard))


@dataclass(frozen=True)
class Censoring:
    """Inverse probabilities of censoring, learnt on the training patients of a fold.

    Args:
        remaining: P(not censored by t) of the training patients
        horizon: months up to which weights are used; beyond it too few training patients were still watched
    """

    remaining: StepCurve
    horizon: float

    def of_events(self, outcome: FollowUp) -> Float[np.ndarray, " n"]:
        """Weight 1 / G(t-) for a patient whose event was seen before the horizon, 0 for everybody else."""
        use = outcome.event & (outcome.time < self.horizon)
        chance = self.remaining.before(outcome.time)
        return np.divide(1.0, chance, out=np.zeros(len(outcome)), where=use & (chance > 0))

    def of_survivors(self, outcome: FollowUp, month: float) -> Float[np.ndarray, " n"]:
        """Weight 1 / G(month) for a patient still watched after `month`, 0 for everybody else; nan if G(month) is 0."""
        chance = float(self.remaining.at(np.array([month]))[0])
        return np.where(outcome.time > month, 1 / chance if chance > 0 else np.nan, 0.0)


def censoring(training: FollowUp, watched: float = 0.1) -> Censoring:
    """Estimate censoring on training patients and stop where fewer than the share `watched` of them are still observed.

    Raises:
        DataError: without training patients
    """
    if not len(training):
        raise DataError(
            "censoring weights need training patients and there are none; give the fold's training follow-up"
        )
    return Censoring(kaplan_meier(training, of_censoring=True), float(np.quantile(training.time, 1 - watched)))
