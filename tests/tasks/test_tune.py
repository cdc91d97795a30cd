"""fusion tune: nothing depends on jobs or interruptions, each fold searches for itself, the result is used as it is."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tasks.cli import main
from tasks.experiment import config as config_module
from tasks.experiment import folder as folder_module
from tasks.experiment import task as task_module
from tasks.experiment import tune as tune_module
from tasks.experiment.config import overlay
from tasks.experiment.folder import RunError
from tasks.experiment.signatures import ConfigError
from tasks.experiment.space import Choices, Range, read_space
from tasks.experiment.tune import tune
from tests.tasks.hill import Hill, Untuned, height, unlucky_probe

SPACE = {"place": {"low": 1e-3, "high": 1.0, "log": True}, "steps": {"low": 1, "high": 8}}
FOLDS = [0, 2]


@pytest.fixture(autouse=True, scope="module")
def hills():
    """The hill is a task, and a run does not ask torch which devices there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(config_module.TASKS, "hill", "tests.tasks.hill.HillExperiment")
        patch.setattr(tune_module, "task_named", lambda name: Hill())
        patch.setattr(folder_module, "environment", lambda command: {"command": command})
        yield


def study(folder: Path, space: object = None) -> tuple[str, Path]:
    folder.mkdir(exist_ok=True)
    config = {"task": "hill", "name": "top", "runs": str(folder / "runs")}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE if space is None else space))
    return str(folder / "config.yaml"), folder / "space.yaml"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a finished search: fourteen trials are three rounds and a half."""
    folder = tmp_path_factory.mktemp("tuned")
    config, space = study(folder)
    assert tune([config], space, trials=14, folds=FOLDS) == 0
    return folder / "runs" / "hill" / "top_tuned"


def test_a_search_leaves_its_trials_its_best_and_one_held_out_score(tuned: Path):
    trials = pd.read_csv(tuned / "trials.csv", float_precision="round_trip")
    assert list(trials.columns) == ["fold", "trial", "state", "height", "place", "steps"]
    assert trials.groupby("fold").size().to_dict() == dict.fromkeys(FOLDS, 14)
    first = trials[trials["trial"] == 0]
    assert (first[["place", "steps"]] == (0.5, 2)).all(axis=None), "the config as given is the first trial"
    held_out = json.loads((tuned / "report.json").read_text())
    assert len(held_out) == 3 * len(FOLDS)
    for fold in FOLDS:
        of_fold = trials[trials["fold"] == fold].set_index("trial")
        best = of_fold.loc[of_fold["height"].idxmax()]
        chosen = overlay([str(tuned.parents[2] / "config.yaml"), str(tuned / f"best-fold{fold}.yaml")])
        assert (chosen["place"], chosen["steps"]) == (best["place"], best["steps"])
        assert held_out[f"top_tuned/fold{fold}-seed1"] == height({**chosen, "shape": "round"}, fold)
        assert held_out[f"as given/fold{fold}-seed1"] == height({"place": 0.5, "steps": 2, "shape": "round"}, fold)
        assert best["height"] == pytest.approx(held_out[f"top_tuned/fold{fold}-seed1"] + 0.15), "the mean of two parts"


def test_each_fold_searches_for_itself_and_learns_where_to_look(tuned: Path):
    trials = pd.read_csv(tuned / "trials.csv").set_index("trial")
    by_fold = {fold: trials[trials["fold"] == fold] for fold in FOLDS}
    found = [by_fold[fold].loc[by_fold[fold]["height"].idxmax(), "place"] for fold in FOLDS]
    assert found[0] > 10 * found[1], "the tops are at 1 and at .01"
    assert set(by_fold[0].loc[1:, "place"]).isdisjoint(by_fold[2].loc[1:, "place"])


@pytest.mark.parametrize(("cut", "jobs"), [(3, 1), (37, 2)])
def test_an_interrupted_search_ends_like_another_with_any_jobs(
    tuned: Path, tmp_path: Path, cut: int, jobs: int, monkeypatch: pytest.MonkeyPatch
):
    config, space = study(tmp_path)
    run = tmp_path / "runs" / "hill" / "top_tuned"
    ended: list[str] = []

    def power_cut(text: str) -> None:
        ended.append(text)
        if len(ended) == cut:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(task_module, "progress", power_cut)
        with pytest.raises(KeyboardInterrupt):
            tune([config], space, trials=14, folds=FOLDS)
    assert tune([config], space, trials=14, folds=FOLDS, jobs=jobs, resume=True) == 0
    for name in ("trials.csv", "best-fold0.yaml", "best-fold2.yaml", "report.json"):
        assert (run / name).read_text() == (tuned / name).read_text(), name
    assert {path.read_text() for path in run.rglob("calls.txt")} == {"x"}, "no part was run twice"


def test_an_engine_that_does_not_answer_claims_no_run_folder(tmp_path: Path):
    config, space = study(tmp_path)
    with pytest.raises(RunError, match="--engine nonsense: no Dask scheduler answers there"):
        tune([config], space, trials=1, folds=[0], engine="nonsense")
    assert not (tmp_path / "runs").exists()


def test_more_trials_continue_a_search(tuned: Path, tmp_path: Path):
    config, space = study(tmp_path)
    for trials in (6, 14):
        assert tune([config], space, trials=trials, folds=[2], resume=trials == 14) == 0
    ours, theirs = (
        pd.read_csv(run / "trials.csv").query("fold == 2") for run in (tmp_path / "runs/hill/top_tuned", tuned)
    )
    pd.testing.assert_frame_equal(
        ours.head(4).reset_index(drop=True), theirs.head(4).reset_index(drop=True), check_exact=True
    )
    assert len(ours) == 14


def test_a_search_that_was_moved_goes_on(tuned: Path, tmp_path: Path):
    config, space = study(tmp_path)
    assert tune([config], space, trials=6, folds=[2]) == 0
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert tune([config], space, [f"runs={tmp_path / 'moved'}"], trials=6, folds=[2], resume=True) == 0
    assert {path.read_text() for path in (tmp_path / "moved").rglob("calls.txt")} == {"x"}, "no part was run twice"


def test_what_fails_is_a_failed_trial_and_is_never_chosen(tmp_path: Path):
    config, space = study(tmp_path, {"shape": ["round", "broken"]})
    assert tune([config], space, trials=8) == 1
    run = tmp_path / "runs" / "hill" / "top_tuned"
    states = pd.read_csv(run / "trials.csv").groupby("shape")["state"].unique()
    assert {shape: list(found) for shape, found in states.items()} == {"round": ["complete"], "broken": ["fail"]}
    assert "this hill cannot be climbed" in next((run / "trials").rglob("error.txt")).read_text()
    assert yaml.safe_load((run / "best-fold0.yaml").read_text()) == {"shape": "round"}


def test_resume_runs_failed_trials_again_and_ends_as_if_they_had_never_failed(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A disk was full while the last round ran: what failed there keeps its number and its values."""
    config, space = study(tmp_path)
    assert tune([config], space, trials=12, folds=FOLDS) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Hill, "tuning", replace(Hill.tuning, unit=unlucky_probe))
        assert tune([config], space, trials=14, folds=FOLDS, resume=True) == 1
    run = tmp_path / "runs" / "hill" / "top_tuned"
    cut = pd.read_csv(run / "trials.csv")
    assert cut[cut["state"] == "fail"]["trial"].tolist() == [12, 13] * 2
    with monkeypatch.context() as patch:
        patch.setattr(Hill, "tuning", replace(Hill.tuning, unit=unlucky_probe))
        assert tune([config], space, trials=14, folds=FOLDS, resume=True) == 1, "it ends, though nothing is mended"
    assert tune([config], space, trials=14, folds=FOLDS, resume=True) == 0
    ours, theirs = (pd.read_csv(folder / "trials.csv", float_precision="round_trip") for folder in (run, tuned))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert {len(calls.read_text()) for calls in (run / "trials").rglob("calls.txt")} == {1}, "what had finished stays"


