"""The best reachable ranking: a simulation's true risk; of a semi-real cohort, what its slides hold, with its genes."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from data.simulate.truth import c_index
from tasks.experiment.config import build
from tasks.survival.ceiling import ceiling, slides_read_perfectly
from tasks.survival.experiment import SurvivalExperiment
from tasks.survival.train import TASK

COHORT = "{class_path: SimulatedCohort, init_args: {patients: 160, patches: 6, width: 4, seed: 3, folds: 2}}"


def experiment(cohort: str) -> SurvivalExperiment:
    config = TASK.resolved_config(["survival/demo"], ["rivals=null", "baselines=null", f"cohort={cohort}"])
    made = build(SurvivalExperiment, config)
    assert isinstance(made, SurvivalExperiment)
    return made


def semi_real(information: float) -> SurvivalExperiment:
    given = f"information: {information}, patches: 4, width: 4, cohort: {COHORT}"
    return experiment(f"{{class_path: SemiRealCohort, init_args: {{{given}}}}}")


def test_a_simulation_is_scored_by_its_true_risk(tmp_path: Path):
    own = experiment(COHORT)
    ceiling(own, 0, tmp_path)
    written = pd.read_csv(tmp_path / "predictions.csv").set_index("case_id")
    truth = own.cohort.truth.loc[written.index, "risk"]  # type: ignore[attr-defined]
    pd.testing.assert_series_equal(written["risk"], truth, check_names=False)
    assert json.loads((tmp_path / "done.json").read_text())


def test_knowing_the_slides_and_the_genes_is_above_knowing_either():
    reached = []
    for information in (0.0, 0.4, 0.8):
        own = semi_real(information)
        cohort, split = own.cohort.load(), own.cohort.splits()[0]
        both = slides_read_perfectly(own, own.cohort, split)  # type: ignore[arg-type]
        assert list(both.index) == split.test
        reached.append(c_index(both, cohort.patients))
        alone = own.cohort.slides_ceiling(split.test)  # type: ignore[attr-defined]
        assert reached[-1] > alone - 0.02
    assert reached == sorted(reached)
    assert reached[0] > 0.6, "the genes alone"


def test_the_scored_patients_outcomes_say_nothing_to_it():
    own = semi_real(0.8)
    split = own.cohort.splits()[0]
    before = slides_read_perfectly(own, own.cohort, split)  # type: ignore[arg-type]
    patients = own.cohort.load().patients
    patients.loc[split.test, "time"] = patients.loc[split.test, "time"].to_numpy()[::-1]
    after = slides_read_perfectly(own, own.cohort, split)  # type: ignore[arg-type]
    assert after.to_numpy() == pytest.approx(before.to_numpy())
