"""The trainings behind `fusion reproduce cmta`: shipped configs in run folders that are kept and go on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from tasks.experiment.config import build
from tasks.experiment.folder import RunError
from tasks.experiment.inventory import is_whole
from tasks.reproduce.workers import HERE, Workers
from tasks.survival.ceiling import ceiling
from tasks.survival.experiment import SurvivalExperiment
from tasks.survival.report_tables import CEILING
from tasks.survival.results import read
from tasks.survival.train import Survival

EXACT, PUBLISHED = "CMTA exact", "CMTA published"
PERFECT = "slides read perfectly"
SLIDES, LINEAR = "slides alone (ABMIL)", "ridge genes + age"
TOGETHER, APART = "late fusion, trained together", "late fusion, trained apart"


class Place(NamedTuple):
    """Where data come from and runs go to.

    Attributes:
        data: the imported data set tcga
        runs: folder of run folders
        workers: who trains
        folds: which of the published ones; None = all
    """

    data: Path
    runs: Path = Path("runs")
    workers: Workers = HERE
    folds: Sequence[int] | None = None

    def cohort(self, study: str) -> dict[str, str]:
        """Arguments of a `TableCohort`."""
        return {
            "table": str(self.data / "mutsig" / f"tcga_{study}_all_clean.csv.zip"),
            "signatures": str(self.data / "signatures.csv"),
            "splits_folder": str(self.data / "splits" / "5foldcv" / f"tcga_{study}"),
        }


class Units(Survival):
    """Trains; what all runs say together is said by the reproduction, one run alone by `survival evaluate RUN`."""

    def finish(self, experiment: SurvivalExperiment, run: Path, folds: Sequence[int], seeds: Sequence[int]) -> None:
        for fold in folds:
            folder = run / CEILING / f"fold{fold}-seed{seeds[0]}"
            if not is_whole(folder):
                ceiling(experiment, fold, folder)


def semi_real(place: Place, study: str, information: float, published: bool) -> pd.DataFrame:
    """Predictions of every arm on one cohort whose simulated slides know the stated part of the outcome.

    Args:
        place: data, runs, folds
        study: of TCGA
        information: of the slides
        published: whether the authors' computation, which is slow, is run too

    Returns:
        arm, fold, seed, case_id, time, event, risk; two arms know what was simulated: the ceiling, and the slides' own
        hidden score; one is the mean of two others' risks, `apart`

    Raises:
        RunError: a unit failed
    """
    given = [f"cohort.cohort.{key}={value}" for key, value in place.cohort(study).items()]
    let = [f"let.study={study}", f"let.information={information}", *given]
    tables = [trained("survival/fusion_gain", let, place, EXACT)]
    if published:
        own = trained("survival/fusion_gain_published", let, place, PUBLISHED)
        tables.append(own[own["arm"] == PUBLISHED])
    first = tables[0]
    source = _experiment("survival/fusion_gain", let, place).cohort
    one = first[first["arm"] == EXACT]
    tables.append(one.assign(arm=PERFECT, risk=source.hidden.loc[one["case_id"]].to_numpy()))  # type: ignore[attr-defined]
    return with_apart(pd.concat(tables, ignore_index=True))


def with_apart(predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions with one more arm: the mean risk of slides alone and of genes and age alone, nothing trained jointly.

    Risks are in units of their standard deviation over the scored patients of a fold; outcomes are not looked at. The
    config's own late fusion averages logits under one loss: its gene network learns the training patients by heart,
    and the slides learn little beside it.
    """
    halves = predictions[predictions["arm"].isin((SLIDES, LINEAR))]
    units = halves.groupby(["arm", "fold"])["risk"]
    scaled = halves.assign(risk=(halves["risk"] - units.transform("mean")) / units.transform("std").clip(lower=1e-12))
    mean = scaled.groupby(["fold", "case_id"], as_index=False)["risk"].mean()
    of = predictions[predictions["arm"] == LINEAR].drop(columns="risk").assign(arm=APART)
    named = predictions.assign(arm=predictions["arm"].replace("late fusion", TOGETHER))
    return pd.concat([named, of.merge(mean, on=["fold", "case_id"])], ignore_index=True)


def real(place: Place, study: str, features: Path) -> pd.DataFrame:
    """Predictions of every arm on one cohort with the user's own features of its real slides.

    The authors' computation reads both modalities: it is left out where a patient has no slide in the folder.

    Args:
        place: data, runs, folds
        study: of TCGA
        features: folder of this cohort's feature files

    Raises:
        DataError: no file belongs to a patient
        RunError: a unit failed
    """
    given = [f"cohort.{key}={value}" for key, value in place.cohort(study).items()]
    let = [f"let.study={study}", f"let.features={features.resolve()}", *given]
    both = trained("survival/fusion_gain_slides", let, place, EXACT)
    cohort = _experiment("survival/fusion_gain_slides", let, place).cohort.load()
    if any(case not in cohort.bags for case in cohort.case_ids):
        return with_apart(both)
    own = trained("survival/fusion_gain_slides_published", let, place, PUBLISHED)
    return with_apart(pd.concat([both, own[own["arm"] == PUBLISHED]], ignore_index=True))


def trained(config: str, overrides: Sequence[str], place: Place, arm: str) -> pd.DataFrame:
    """Train what of a run is not trained yet, then read its predictions.

    Args:
        config: a shipped one
        overrides: KEY=VALUE
        place: data, runs, folds
        arm: what the model under test is called in the tables

    Raises:
        RunError: a unit failed
    """
    task = Units()
    given = [f"runs={place.runs}", *overrides]
    name = task.resolved_config([config], given)["name"]
    jobs, engine = place.workers
    with redirect_stdout(sys.stderr):
        task.train([config], given, folds=place.folds, jobs=jobs, engine=engine, resume=True)
    results = read(place.runs / task.name / name)
    if results.failures:
        first = results.failures[0]
        raise RunError(f"{results.path}: {first.unit} failed ({first.reason}); mend the cause and repeat the command")
    found = results.predictions
    return found.assign(arm=found["arm"].replace(name, arm))


def _experiment(config: str, overrides: Sequence[str], place: Place) -> Any:
    return build(SurvivalExperiment, Units().resolved_config([config], [f"runs={place.runs}", *overrides]))