@pytest.mark.parametrize(
    ("space", "more", "message"),
    [
        ({"palce": [1, 2]}, [], "HillExperiment has no option 'palce'; did you mean 'place'?"),
        ({"cohort": [1, 2]}, [], "cohort cannot be searched; with another cohort a trial is another experiment"),
        ({"runs": ["a", "b"]}, [], "runs cannot be searched"),
        ({"place": {"low": 1e-4, "hihg": 1e-2}}, [], "a range has no 'hihg'; did you mean 'high'?"),
        ({"place": {"low": "1e-4", "high": 1.0}}, [], "low must be a number, found '1e-4' (YAML needs a point"),
        ({"place": {"low": 0, "high": 1.0, "log": True}}, [], "expected low < high, and low above 0 with log"),
        ({"place": [1e-3]}, [], "expected at least two different plain values, found [0.001]"),
        ({"place": 1e-3}, [], "expected a list of choices or {low: .., high: .., log: ..}, found 0.001"),
        ({"steps": ["one", "two"]}, [], "steps: expected int, found 'one'"),
        ([], [], "expected config keys with choices or ranges"),
        (None, ["--folds", "3"], "--folds 3: hills has folds 0 to 2"),
    ],
)
def test_a_bad_space_is_one_line(
    tmp_path: Path,
    space: object,
    more: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    config, path = study(tmp_path, space)
    monkeypatch.setattr(sys, "argv", ["fusion", "tune", config, str(path), *more])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert message in said.splitlines()[-1]


def test_a_task_without_a_validation_measure_refuses_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config, space = study(tmp_path)
    monkeypatch.setattr(tune_module, "task_named", lambda name: Untuned())
    with pytest.raises(
        ConfigError, match="tune: hill cannot be tuned: it has no measure on cases held out inside a tr"
    ):
        tune([config], space)


def test_another_space_is_another_search(tuned: Path, tmp_path: Path):
    shutil.copytree(tuned.parent, tmp_path / "runs" / "hill", dirs_exist_ok=True)
    config, space = study(tmp_path, {"place": [0.1, 0.2]})
    with pytest.raises(RunError, match="holds a search of another space or seed; give another name=NAME"):
        tune([config], space, resume=True)
    with pytest.raises(ConfigError, match=r"no-space\.yaml: no such file"):
        tune([config], tmp_path / "no-space.yaml")


def test_ranges_and_choices_know_what_they_hold(tmp_path: Path):
    (tmp_path / "space.yaml").write_text("a: {low: 1, high: 4}\nb: {low: 0.5, high: 2}\nc: [null, x]\n")
    space = read_space(tmp_path / "space.yaml", ())
    assert space == {"a": Range(1, 4), "b": Range(0.5, 2), "c": Choices((None, "x"))}
    assert space["a"].holds(4)
    assert not space["a"].holds(2.5)
    assert space["b"].holds(1)
    assert space["c"].holds(None)
