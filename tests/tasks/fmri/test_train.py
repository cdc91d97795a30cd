"""Training and judging brain decoders: every sample once, nothing done twice, one line per fault, leaks marked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from data.brain.brain import Brains
from data.brain.units import repeats_averaged
from tasks.fmri.experiment import experiment_of_run
from tasks.fmri.train import TASK
from tests.tasks.fmri.runs import ARMS, fmri, toy_config, written
from tests.tasks.fmri.toy import AFFINE, CLASSES, ToyBrains

NO_CONTROLS = {"permutations": 0, "leakage": False, "geometry": False}


def predictions(run: Path, arm: str) -> pd.DataFrame:
    return pd.concat([pd.read_csv(p, dtype={"subject": str}) for p in sorted(run.glob(f"{arm}/fold*/predictions.csv"))])


def test_a_run_leaves_everything_it_promises(finished: Path):
    for name in ("config.yaml", "environment.json", "account.txt", "data.json", "summary.csv", "classes.csv",
                 "comparisons.csv", "report.html", "brain-01-toy.html"):  # fmt: skip
        assert (finished / name).stat().st_size > 0, name
    scored = predictions(finished, "toy")
    assert len(scored) == scored["sample"].nunique() == 2 * 4 * 3, "every sample is scored exactly once"
    assert not scored["cuts_runs"].any()
    summary = pd.read_csv(finished / "summary.csv")
    assert list(dict.fromkeys(summary["arm"])) == ["toy", "chance", "position", "ridge"]
    accuracy = summary[(summary["metric"] == "accuracy") & (summary["subject"] == "all")].set_index("arm")
    assert accuracy.loc["chance", "value"] == pytest.approx(1 / 3)
    assert accuracy.loc["toy", "value"] > accuracy.loc["toy", "null_p95"], "the patterns are strong"
    assert set(summary["subject"]) == {"all", "01", "02"}
    assert {"forward_top1", "backward_top1"} <= set(summary["metric"]), "each run is a gallery of its classes"


def test_every_metric_stands_per_class_and_per_subject_and_adds_up(finished: Path):
    kinds = {"label": str, "subject": str}
    summary, classes = (pd.read_csv(finished / f"{name}.csv", dtype=kinds) for name in ("summary", "classes"))
    whole = summary[(summary["arm"] == "toy") & (summary["subject"] == "all")].set_index("metric")
    assert {"accuracy", "two_way", "forward_top1", "backward_top1"} <= set(whole.index)
    people = summary[(summary["arm"] == "toy") & (summary["subject"] != "all")]
    own = classes[classes["arm"] == "toy"]
    assert set(own["label"]) == set(CLASSES)
    for parts, column in ((own, "label"), (people, "subject")):
        for metric, rows in parts.groupby("metric"):
            assert not rows[column].duplicated().any()
            assert rows["n"].sum() == whole.loc[metric, "n"]
            assert np.average(rows["value"], weights=rows["n"]) == pytest.approx(whole.loc[metric, "value"])
            assert (rows["chance"] == whole.loc[metric, "chance"]).all()
    table = pd.read_csv(finished / "derivatives" / "classes.tsv", sep="\t")
    said = json.loads((finished / "derivatives" / "classes.json").read_text())
    assert len(table) == len(classes)
    assert set(table.columns) <= set(said), "every column is described"


def test_every_row_of_the_summary_has_chance_and_the_null(finished: Path):
    summary = pd.read_csv(finished / "summary.csv")
    assert summary["chance"].notna().all()
    assert summary.loc[summary["metric"].isin(["accuracy", "two_way"]), "null_p95"].notna().all()


def test_derivatives_are_bids_and_say_what_was_decoded(finished: Path):
    out = finished / "derivatives"
    described = json.loads((out / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    assert described["GeneratedBy"][0]["Name"] == "multimodal-fusion"
    table = pd.read_csv(out / "sub-01" / "func" / "sub-01_desc-toy_decoding.tsv", sep="\t")
    assert {"sample", "run", "onset", "label", "truth", "decoded", "correct"} <= set(table)
    said = json.loads((out / "sub-01" / "func" / "sub-01_desc-toy_decoding.json").read_text())
    assert set(table.columns) <= set(said), "every column is described"
    assert said["Accuracy"] == pytest.approx(table["correct"].mean())
    assert said["CutsRuns"] is False
    weights = nibabel.load(out / "sub-01" / "func" / "sub-01_label-face_desc-toy_weights.nii.gz")
    mask = nibabel.load(out / "sub-01" / "func" / "sub-01_desc-decoded_mask.nii.gz")
    np.testing.assert_array_equal(weights.affine, AFFINE)
    inside = np.asarray(mask.dataobj) > 0
    values = np.asarray(weights.dataobj)
    assert (values[~inside] == 0).all()
    own = [np.load(path)["01/face"] for path in sorted(finished.glob("toy/fold*/maps.npz"))]
    np.testing.assert_allclose(values[inside], np.mean(own, axis=0), rtol=1e-5)


def test_resuming_repeats_only_what_is_missing_and_gives_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    config = written(tmp_path, toy_config(tmp_path / "runs"))
    assert fmri(monkeypatch, "train", "-c", config, "--folds", "0,1") == 0
    capsys.readouterr()
    assert fmri(monkeypatch, "train", "-c", config, "--resume") == 0
    said = capsys.readouterr().err
    assert said.count("done before") >= 8, "two folds of four arms"
    for path in finished.glob("*/fold*/predictions.csv"):
        mine = tmp_path / "runs" / "fmri" / "toy" / path.relative_to(finished)
        assert mine.read_bytes() == path.read_bytes()


def test_a_run_whose_data_changed_does_not_go_on(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The config is the same, so finished units count as done: one table would hold units of two data sets."""
    config = written(tmp_path, toy_config(tmp_path / "runs", baselines={}, controls=NO_CONTROLS))
    assert fmri(monkeypatch, "train", "-c", config, "--folds", "0", "--quiet") == 0
    assert fmri(monkeypatch, "train", "-c", config, "--folds", "0,1", "--resume", "--quiet") == 0
    read = ToyBrains.read

    def changed(self: ToyBrains) -> Brains:
        brains = read(self)
        one = brains.subjects["02"]
        return replace(brains, subjects={**brains.subjects, "02": replace(one, x=one.x * 2)})

    monkeypatch.setattr(ToyBrains, "read", changed)
    capsys.readouterr()
    assert fmri(monkeypatch, "train", "-c", config, "--resume", "--quiet") == 2
    said = capsys.readouterr().err
    assert "subject 02: not what this run began with" in said
    assert said.count("\n") == 1


