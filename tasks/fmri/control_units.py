"""What belongs to a run but to no arm: evoked response, other lags, refitted null, leaks, geometry, features.

Each is a unit of work of its own, `RUN/controls/NAME/NAME.csv`, so it can fail, be resumed and run in parallel.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
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
from tasks.fmri.feature_units import BRAIN_SCORE, ENCODING, MODEL_RSA, compared, encoded, scored
from tasks.fmri.permutation import refitted_null, ridge_null
from tasks.fmri.rsa import between_people, geometries, noise_ceiling
from tasks.fmri.unit import experiment_in_process

EVOKED, LAG_SWEEP, LEAKAGE, REFITTED, GEOMETRY = "evoked", "lag-sweep", "leakage", "refitted", "geometry"
TOGETHER = 10
"""Draws of a null in one unit, where a draw is a fit."""
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
    whole_runs = any(len(brain.runs) > 1 for brain in brains.subjects.values())
    conditions, featured = len(brains.candidates) >= FEWEST_CONDITIONS, bool(experiment.features)
    arm = experiment.control_arm
    ridge, fitted = isinstance(experiment.decoders[arm], Ridge), arm not in experiment.left_out()
    permuted = fitted and experiment.repeats == "keep"
    wanted = {
        EVOKED: (evoked_response, asked.evoked and recorded),
        LAG_SWEEP: (swept, asked.lags is not None),
        LEAKAGE: (leaked, asked.leakage and whole_runs and not experiment.split.may_cut_runs),
        REFITTED: (refitted, asked.permutations > 0 and ridge and permuted),
        GEOMETRY: (geometry, asked.geometry and conditions),
        ENCODING: (encoded, featured and asked.encoding),
        MODEL_RSA: (compared, featured and asked.geometry and conditions),
        BRAIN_SCORE: (scored, featured and asked.brain_score),
    }
    found = [Unit(run / CONTROLS / name, of, {"config": config}) for name, (of, run_it) in wanted.items() if run_it]
    for first in range(0, asked.refits if permuted and not ridge else 0, TOGETHER):
        chunk = {"first": first, "last": min(first + TOGETHER, asked.refits)}
        found.append(Unit(run / CONTROLS / f"{REFITTED}-{first}", refitted_part, {"config": config, **chunk}))
    return found


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
        some = [i for brain in brains.subjects.values() if len(brain.runs) > 1 for i in brain.table.index]
        brains = replace(brains.only(some), account=[])  # nobody of one run, whom whole runs cannot score
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


def refitted_part(folder: Path, config: dict[str, Any], first: int, last: int) -> None:
    """The same for a decoder without a closed form: some draws of its null, the same whatever part they come in."""
    experiment = experiment_in_process(json.dumps(config))
    arm, brains, draws = experiment.control_arm, experiment.brains.load(), experiment.controls.permutations
    decoder, splits = copy.deepcopy(experiment.decoders[arm]), experiment.split.splits(brains)
    null = refitted_null(decoder, brains, splits, draws, draws=slice(first, last))
    _write(folder, pd.DataFrame({"arm": arm, "observed": null.observed, "drawn": null.drawn}))


def geometry(folder: Path, config: dict[str, Any]) -> None:
    """Representational geometry: noise ceilings and mean agreement between the runs of a subject, and subjects."""
    brains = experiment_in_process(json.dumps(config)).brains.load()
    rows = []
    for between, rdms in geometries(brains).items():
        ceiling = noise_ceiling(rdms)
        alike = between_people(rdms)[np.triu_indices(len(rdms), 1)]
        rows.append((between, ceiling.low, ceiling.high, alike.mean(), alike.min(), alike.max(), *rdms.shape[:2]))
    columns = ["between", "low", "high", "alike", "least_alike", "most_alike", "rdms", "conditions"]
    _write(folder, pd.DataFrame(rows, columns=columns))


def _write(folder: Path, table: pd.DataFrame) -> None:
    write_whole(folder / f"{folder.name}.csv", table.to_csv(index=False))
