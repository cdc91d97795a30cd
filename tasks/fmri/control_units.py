"""Controls that belong to a run but to no arm: evoked response, other lags, refitted null, geometry, leaks.

Each is a unit of work of its own, `RUN/controls/NAME/NAME.csv`, so it can fail, be resumed and run in parallel.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.brain.recordings import RecordedBrains
from tasks.experiment.folder import write_whole
from tasks.experiment.signatures import ConfigError
from tasks.experiment.state import CONTROLS
from tasks.experiment.units import Unit
from tasks.fmri.baselines import Ridge
from tasks.fmri.controls import lag_sweep, leakage
from tasks.fmri.experiment import FmriExperiment, experiment_of
from tasks.fmri.permutation import ridge_null
from tasks.fmri.rsa import noise_ceiling, rdms_of
from tasks.fmri.unit import experiment_in_process

EVOKED, LAG_SWEEP, LEAKAGE, REFITTED, GEOMETRY = "evoked", "lag-sweep", "leakage", "refitted", "geometry"
MOST_FOLDS = 12
"""Random folds of the leakage comparison; fewer where a class has fewer samples."""

FEWEST_CONDITIONS = 4
"""A geometry of fewer conditions has three dissimilarities at most, and nothing to correlate."""


def units(experiment: FmriExperiment, config: dict[str, Any], run: Path) -> list[Unit]:
    """The controls a config asks for and the data allow.

    Raises:
        ConfigError: a lag sweep of data that have no lag
    """
    asked, recorded = experiment.controls, isinstance(experiment.brains, RecordedBrains)
    if asked.lags is not None and not recorded:
        raise ConfigError(f"controls.lags: {type(experiment.brains).__name__} has no lag to sweep; set it to null")
    brains = experiment.brains.load()
    whole_runs = all(len(brain.runs) > 1 for brain in brains.subjects.values())
    arm = experiment.control_arm
    ridge = isinstance(experiment.decoders[arm], Ridge) and arm not in experiment.left_out()
    wanted = {
        EVOKED: (evoked_response, asked.evoked and recorded),
        LAG_SWEEP: (swept, asked.lags is not None),
        LEAKAGE: (leaked, asked.leakage and whole_runs and not experiment.split.may_cut_runs),
        REFITTED: (refitted, asked.permutations > 0 and ridge and experiment.repeats == "keep"),
        GEOMETRY: (geometry, asked.geometry and len(brains.candidates) >= FEWEST_CONDITIONS),
    }
    return [Unit(run / CONTROLS / name, of, {"config": config}) for name, (of, run_it) in wanted.items() if run_it]


def evoked_response(folder: Path, config: dict[str, Any]) -> None:
    """The class-blind response of every subject, in units of its own peak, and what it says about the stated lag."""
    source = experiment_in_process(json.dumps(config)).brains
    assert isinstance(source, RecordedBrains)
    parts = [
        of.table().assign(subject=of.subject, lag=of.lag, duration=of.duration, events=of.events, sentence=of.sentence)
        for of in source.evoked()
    ]
    _write(folder, pd.concat(parts))


def swept(folder: Path, config: dict[str, Any]) -> None:
    """Accuracy of the control arm with whole runs held out, the data read anew at every lag."""
    experiment = experiment_in_process(json.dumps(config))
    source, arm = experiment.brains, experiment.control_arm
    assert isinstance(source, RecordedBrains)
    table = lag_sweep(lambda lag: source.at_lag(lag).load(), experiment.controls.lags or (), experiment.decoders[arm])
    _write(folder, table.assign(arm=arm))


def leaked(folder: Path, config: dict[str, Any]) -> None:
    """The control arm with whole runs held out and with random folds that cut runs, at the run's unit and volumes."""
    experiment = experiment_in_process(json.dumps(config))
    arm, source = experiment.control_arm, experiment.brains
    kinds = {"samples": source}
    if isinstance(source, RecordedBrains):
        finer = copy.deepcopy(config)
        finer["brains"]["init_args"]["unit"] = "volumes"
        kinds = {source.unit: source, "volumes": experiment_of(finer).brains}
    decoder = experiment.decoders[arm]
    parts = []
    for unit, of in kinds.items():
        brains = of.load()
        rarest = int(brains.table.groupby(["subject", "label"]).size().min())
        table = leakage(brains, copy.deepcopy(decoder), folds=max(2, min(MOST_FOLDS, rarest)))
        parts.append(table.assign(unit=unit, arm=arm))
    _write(folder, pd.concat(parts))


def refitted(folder: Path, config: dict[str, Any]) -> None:
    """What ridge reaches when it is fitted anew on labels permuted within runs, one row per permutation."""
    experiment = experiment_in_process(json.dumps(config))
    ridge = experiment.decoders[experiment.control_arm]
    assert isinstance(ridge, Ridge)
    brains = experiment.brains.load()
    null = ridge_null(brains, experiment.split.splits(brains), ridge.alpha, experiment.controls.permutations)
    _write(folder, pd.DataFrame({"arm": experiment.control_arm, "observed": null.observed, "drawn": null.drawn}))


def geometry(folder: Path, config: dict[str, Any]) -> None:
    """Noise ceilings of the representational geometry: between the runs of a subject, and between subjects."""
    brains = experiment_in_process(json.dumps(config)).brains.load()
    rows = []
    for subject, brain in brains.subjects.items():
        per_run = [brains.only(list(of.index)) for _, of in brain.table.groupby("run", sort=False)]
        whole = [part for part in per_run if set(part.table[brains.truth]) == set(brains.candidates)]
        if len(whole) > 1:
            rdms = np.stack([rdms_of(part)[subject] for part in whole])
            rows.append(_ceiling_row(f"runs of subject {subject}", rdms))
    seen = {s for s, b in brains.subjects.items() if set(b.table[brains.truth]) == set(brains.candidates)}
    if len(seen) > 1:
        every = rdms_of(brains.only(list(brains.table.index[brains.table["subject"].isin(seen)])))
        rows.append(_ceiling_row("subjects", np.stack(list(every.values()))))
    _write(folder, pd.DataFrame(rows, columns=["between", "low", "high", "rdms", "conditions"]))


def _ceiling_row(between: str, rdms: np.ndarray) -> dict[str, Any]:
    ceiling = noise_ceiling(rdms)
    return {
        "between": between,
        "low": ceiling.low,
        "high": ceiling.high,
        "rdms": len(rdms),
        "conditions": rdms.shape[1],
    }


def _write(folder: Path, table: pd.DataFrame) -> None:
    write_whole(folder / f"{folder.name}.csv", table.to_csv(index=False))