def test_more_processes_change_no_number(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = written(tmp_path, toy_config(tmp_path / "runs"))
    assert fmri(monkeypatch, "train", "-c", config, "--jobs", "2", "--quiet") == 0
    for path in finished.glob("*/fold*/predictions.csv"):
        mine = tmp_path / "runs" / "fmri" / "toy" / path.relative_to(finished)
        assert mine.read_bytes() == path.read_bytes()


def test_a_subject_that_cannot_be_read_is_one_line_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    config = written(tmp_path, toy_config(tmp_path / "runs"))
    assert fmri(monkeypatch, "train", "-c", config, "brains.broken=['02']", "--quiet") == 1
    said = capsys.readouterr()
    last = said.err.rstrip().splitlines()[-1]
    assert last == "fmri: left out: sub-02_bold.nii.gz: the file ends before its data do; copy it again"
    run = tmp_path / "runs" / "fmri" / "toy"
    assert set(predictions(run, "toy")["subject"]) == {"01"}
    assert "sub-02_bold.nii.gz" in (run / "report.html").read_text()


def test_when_no_subject_can_be_read_it_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    config = written(tmp_path, toy_config(tmp_path / "runs"))
    assert fmri(monkeypatch, "train", "-c", config, "brains.broken=['01','02']", "--quiet") == 2
    said = capsys.readouterr()
    assert said.err == "fmri: sub-02_bold.nii.gz: the file ends before its data do; copy it again\n"
    assert said.out == ""


def test_a_split_that_cuts_runs_is_marked_in_every_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    leaky = toy_config(tmp_path / "runs", split={"class_path": "CutRuns", "init_args": {"folds": 3}})
    assert fmri(monkeypatch, "train", "-c", written(tmp_path, leaky), "--quiet") == 0
    table = capsys.readouterr().out.splitlines()
    column = table[0].split("\t").index("cuts_runs")
    assert table[1].split("\t")[column] == "True"
    run = tmp_path / "runs" / "fmri" / "toy"
    assert predictions(run, "toy")["cuts_runs"].all()
    for name in ("summary.csv", "classes.csv", "comparisons.csv"):
        assert pd.read_csv(run / name)["cuts_runs"].all(), name
    page = (run / "report.html").read_text()
    assert "RUNS ARE CUT" in page[: page.index("<h1>")]
    for path in run.glob("derivatives/**/*.json"):
        if path.name.endswith(("decoding.json", "weights.json", "metrics.json")):
            assert json.loads(path.read_text())["CutsRuns"] is True, path.name
    assert json.loads((run / "toy" / "fold0-seed1" / "done.json").read_text())["cuts_runs"] is True


def test_arms_that_are_fitted_per_subject_are_left_out_where_a_subject_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    new = toy_config(tmp_path / "runs", split={"class_path": "HeldOutSubjects"}, model=ARMS["Chance"], baselines={
        "ridge": ARMS["Ridge"]})  # fmt: skip
    new["controls"] = {"permutations": 20, "leakage": False}
    assert fmri(monkeypatch, "train", "-c", written(tmp_path, new)) == 0
    said = capsys.readouterr().err
    assert "'ridge' is left out: it is fitted per subject, and split subject-01 has no training sample" in said


def test_a_subject_with_one_scored_run_has_an_interval_over_its_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Resampling a single run gives it back: an interval of no width."""
    labels = [f"{k}" for k in range(9, 15)]
    config = toy_config(tmp_path / "runs", controls=NO_CONTROLS)
    config["brains"]["init_args"]["subjects"] = labels
    assert fmri(monkeypatch, "train", "-c", written(tmp_path, config), "--folds", "0", "--quiet") == 0
    summary = pd.read_csv(tmp_path / "runs" / "fmri" / "toy" / "summary.csv", dtype={"subject": str})
    rows = summary[(summary["arm"] == "toy") & (summary["metric"] == "accuracy")]
    assert list(rows["subject"]) == ["all", *labels], "in the order people count"
    assert rows["note"].iloc[0] == "interval over 6 units: subject"
    assert set(rows["note"].iloc[1:]) == {"interval over 3 units: sample"}


def test_repeats_are_averaged_within_each_side_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    halves = {"class_path": "RunFolds", "init_args": {"folds": 2}}
    config = toy_config(tmp_path / "runs", repeats="average", split=halves, model=ARMS["Ridge"])
    assert fmri(monkeypatch, "train", "-c", written(tmp_path, config), "--quiet") == 0
    scored = predictions(tmp_path / "runs" / "fmri" / "toy", "toy")
    assert len(scored) == 2 * 2 * 3, "a sample per subject, side and class"
    assert scored["run"].str.contains(r"\+").all()


def test_seeds_are_averaged_and_baselines_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = written(tmp_path, toy_config(tmp_path / "runs"))
    assert fmri(monkeypatch, "train", "-c", config, "--folds", "0", "--seeds", "1,2", "--quiet") == 0
    run = tmp_path / "runs" / "fmri" / "toy"
    assert sorted(path.name for path in (run / "toy").iterdir()) == ["fold0-seed1", "fold0-seed2"]
    assert [path.name for path in (run / "ridge").iterdir()] == ["fold0-seed1"]
    summary = pd.read_csv(run / "summary.csv").set_index(["arm", "subject", "metric"])
    assert summary.loc[("toy", "all", "accuracy"), "n"] == 6, "a seed adds no sample"


def test_fast_reaches_a_decoder_inside_another(tmp_path: Path):
    """A trial run that trains one of its decoders in full is no trial run."""
    pooled = {"class_path": "Pooled", "init_args": {"decoder": "DeepDecoder"}}
    nested = {"class_path": "Nested", "init_args": {"decoders": {"deep": pooled, "ridge": "Ridge"}}}
    config = written(tmp_path, toy_config(tmp_path / "runs", model=nested, rivals={"alone": "DeepDecoder"}))
    fast, whole = (TASK.resolved_config([str(config)], [], fast=fast) for fast in (True, False))

    def epochs(tree: dict) -> list[tuple[int, int]]:
        inside = tree["model"]["init_args"]["decoders"]["deep"]["init_args"]["decoder"]
        deep = [of["init_args"] for of in (inside, tree["rivals"]["alone"])]
        return [(of["trainer"]["max_epochs"], of["adapting"]["epochs"]) for of in deep]

    assert epochs(fast) == [(2, 2), (2, 2)]
    assert epochs(whole) == [(60, 50), (60, 50)]


def test_the_sidecar_tells_the_accuracy_of_one_decoder_from_that_of_their_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Over seeds, the mean accuracy is not the accuracy of the mean scores, which the table decodes from."""
    guess = toy_config(tmp_path / "runs", model="tests.tasks.fmri.toy.Guess", baselines={}, controls=NO_CONTROLS)
    assert fmri(monkeypatch, "train", "-c", written(tmp_path, guess), "--seeds", "1,2", "--quiet") == 0
    run = tmp_path / "runs" / "fmri" / "toy"
    summary = pd.read_csv(run / "summary.csv", dtype={"subject": str}).set_index(["subject", "metric"])["value"]
    differ = False
    for subject in ("01", "02"):
        stem = run / "derivatives" / f"sub-{subject}" / "func" / f"sub-{subject}_desc-toy_decoding"
        said, table = json.loads(stem.with_suffix(".json").read_text()), pd.read_csv(stem.with_suffix(".tsv"), sep="\t")
        assert said["Seeds"] == [1, 2]
        assert said["Accuracy"] == pytest.approx(summary[subject, "accuracy"])
        assert said["AccuracyOfMeanScores"] == pytest.approx(table["correct"].mean())
        differ |= said["Accuracy"] != said["AccuracyOfMeanScores"]
    assert differ, "or the test says nothing"


def test_draws_of_a_null_that_must_be_fitted_are_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    controls = {"permutations": 50, "refits": 13, "arm": "position", "leakage": False, "geometry": False}
    config = written(tmp_path, toy_config(tmp_path / "runs", controls=controls))
    assert fmri(monkeypatch, "train", "-c", config, "--jobs", "2", "--quiet") == 0
    run = tmp_path / "runs" / "fmri" / "toy"
    parts = {path.name: len(pd.read_csv(path / f"{path.name}.csv")) for path in sorted((run / "controls").iterdir())}
    assert parts == {"refitted-0": 10, "refitted-10": 3}
    assert "position fitted anew on each of 13 label shuffles" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "give at least one config: -c fmri/haxby"),
        (["train", "-c", "CONFIG", "brains.nois=2"], "brains: ToyBrains has no option 'nois'; did you mean 'noise'?"),
        (
            ["train", "-c", "CONFIG", "model=tasks.fmri.baselines.Ridg"],
            "model: no class 'Ridg' in tasks.fmri.baselines",
        ),
        (["train", "-c", "CONFIG", "controls.permutations=-1"], "controls.permutations: expected at least 0, found -1"),
        (["train", "-c", "CONFIG", "controls.refits=60"], "controls.refits: expected 0 to permutations (50), found 60"),
        (["train", "-c", "CONFIG", "controls.arm=ridgee"], "controls.arm: no baseline 'ridgee'; there are chance"),
        (["train", "-c", "CONFIG", "controls.lags=[0.0,5.0]"], "controls.lags: ToyBrains has no lag to sweep"),
        (["train", "-c", "CONFIG", "controls.networks={dino: gone}"], "controls.networks.dino: gone is no folder"),
        (["train", "-c", "CONFIG", "repeats=sum"], "repeats: expected one of keep, average, found 'sum'"),
        (["train", "-c", "CONFIG", "--folds", "9"], "--folds 9: toy has folds 0 to 3"),
        (["train", "-c", "CONFIG", "brains.runs=1"], "no subject has enough runs for LeaveRunsOut (at most 1)"),
        (["train", "-c", "CONFIG", "split.runs=0"], "runs=0: at least 1"),
        (["train", "-c", "survival/demo"], "task: this config is for another task than fmri"),
        (["train", "-c", "_base/fmri_bids", "name=x", "brains.folder=gone"], "BidsBrains"),
        (["evaluate", "nowhere"], "nowhere: not a run folder"),
        (["explain", "RUN", "99"], "'toy' scored no subject 99; it scored 01, 02"),
        (["explain", "RUN", "--arm", "ridgee"], "no finished unit of 'ridgee'; did you mean 'ridge'?"),
        (["decode", "RUN"], "say where the new data are"),
        (["decode", "RUN", "--bold", "x.nii.gz"], "the run's data are ToyBrains, not scans"),
        (["decode", "RUN", "nois=3"], "brains: ToyBrains has no option 'nois'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    finished: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    config = str(written(tmp_path, toy_config(tmp_path / "runs")))
    given = [{"CONFIG": config, "RUN": str(finished)}.get(word, word) for word in arguments]
    assert fmri(monkeypatch, *given) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.rstrip().splitlines()[-1].startswith("fmri: ")
    assert said.out == ""


def test_evaluate_prints_json(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert fmri(monkeypatch, "evaluate", finished, "--draws", "50", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert {"run", "report", "metrics", "comparisons"} <= said.keys()
    assert {row["b"] for row in said["comparisons"]} == {"position", "ridge"}


def test_decoding_the_training_data_again_is_right_and_says_so(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert fmri(monkeypatch, "decode", finished, "noise=0.5", "-o", tmp_path / "out") == 0
    said = capsys.readouterr()
    table = pd.read_csv(tmp_path / "out" / "sub-02" / "func" / "sub-02_desc-toy_decoding.tsv", sep="\t")
    assert table["correct"].mean() > 0.9, "the same patterns with less noise"
    assert "subject 02: " in said.err
    assert [f"score_{name}" for name in CLASSES] == [name for name in table if name.startswith("score_")]
    assert fmri(monkeypatch, "decode", finished, "noise=1.0", "-o", tmp_path / "again") == 0
    assert "24 of 24 samples trained this decoder" in capsys.readouterr().err


def test_decoding_averages_repeats_as_the_run_does_and_takes_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """New data go through what the scored data went through, and the output says what was fitted."""
    halves = {"class_path": "RunFolds", "init_args": {"folds": 2}}
    config = toy_config(tmp_path / "runs", repeats="average", split=halves, model=ARMS["Ridge"])
    assert fmri(monkeypatch, "train", "-c", written(tmp_path, config), "--seeds", "2,3", "--folds", "0", "--quiet") == 0
    run, at = tmp_path / "runs" / "fmri" / "toy", Path("sub-02") / "func" / "sub-02_desc-toy_decoding"
    capsys.readouterr()
    for given, seed in (([], 2), (["--seed", "7"], 7)):
        out = tmp_path / str(seed)
        assert fmri(monkeypatch, "decode", run, "noise=1.0", *given, "-o", out) == 0
        said = capsys.readouterr().err
        assert f"toy: fitted on 6 samples (24 with repeats averaged, as the run asks), seed {seed}; decodes 6" in said
        assert "24 of 24 samples trained this decoder" in said
        facts = json.loads((out / at.with_suffix(".json")).read_text())
        assert (facts["Seed"], facts["Repeats"]) == (seed, "average")
    table = pd.read_csv(out / at.with_suffix(".tsv"), sep="\t")
    assert table["run"].tolist() == ["1+2+3+4"] * 3
    experiment = experiment_of_run(run)
    means = repeats_averaged(experiment.brains.load())
    ridge = experiment.model.fit(means, list(means.table.index), seed=0)
    own = [i for i in means.table.index if i.startswith("02/")]
    np.testing.assert_allclose(table.filter(like="score_"), ridge.scores(means, own).matrix, rtol=1e-6)


def test_a_new_session_may_call_its_runs_as_the_training_data_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A decoder that refuses runs it was trained on must not take run 1 of other data for one of them."""
    brains = toy_config(tmp_path)["brains"]
    volumes = {"class_path": "FromVolumes", "init_args": {"decoder": "Ridge", "volumes": brains}}
    config = toy_config(tmp_path / "runs", model=volumes, baselines={}, controls=NO_CONTROLS)
    assert fmri(monkeypatch, "train", "-c", written(tmp_path, config), "--folds", "0", "--quiet") == 0
    run = tmp_path / "runs" / "fmri" / "toy"
    assert fmri(monkeypatch, "decode", run, "noise=0.5", "-o", tmp_path / "out") == 0
    table = pd.read_csv(tmp_path / "out" / "sub-01" / "func" / "sub-01_desc-toy_decoding.tsv", sep="\t", dtype=str)
    assert table["run"].tolist() == [str(k) for k in range(1, 5) for _ in CLASSES]
    assert table["sample"].iloc[0] == "01/1/0"


def test_a_subject_the_decoder_does_not_know_is_named(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert fmri(monkeypatch, "decode", finished, "subjects=['07']", "-o", tmp_path / "out") == 2
    assert "subject 07: ShrinkageLDA has no fit for it (only 01, 02)" in capsys.readouterr().err
