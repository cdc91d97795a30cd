"""The best reachable ranking of a simulated cohort, scored like any arm: what its own truth says of the patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data.cohort.splits import Split
from data.simulate.semireal_cohort import SemiRealCohort
from tasks.experiment.folder import write_whole
from tasks.experiment.inventory import write_done
from tasks.survival.baselines import UNPENALISED, LinearBaseline, out_of_fold_risk
from tasks.survival.experiment import SurvivalExperiment
from tasks.survival.follow_up import FollowUp
from tasks.survival.ridge_cox import RidgeCox


def ceiling(experiment: SurvivalExperiment, fold: int, folder: Path) -> None:
    """Write the risks of a fold's scored patients as an arm of its own; nothing for real cohorts.

    Simulated cohorts: the true risk. Semi-real ones, where only the slides are known: see `slides_read_perfectly`.
    """
    split = experiment.cohort.splits()[fold]
    truth = getattr(experiment.cohort, "truth", None)
    if isinstance(experiment.cohort, SemiRealCohort):
        risk = slides_read_perfectly(experiment, experiment.cohort, split)
    elif truth is not None:
        risk = truth.loc[split.test, "risk"]
    else:
        return
    outcome = experiment.cohort.load().patients.loc[split.test, ["time", "event"]]
    folder.mkdir(parents=True, exist_ok=True)
    table = outcome.assign(risk=risk).reset_index(names="case_id")
    write_whole(folder / "predictions.csv", table.to_csv(index=False))
    write_done(folder, {"from_the_truth": True})


def slides_read_perfectly(experiment: SurvivalExperiment, source: SemiRealCohort, split: Split) -> pd.Series:
    """Risk of the scored patients for one who knows what the simulated slides hold, and genes as a ridge does.

    A Cox regression on two columns, fitted on the training patients: the hidden score of the slides, and the ridge's
    out-of-fold risk from genes and covariates. Nobody knows what real genes hold, so there it is no bound.

    Args:
        experiment: whose preparation is used
        source: its cohort
        split: who trains and who is scored
    """
    cohort = source.load()
    prepared = experiment.prepare.fit(cohort, split.train)
    covariates, genes = experiment.prepare.covariates, cohort.genes is not None
    seen = cohort.patients.loc[split.train]
    columns = {"slides": source.hidden}
    if covariates or genes:
        train, test = out_of_fold_risk(
            lambda: LinearBaseline("known", covariates, genes),
            prepared.matrix(split.train),
            seen["time"],
            seen["event"],
            prepared.matrix(split.test),
        )
        columns["known"] = pd.concat([train, test])
    both = pd.DataFrame(columns)
    cox = RidgeCox(UNPENALISED).fit(_matrix(both, split.train), FollowUp.of(seen["time"], seen["event"]))
    return pd.Series(cox.risk(_matrix(both, split.test)), index=split.test)


def _matrix(columns: pd.DataFrame, ids: list[str]) -> np.ndarray:
    return columns.loc[ids].to_numpy(dtype=np.float64)
