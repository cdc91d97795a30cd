"""Samples of a run: single volumes, block means, or a beta per trial; and repeats averaged within a side of a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from data.brain.brain import Brain, Brains
from data.brain.clean import Cleaned, Cleaning
from data.brain.split import Split
from data.errors import DataError

Unit = Literal["volumes", "blocks", "trials"]
Hrf = Literal["glover", "spm"]


@dataclass(frozen=True)
class Run:
    """One run as masked from its files, with what was shown in it.

    Attributes:
        subject, name: whose, and which
        path: of the image, for messages
        series: scanner units
        tr: s between volumes
        start: s at which the first volume counts as taken (half a TR after slice timing correction to the middle)
        events: onset, duration, label, stimulus
        confounds: what to project out; None = nothing
    """

    subject: str
    name: str
    path: Path
    series: Float[np.ndarray, "t x"]
    tr: float
    start: float
    events: pd.DataFrame
    confounds: Float[np.ndarray, "t c"] | None = None

    @property
    def times(self) -> Float[np.ndarray, " t"]:
        """When each volume was taken, s from the start of the run."""
        return self.start + self.tr * np.arange(len(self.series))


@dataclass(frozen=True)
class Samples:
    """What a unit makes of one run: `x` with a row per row of `events`, and the voxels that can be used."""

    x: Float[np.ndarray, "n x"]
    events: pd.DataFrame
    usable: Bool[np.ndarray, " x"]


def samples_of(run: Run, unit: Unit, lag: float, cleaning: Cleaning, hrf: Hrf, skipped: Counter[str]) -> Samples:
    """The samples of a run.

    Args:
        run: one run
        unit: `volumes`: each volume within an event; `blocks`: their mean per event; `trials`: a beta per event from
            a least-squares-separate GLM
        lag: s added to every onset; of `volumes` and `blocks` the delay of the response, of `trials` a shift of the
            onsets before `hrf` delays them
        cleaning: of the run
        hrf: nilearn's name of the response function, for `trials`
        skipped: why -> how many events; added to

    Raises:
        DataError: no event gives a sample
    """
    cleaned = cleaning.apply(run.series, run.tr, run.confounds)
    if unit == "trials":
        samples = _betas(run, cleaned, lag, cleaning, hrf, skipped)
    else:
        inside = windows(run, lag)
        samples = (_volumes if unit == "volumes" else _blocks)(run, cleaned, inside, lag, skipped)
    if not len(samples.events):
        raise DataError(f"{run.path}: no event gives a sample at lag {lag:g} s ({_why(skipped)}); check lag and events")
    return samples


def windows(run: Run, lag: float) -> Bool[np.ndarray, "n t"]:
    """Volumes taken from onset + lag until before onset + lag + duration, per event."""
    begin = run.events["onset"].to_numpy(dtype=float)[:, None] + lag
    end = begin + run.events["duration"].to_numpy(dtype=float)[:, None]
    # Onsets are often written with few digits; a millisecond is far below any TR.
    return (run.times >= begin - 1e-3) & (run.times < end - 1e-3)


def _volumes(run: Run, cleaned: Cleaned, inside: np.ndarray, lag: float, skipped: Counter[str]) -> Samples:
    if (inside.sum(axis=0) > 1).any():
        raise DataError(
            f"{run.path}: a volume lies in several events at lag {lag:g} s; events that overlap need unit: trials"
        )
    _count_empty(inside, run, lag, skipped)
    event, frame = np.nonzero(inside)
    order = np.argsort(frame, kind="stable")
    event, frame = event[order], frame[order]
    events = run.events.iloc[event].reset_index(drop=True).assign(onset=run.times[frame] - lag)
    return Samples(cleaned.series[frame], events, cleaned.usable)


def _blocks(run: Run, cleaned: Cleaned, inside: np.ndarray, lag: float, skipped: Counter[str]) -> Samples:
    full = _count_empty(inside, run, lag, skipped)
    events = run.events[full].reset_index(drop=True)
    inside = inside[full]
    past = (events["onset"] + events["duration"] + lag > run.start + run.tr * len(run.series) + 1e-3).sum()
    skipped["events cut short by the end of the scan, kept"] += int(past)
    shared = inside[:, inside.sum(axis=0) > 1].any(axis=1)
    skipped["events that share a volume with another (unit: trials tells them apart), kept"] += int(shared.sum())
    weight = (inside / np.maximum(inside.sum(axis=1, keepdims=True), 1)).astype(np.float32)
    return Samples(weight @ cleaned.series, events, cleaned.usable)


def _count_empty(inside: np.ndarray, run: Run, lag: float, skipped: Counter[str]) -> np.ndarray:
    """Events with a volume; the others are counted by what ails them."""
    full = np.asarray(inside.any(axis=1))
    begin = run.events["onset"].to_numpy(dtype=float) + lag
    past = begin > run.times[-1] + 1e-3
    before = begin + run.events["duration"].to_numpy(dtype=float) <= run.times[0] + 1e-3
    skipped["events whose response ends before the first volume, skipped"] += int((~full & before).sum())
    skipped["events whose response lies after the last volume, skipped"] += int((~full & past).sum())
    skipped["events too short to hold a volume (use unit: trials), skipped"] += int((~full & ~past & ~before).sum())
    return full


def _betas(run: Run, cleaned: Cleaned, lag: float, cleaning: Cleaning, hrf: Hrf, skipped: Counter[str]) -> Samples:
    """A beta per event: its own regressor against one per class of the other events, drift and confounds.

    Least squares separate (Mumford et al. 2012, NeuroImage 59). nilearn makes the regressors; as each trial's
    estimate is a row of a pseudo-inverse, all voxels share one matrix product.
    """
    events = run.events.assign(onset=run.events["onset"] + lag)
    alone, nuisance = design(run, events, cleaning, hrf)
    peak = np.abs(alone).max(axis=0)
    seen = peak > 0.1 * np.median(peak[peak > 0]) if (peak > 0).any() else peak > 0
    skipped["events whose response lies after the last volume, skipped"] += int((~seen).sum())
    events, alone = run.events[seen].reset_index(drop=True), alone[:, seen]
    weights = separate_weights(alone, events["label"].tolist(), nuisance)
    betas = weights @ np.where(cleaned.usable, np.nan_to_num(run.series), 0).astype(float)
    if cleaning.standardise == "run":
        betas = betas / np.where(cleaned.usable, cleaned.scale, 1)
    return Samples(betas.astype(np.float32), events, cleaned.usable)


def design(
    run: Run, events: pd.DataFrame, cleaning: Cleaning, hrf: Hrf
) -> tuple[Float[np.ndarray, "t n"], Float[np.ndarray, "t c"]]:
    """A regressor per event, and drift, confounds and constant, as nilearn makes them."""
    from nilearn.glm.first_level import compute_regressor, make_first_level_design_matrix

    onset, duration = (events[column].to_numpy(dtype=float) for column in ("onset", "duration"))
    earliest = min(-24.0, float(onset.min()))
    alone = [
        compute_regressor(np.array([[begin], [length], [1.0]]), hrf, run.times, min_onset=earliest)[0][:, 0]
        for begin, length in zip(onset, duration, strict=True)
    ]
    drift = "cosine" if cleaning.high_pass is not None else "polynomial" if cleaning.detrend else None
    nuisance = make_first_level_design_matrix(
        run.times, drift_model=drift, drift_order=1, high_pass=cleaning.high_pass or 0.01, add_regs=run.confounds
    )
    return np.column_stack(alone), nuisance.to_numpy()


def separate_weights(
    alone: Float[np.ndarray, "t n"], labels: Sequence[str], nuisance: Float[np.ndarray, "t c"]
) -> Float[np.ndarray, "n t"]:
    """Row i of `weights @ series` = the least-squares-separate beta of event i.

    Args:
        alone: a regressor per event
        labels: its class
        nuisance: regressors of every model, the constant among them
    """
    names = list(dict.fromkeys(labels))
    member = np.array([[label == name for name in names] for label in labels], dtype=float)
    of_class = alone @ member
    weights = np.empty((alone.shape[1], len(alone)))
    for i in range(alone.shape[1]):
        others = of_class - alone[:, i : i + 1] * member[i]
        others = others[:, np.abs(others).max(axis=0) > 1e-9]
        weights[i] = np.linalg.pinv(np.column_stack([alone[:, i], others, nuisance]))[0]
    return weights


def _why(skipped: Counter[str]) -> str:
    return "; ".join(f"{number} {what}" for what, number in skipped.items() if number) or "no events"


def average_repeats(brains: Brains, split: Split) -> tuple[Brains, Split]:
    """Repeats of a stimulus averaged, never across the two sides of a split.

    On each side the samples of one subject, label and stimulus become one, which keeps the position of the first. Its
    run is the names of its runs joined by `+`; the column `repeats` says how many there were.

    Returns:
        the averaged data, and the split of its samples
    """
    train, test = (repeats_averaged(brains.only(side)).subjects for side in (split.train, split.test))
    joined: dict[str, Brain] = {}
    for subject in brains.subjects:
        parts = [side[subject] for side in (train, test) if subject in side]
        if parts:
            table = pd.concat([part.table for part in parts])
            joined[subject] = replace(parts[0], x=np.concatenate([part.x for part in parts]), table=table)
    train_ids, test_ids = ([i for brain in side.values() for i in brain.table.index] for side in (train, test))
    return replace(brains, subjects=joined), Split(split.name, train_ids, test_ids, split.cuts_runs)


def repeats_averaged(brains: Brains) -> Brains:
    """All repeats of a stimulus in a subject as one sample, as `average_repeats` makes them on each side."""
    return replace(brains, subjects={subject: _averaged(brain) for subject, brain in brains.subjects.items()})


def _averaged(brain: Brain) -> Brain:
    groups = list(brain.table.groupby(["label", "stimulus"], sort=False).indices.values())
    table = brain.table.iloc[[rows[0] for rows in groups]].copy()
    table["run"] = ["+".join(dict.fromkeys(brain.table["run"].iloc[rows])) for rows in groups]
    table["repeats"] = [len(rows) for rows in groups]
    table.loc[table["repeats"] > 1, "onset"] = np.nan
    table.index = pd.Index(
        [f"{brain.subject}/{run}/{at}" for run, at in zip(table["run"], table["position"], strict=True)], name="sample"
    )
    return replace(brain, x=np.stack([brain.x[rows].mean(axis=0) for rows in groups]), table=table)
