"""Predict new patients with a finished run: the mean over its folds and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data.cohort.cohort import Cohort
from tasks.experiment.config import build, overlay_values, resolve
from tasks.experiment.console import say
from tasks.experiment.folder import RunError, RunFolder, write_whole
from tasks.experiment.inventory import DONE, must_be_whole
from tasks.experiment.outputs import check_output
from tasks.experiment.signatures import named_class, options
from tasks.survival.experiment import SurvivalExperiment
from tasks.survival.trained import Trained

UNNEEDED = ("splits_folder=null", "schema.time=null", "schema.event=null", "schema.censorship=null")
"""What a table of new patients need not have; said to the cohorts that have such options."""


def experiment_of(run: Path, overrides: Sequence[str] = ()) -> SurvivalExperiment:
    """The experiment of a run folder, with other values in its config.

    Args:
        run: the run folder
        overrides: KEY=VALUE, as for `train`
    """
    config = overlay_values(RunFolder.open(run).config, overrides)
    config.pop("task", None)
    experiment: SurvivalExperiment = build(SurvivalExperiment, resolve(SurvivalExperiment, config))
    return experiment


def trained_units(run: Path, experiment: SurvivalExperiment) -> Iterator[Trained]:
    """The finished units of the model under test, fold by fold.

    Raises:
        RunError: there is none, or one of them lost a file
    """
    folders = sorted(path.parent for path in (run / experiment.name).glob(f"fold*-seed*/{DONE}"))
    if not folders:
        raise RunError(f"{run}: no finished unit of '{experiment.name}' to predict with; continue with --resume")
    for folder in folders:
        must_be_whole(folder)
    return (Trained.load(folder, experiment, experiment.name) for folder in folders)


def _unneeded(run: Path) -> list[str]:
    cohort = named_class(RunFolder.open(run).config["cohort"]["class_path"], (), "cohort")
    known = options(cohort)
    return [text for text in UNNEEDED if text.replace("=", ".").split(".")[0] in known]


def predict(run: Path, overrides: Sequence[str], output: Path) -> tuple[Path, Path]:
    """Write risks and survival curves of new patients.

    Args:
        run: the run folder
        overrides: KEY=VALUE of the run's `cohort`, for example `table=new.csv`; its folds and outcomes do not matter
        output: CSV of case_id and risk; curves go to the same name with `-curves`

    Returns:
        the two files

    Raises:
        RunError: no new patients are given, the output cannot be written, there is no run at this path, or none of its
            units is finished
        ConfigError: the run's cohort has no such option
        DataError: the patients cannot be read, or lack what the models learned from
    """
    if not overrides:
        raise RunError(f"{run}: say where the new patients are, for example table=new.csv slides=new_features")
    check_output(output)
    beside = output.with_name(f"{output.stem}-curves{output.suffix}")
    check_output(beside)
    experiment = experiment_of(run, [f"cohort.{text}" for text in (*_unneeded(run), *overrides)])
    cohort: Cohort = experiment.cohort.load()
    say(str(cohort.account))
    units = list(trained_units(run, experiment))
    known = set(cohort.case_ids) & {case for unit in units for case in unit.training["case_id"]}
    if known:
        count = f"{len(known)} of {len(cohort.case_ids)} patients"
        say(f"{count} trained these models ({min(known)} first); a score on them means nothing")
    last = max(edge for unit in units for edge in unit.fitted.edges if np.isfinite(edge))
    months = np.linspace(0.0, np.ceil(2 * last), 41)
    predictions = [unit.predict(cohort, months) for unit in units]
    risk = pd.concat([risk for risk, _ in predictions], axis=1)
    table = pd.DataFrame({"risk": risk.mean(axis=1), "risk_sd": risk.std(axis=1, ddof=0), "models": len(units)})
    curves = sum(curve for _, curve in predictions) / len(units)
    curves.columns = [f"{month:g}" for month in months]
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, table.rename_axis("case_id").to_csv())
    write_whole(beside, curves.rename_axis("case_id").to_csv())
    return output, beside
