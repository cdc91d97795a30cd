"""A trial never reads a case that the fold holds out: survival and retrieval, and a whole search on patients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from data.cohort.cohort import Cohort
from data.pairs.items import Pairs
from data.simulate.cohort import SimulatedCohort
from tasks.experiment.config import resolve
from tasks.experiment.signatures import ConfigError
from tasks.experiment.tune import tune
from tasks.retrieval import trial as retrieval_trial
from tasks.retrieval.experiment import RetrievalExperiment
from tasks.survival import trial as survival_trial
from tasks.survival.experiment import SurvivalExperiment
from tests.tasks.retrieval import toy

CONFIG: dict[str, Any] = {
    "name": "small",
    "cohort": {
        "class_path": "SimulatedCohort",
        "init_args": {"patients": 60, "patches": 4, "width": 4, "folds": 3, "missing_slides": 0.2},
    },
    "model": "SNN",
    "loss": "CoxPartialLikelihood",
    "optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.001}},
    "prepare": {"class_path": "Preparation", "init_args": {"bins": 4, "covariates": ["age"]}},
    "baselines": {"chance": "Chance"},
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
}


def parts(folder: Path, config: dict[str, Any]) -> list[tuple[float, pd.DataFrame]]:
    """Score and scored patients of every part of a trial of fold 0."""
    found = []
    for part in range(survival_trial.PARTS):
        place = folder / str(part)
        place.mkdir(parents=True)
        facts = survival_trial.run(place, config, 0, part, 1)
        found.append((facts["score"], pd.read_csv(place / "predictions.csv")))
        assert not list(place.glob("*.pt")), "a trial is judged, never used"
    return found


def test_other_outcomes_and_genes_of_held_out_patients_change_no_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = resolve(SurvivalExperiment, CONFIG)
    before = parts(tmp_path / "before", config)
    source = SimulatedCohort(**CONFIG["cohort"]["init_args"])
    cohort, splits = source.load(), source.splits()
    held_out = splits[0].test
    assert sorted(case for _, table in before for case in table["case_id"]) == sorted(splits[0].train)

    def turned(_: SimulatedCohort) -> Cohort:
        patients, genes = cohort.patients.copy(), cohort.genes.copy()
        patients.loc[held_out, "time"] = 1000 - patients.loc[held_out, "time"]
        patients.loc[held_out, "event"] = ~patients.loc[held_out, "event"]
        genes.loc[genes.index.isin(held_out)] = np.float32(1e6)
        return replace(cohort, patients=patients, genes=genes)

    monkeypatch.setattr(SimulatedCohort, "load", turned)
    monkeypatch.setattr(SimulatedCohort, "splits", lambda _: splits)
    after = parts(tmp_path / "after", {**config, "runs": "elsewhere"})
    for (score, table), (other, others) in zip(before, after, strict=True):
        assert score == other
        pd.testing.assert_frame_equal(table, others, check_exact=True)


def test_a_trial_of_retrieval_encodes_no_test_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = {
        k: v for k, v in toy.config(tmp_path, trainer={"max_epochs": 1, "accelerator": "cpu"}).items() if k != "task"
    }
    pairs: Pairs = toy.ToyPairs(copies=4).load()
    tests = set(pairs.rows("test")[0])
    seen: set[int] = set()

    def watched(rows: Any) -> Any:
        seen.update(rows)
        return pairs.left.load(rows)

    monkeypatch.setattr(toy.ToyPairs, "load", lambda _: replace(pairs, left=replace(pairs.left, loader=watched)))
    torch.manual_seed(0)
    facts = retrieval_trial.run(tmp_path / "a" / "b", resolve(RetrievalExperiment, config), 0, 0, 1)
    assert 0 < facts["score"] <= 1
    assert seen
    assert not seen & tests


def test_a_search_on_patients_ends_with_a_report(tmp_path: Path):
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump({"task": "survival", **CONFIG, "runs": str(tmp_path / "runs")})
    )
    (tmp_path / "space.yaml").write_text(
        "optimizer.lr: {low: 0.001, high: 0.1, log: true}\nloss: [CoxPartialLikelihood, DiscreteHazard]\n"
    )
    assert tune([str(tmp_path / "config.yaml")], tmp_path / "space.yaml", trials=2) == 0
    run = tmp_path / "runs" / "survival" / "small_tuned"
    assert set(pd.read_csv(run / "trials.csv")["state"]) == {"complete"}
    summary = pd.read_csv(run / "summary.csv")
    assert list(dict.fromkeys(summary["arm"])) == ["small_tuned", "as given", "chance", "ceiling"]
    assert "not complete" not in (run / "report.html").read_text()


def test_brain_decoders_choose_inside_the_training_runs(tmp_path: Path):
    (tmp_path / "space.yaml").write_text("name: [a, b]\n")
    with pytest.raises(ConfigError, match=r"tune: fmri cannot be tuned: .*give model\.class_path=Nested"):
        tune(["fmri/simulated"], tmp_path / "space.yaml")
