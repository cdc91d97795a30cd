"""The response to all events alike, over time: whether the stated lag is right, without looking at a single class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from jaxtyping import Float

from data.brain.clean import Cleaning
from data.brain.units import Run, Unit
from data.errors import DataError

_BEFORE, _AFTER, _DELAY = 10.0, 20.0, 6.0


@dataclass(frozen=True)
class EvokedResponse:
    """A subject's class-blind response around the labelled onsets.

    Each run is read out with the voxel pattern in which the *other* runs respond to events of any class, so the curve
    shows what is reproducible and no voxel is chosen by the run it is shown for. A single run is its mean over voxels.

    Attributes:
        subject: whose
        seconds: from the labelled onset
        mean: average over runs; 0 = its lowest value before the peak, 1 = the peak
        error: standard error over runs; NaN with one run
        lag: the stated lag, s
        duration: median of the events', s
        events: how many
        unit: of the samples, volumes, blocks or trials
    """

    subject: str
    seconds: Float[np.ndarray, " t"]
    mean: Float[np.ndarray, " t"]
    error: Float[np.ndarray, " t"]
    lag: float
    duration: float
    events: int
    unit: Unit

    @property
    def _top(self) -> int:
        """Where the response to this event, not to the next, is highest."""
        return int(np.argmax(np.where(self.seconds <= self.duration + _DELAY, self.mean, -np.inf)))

    @property
    def peak(self) -> float:
        """Seconds after the labelled onset at which the response is highest."""
        return float(self.seconds[self._top])

    @property
    def rise(self) -> float:
        """Seconds after the labelled onset at which the response reaches half of its peak, interpolated."""
        top = self._top
        half = self.mean[top] / 2
        below = np.flatnonzero(self.mean[:top] < half)
        if not len(below):
            return float(self.seconds[0])
        k = int(below[-1])
        share = (half - self.mean[k]) / (self.mean[k + 1] - self.mean[k])
        return float(self.seconds[k] + share * (self.seconds[k + 1] - self.seconds[k]))

    @property
    def best_lag(self) -> float:
        """The lag, between -10 and 10 s, whose window of `duration` holds the highest mean response."""
        lags = self.seconds[self.seconds <= _BEFORE]
        return float(lags[int(np.argmax([self.caught(float(lag)) for lag in lags]))])

    def caught(self, lag: float) -> float:
        """Mean response in the window that a lag selects."""
        inside = (self.seconds >= lag - 1e-3) & (self.seconds < lag + max(self.duration, 1e-2) - 1e-3)
        if not inside.any():
            inside = np.abs(self.seconds - lag) == np.abs(self.seconds - lag).min()
        return float(self.mean[inside].mean())

    @property
    def expected_rise(self) -> float:
        """Seconds that a canonical response takes to reach half its height, for events of this duration."""
        return canonical_rise(self.duration)

    @property
    def sentence(self) -> str:
        """What the curve says about the stated lag."""
        said = (
            f"subject {self.subject}: the response to any event reaches half its height {self.rise:.1f} s and its peak "
            f"{self.peak:g} s after the labelled onset (a canonical response: half its height at "
            f"{self.expected_rise:.1f} s); "
        )
        if self.unit == "trials":
            return said + f"trials model that delay, so a lag of {self.rise - self.expected_rise:.1f} s would fit"
        share = self.caught(self.lag) / self.caught(self.best_lag) if self.caught(self.best_lag) > 0 else np.nan
        return said + f"the window at lag {self.lag:g} s holds {share:.0%} of what that at {self.best_lag:g} s would"

    def table(self) -> pd.DataFrame:
        """seconds, mean, error: a row per time."""
        return pd.DataFrame({"seconds": self.seconds, "mean": self.mean, "error": self.error})


def evoked_response(runs: Sequence[Run], cleaning: Cleaning, lag: float, unit: Unit) -> EvokedResponse:
    """Average all events of all runs, whatever their class.

    Args:
        runs: of one subject, with the same TR
        cleaning: of each run
        lag, unit: the stated ones; they move nothing here

    Raises:
        DataError: no run, runs of different TR, or no event with room around it
    """
    if not runs:
        raise DataError("evoked response: no run; give at least one")
    tr = runs[0].tr
    if any(abs(run.tr - tr) > 1e-3 for run in runs):
        raise DataError(f"{runs[0].path}: runs of different TR have no common time axis; read them apart")
    duration = float(np.median(np.concatenate([run.events["duration"].to_numpy(dtype=float) for run in runs])))
    steps = np.arange(-round(_BEFORE / tr), round((duration + _AFTER) / tr) + 1)
    curves = np.stack([_response(run, cleaning, steps) for run in runs])
    counts = ~np.isnan(curves).all(axis=(1, 2))
    if not counts.any():
        raise DataError(f"{runs[0].path}: no event has a volume around it; check onsets")
    curves = np.nan_to_num(curves[counts])
    responding = (steps >= 0) & (steps * tr <= duration + _DELAY)
    single = _read_out(curves, responding)
    whole = single.mean(axis=0)
    top = int(np.argmax(np.where(steps * tr <= duration + _DELAY, whole, -np.inf)))
    single -= whole[: top + 1].min()
    scale = single.mean(axis=0)[top] or 1.0
    error = np.full(len(steps), np.nan)
    if len(single) > 1:
        error = single.std(axis=0, ddof=1) / np.sqrt(len(single)) / scale
    events = sum(len(run.events) for run in runs)
    return EvokedResponse(
        runs[0].subject, steps * tr, single.mean(axis=0) / scale, error, float(lag), duration, events, unit
    )


def _response(run: Run, cleaning: Cleaning, steps: np.ndarray) -> np.ndarray:
    """Mean over events of the volumes around their onsets, `[steps, voxels]`; NaN where no event has one."""
    cleaned = cleaning.apply(run.series, run.tr, run.confounds)
    onset = np.rint((run.events["onset"].to_numpy(dtype=float) - run.start) / run.tr).astype(int)
    frames = onset[:, None] + steps
    inside = (frames >= 0) & (frames < len(cleaned.series))
    total = np.zeros((len(steps), cleaned.series.shape[1]))
    for row, ok in zip(frames, inside, strict=True):
        total[ok] += cleaned.series[row[ok]]
    number = inside.sum(axis=0)
    return np.where(number[:, None] > 0, total / np.maximum(number, 1)[:, None], np.nan)


def _read_out(curves: np.ndarray, responding: np.ndarray) -> np.ndarray:
    """A time course per run, each through the main pattern of the other runs, signed to rise where it should."""
    if len(curves) == 1:
        return curves.mean(axis=2)
    courses = []
    for k in range(len(curves)):
        other = np.delete(curves, k, axis=0).mean(axis=0)
        course, _, pattern = np.linalg.svd(other - other.mean(axis=0), full_matrices=False)
        towards = np.sign(course[responding, 0].mean() - course[~responding, 0].mean()) or 1.0
        courses.append(curves[k] @ (towards * pattern[0]) / np.sqrt(curves.shape[2]))
    return np.stack(courses)


@lru_cache(maxsize=32)
def canonical_rise(duration: float) -> float:
    """When Glover's response to a box of this duration (s) reaches half its height, in s after the onset."""
    from nilearn.glm.first_level import compute_regressor

    step = 0.1
    times = np.arange(0, duration + 30, step)
    box = np.array([[0.0], [max(duration, step)], [1.0]])
    course = compute_regressor(box, "glover", times, oversampling=1)[0][:, 0]
    return float(times[int(np.argmax(course >= course.max() / 2))])
