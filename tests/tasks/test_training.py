"""Training from the command line: interrupted runs end like uninterrupted ones, and bad input is one line."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from data.slides.feature_files import Bag, MemoryBags
from tasks.experiment.config import build
from tasks.experiment.folder import RunError, RunFolder
from tasks.survival.cli import main
from tasks.survival.experiment import SurvivalExperiment
from tasks.survival.train import TASK
from tasks.survival.trained import Trained
from tasks.survival.unit import Job

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
MAIN = "import sys; sys.argv[0] = 'survival'; from tasks.survival.cli import main; main()"


def survival(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", MAIN, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small cohort on disk: 90 patients, 24 genes in two groups, hazard driven by the first gene and by age."""
    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(3)
    n = 90
    genes = rng.standard_normal((n, 24))
    age = rng.normal(60, 10, n)
    died = rng.exponential(20 * np.exp(-2 * genes[:, 0] - 0.05 * (age - 60)))
    censored = rng.exponential(40, n)
    table = pd.DataFrame(
        {
            "case_id": [f"P{i:03d}" for i in range(n)],
            "site": rng.choice(["A", "B", "C"], n),
            "age": age.round(1),
            "survival_months": np.minimum(died, censored).clip(0.1).round(3),
            "censorship": (censored < died).astype(int),
        }
    )
    table = pd.concat([table, pd.DataFrame(genes, columns=[f"G{i}_rnaseq" for i in range(24)])], axis=1)
    table.to_csv(folder / "table.csv", index=False)
    (folder / "sets.gmt").write_text(
        "first\tx\t"
        + "\t".join(f"G{i}" for i in range(12))
        + "\nsecond\tx\t"
        + "\t".join(f"G{i}" for i in range(12, 24))
        + "\n"
    )
    config = {
        "extends": str(ROOT / "configs" / "_base" / "survival.yaml"),
        "name": "small",
        "runs": str(folder / "runs"),
        "cohort": {
            "class_path": "TableCohort",
            "init_args": {"table": str(folder / "table.csv"), "groups": str(folder / "sets.gmt"), "folds": 3},
        },
        "model": {"class_path": "SNN"},
        "rivals": {"genes alone (SNN)": None},
        "prepare": {"init_args": {"bins": 3}},
        "loss": {"init_args": {"bins": 3}},
        "trainer": {"max_epochs": 6},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def finished(study: Path) -> Path:
    done = survival("train", "-c", study / "config.yaml", "--quiet", cwd=study)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "--quiet leaves results and errors"
    return study / "runs" / "survival" / "small"


def test_a_run_leaves_everything_it_promises(finished: Path):
    for name in ("config.yaml", "environment.json", "account.txt", "summary.csv", "comparisons.csv", "report.html"):
        assert (finished / name).stat().st_size > 0, name
    predictions = pd.concat([pd.read_csv(p) for p in finished.glob("small/fold*-seed1/predictions.csv")])
    assert sorted(predictions["case_id"]) == [f"P{i:03d}" for i in range(90)], "every patient is scored exactly once"
    summary = pd.read_csv(finished / "summary.csv")
    assert list(dict.fromkeys(summary["arm"])) == ["small", "chance", "age", "ridge genes", "ridge genes + age"]
    mean = summary[(summary["fold"] == "mean") & (summary["metric"] == "c_index")].set_index("arm")
    assert mean.loc["chance", "value"] == 0.5
    assert mean.loc["ridge genes + age", "value"] > 0.65, "the hazard is driven by a gene and by age"
    assert (mean["low"] <= mean["value"]).all()
    assert (mean["value"] <= mean["high"]).all()
    page = (finished / "report.html").read_text()
    assert "not complete" not in page, "an arm that the cohort cannot feed is not awaited"
    assert "slides alone (ABMIL) was not run: ABMIL reads slides, but the cohort has none." in page


def test_a_run_whose_table_changed_does_not_go_on(study: Path, tmp_path: Path):
    table = pd.read_csv(study / "table.csv")
    table.to_csv(tmp_path / "table.csv", index=False)
    call = ["train", "-c", study / "config.yaml", "name=moved", f"cohort.table={tmp_path / 'table.csv'}", "--fast"]
    assert survival(*call, cwd=tmp_path).returncode == 0
    assert survival(*call, "--resume", cwd=tmp_path).returncode == 0
    table.loc[3, "G0_rnaseq"] += 1
    table.to_csv(tmp_path / "table.csv", index=False)
    refused = survival(*call, "--resume", cwd=tmp_path)
    assert refused.returncode == 2
    assert "moved: genes: not what this run began with" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def killed(study: Path, name: str) -> Path:
    """A run killed in the middle of its first unit; gives that unit's folder."""
    arguments = ["train", "-c", str(study / "config.yaml"), f"name={name}", "trainer.max_epochs=6"]
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments],
        cwd=study,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    unit = study / "runs" / "survival" / name / name / "fold0-seed1"
    deadline = time.monotonic() + 240
    while not (unit / "previous.ckpt").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (unit / "done.json").exists(), "killed in the middle of the unit"
    return unit


def test_a_killed_run_resumed_equals_an_uninterrupted_one(study: Path, finished: Path):
    unit = killed(study, "killed")
    resumed = survival("train", "-c", study / "config.yaml", "name=killed", "--resume", cwd=study)
    assert resumed.returncode == 0, resumed.stderr
    for fold in range(3):
        for file in ("predictions.csv", "epochs.csv", "curves.csv"):
            mine = study / "runs" / "survival" / "killed" / "killed" / f"fold{fold}-seed1" / file
            theirs = finished / "small" / f"fold{fold}-seed1" / file
            assert mine.read_bytes() == theirs.read_bytes(), f"fold {fold}: {file}"
    log = (unit / "log.txt").read_text()
    assert log.count("epoch 1/6") == 1, "the finished epochs were not trained again"
    assert not list((study / "runs" / "survival" / "killed").rglob("*.ckpt")), "finished units need no checkpoints"


def test_a_run_that_was_moved_goes_on_and_repeats_nothing(
    study: Path,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.INFO, "fusion")  # an earlier test may have asked for --quiet
    unit = killed(study, "carried")
    new = tmp_path / "elsewhere"
    (new / "survival").mkdir(parents=True)
    shutil.move(unit.parents[1], new / "survival" / "carried")
    call = [[str(study / "config.yaml")], ["name=carried", f"runs={new}"]]
    assert TASK.train(*call, resume=True) == 0
    arm = new / "survival" / "carried" / "carried"
    assert (arm / "fold0-seed1/log.txt").read_text().count("epoch 1/6") == 1, "it went on within its unit"
    for fold in range(3):
        mine, theirs = (run / f"fold{fold}-seed1/predictions.csv" for run in (arm, finished / "small"))
        assert mine.read_bytes() == theirs.read_bytes(), f"fold {fold}"
    again = tmp_path / "again" / "survival"
    again.mkdir(parents=True)
    shutil.move(arm.parent, again / "carried")
    capsys.readouterr()
    call[1][1] = f"runs={again.parent}"
    assert TASK.train(*call, resume=True) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "fold" in line and "] " in line]
    assert said
    assert all(line.endswith("done before") for line in said)
    with pytest.raises(RunError, match=r"made with another config \(trainer.max_epochs was 6, now 7\)"):
        TASK.train(call[0], [*call[1], "trainer.max_epochs=7"], resume=True)
    assert not (study / "runs" / "survival" / "carried").exists()


def test_a_damaged_checkpoint_falls_back_to_the_one_before(study: Path, finished: Path):
    unit = killed(study, "damaged")
    (unit / "last.ckpt").write_bytes(b"cut")
    again = survival("train", "-c", study / "config.yaml", "name=damaged", "--folds", "0", "--resume", cwd=study)
    assert again.returncode == 0, again.stderr
    assert "last.ckpt is damaged" in again.stderr
    theirs = finished / "small" / "fold0-seed1" / "predictions.csv"
    assert (unit / "predictions.csv").read_bytes() == theirs.read_bytes()
    assert (unit / "log.txt").read_text().count("epoch 1/6") == 1, "the epoch before was not trained again"


def test_more_processes_change_no_number(study: Path, finished: Path):
    done = survival("train", "-c", study / "config.yaml", "name=two", "--jobs", "2", "--quiet", cwd=study)
    assert done.returncode == 0, done.stderr
    for fold in range(3):
        mine = study / "runs" / "survival" / "two" / "two" / f"fold{fold}-seed1" / "predictions.csv"
        assert mine.read_bytes() == (finished / "small" / f"fold{fold}-seed1" / "predictions.csv").read_bytes()


@pytest.mark.cluster
def test_a_cluster_changes_no_number_and_a_report_can_be_read_while_it_works(study: Path, finished: Path):
    from distributed import LocalCluster

    run = study / "runs" / "survival" / "cluster"
    done = sorted(run.glob("*/fold*/done.json"))
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", protocol="tcp") as cluster:
        arguments = ["train", "-c", str(study / "config.yaml"), "name=cluster", "--engine", cluster.scheduler_address]
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, *arguments, "--quiet"],
            cwd=study,
            env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
        )
        worker = next(iter(cluster.workers.values())).pid
        while not done:
            assert process.poll() is None, "the run ended before it could be looked at"
            time.sleep(0.05)
            done = sorted(run.glob("*/fold*/done.json"))
        os.kill(worker, signal.SIGSTOP)
        page = TASK.report(run).read_text()
        os.kill(worker, signal.SIGCONT)
        assert process.wait() == 0
    assert "not complete" in page
    for path in finished.glob("*/fold*-seed1/*.csv"):
        assert (run / str(path.relative_to(finished)).replace("small", "cluster")).read_bytes() == path.read_bytes()


def test_prediction_of_the_training_table_is_close_to_its_own_folds(study: Path, finished: Path):
    new = pd.read_csv(study / "table.csv").drop(columns=["survival_months", "censorship"])
    new.to_csv(study / "new.csv", index=False)
    done = survival("predict", finished, f"table={study / 'new.csv'}", "-o", study / "out" / "risks.csv", cwd=study)
    assert done.returncode == 0, done.stderr
    risks = pd.read_csv(study / "out" / "risks.csv", index_col="case_id")
    assert len(risks) == 90
    assert (risks["models"] == 3).all()
    curves = pd.read_csv(study / "out" / "risks-curves.csv", index_col="case_id").to_numpy()
    assert ((curves >= 0) & (curves <= 1)).all()
    assert (np.diff(curves, axis=1) <= 1e-12).all(), "survival never rises"
    assert "90 patients: after joining" in done.stderr
    assert "90 of 90 patients trained these models" in done.stderr
    held_out = pd.concat([pd.read_csv(p) for p in finished.glob("small/fold*-seed1/predictions.csv")])
    together = held_out.set_index("case_id")["risk"].corr(risks["risk"], method="spearman")
    assert together > 0.7


def test_evaluate_prints_json(finished: Path, study: Path):
    done = survival("evaluate", finished, "--draws", "50", "--json", cwd=study)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {"run", "report", "metrics", "comparisons"} <= said.keys()
    assert any(row["metric"] == "c_index" and row["fold"] == "pooled" for row in said["metrics"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "give at least one config"),
        (["train", "-c", "nowhere"], "nowhere: no such config"),
        (["train", "-c", "."], ".: a folder; name a YAML file in it"),
        (["train", "-c", "CONFIG", "--seeds", "all"], "--seeds all: expected whole numbers from 0 with commas"),
        (["train", "-c", "CONFIG", f"cohort.table={'N' * 300}"], "NNN: file name too long; give a shorter path"),
        (
            ["train", "-c", "CONFIG", "model.size=huge"],
            "model: SNN has no option 'size' (takes width, layers, dropout, l1)",
        ),
        (
            ["train", "-c", "CONFIG", "model.sizes=huge"],
            "model: SNN has no option 'sizes' (takes width, layers, dropout, l1)",
        ),
        (["train", "-c", "CONFIG", "model.depht=3"], "model: SNN has no option 'depht'"),
        (["train", "-c", "CONFIG", "trainer.max_epochs=many"], "trainer.max_epochs: expected int, found 'many'"),
        (["train", "-c", "CONFIG", "trainer.max_epochs=0"], "trainer.max_epochs: expected at least 1, found 0"),
        (["train", "-c", "CONFIG", "loss.bins=2", "name=b2"], "loss.bins=2 and prepare.bins=3 differ"),
        (
            ["train", "-c", "CONFIG", "cohort.schema.tiem=days", "name=s"],
            "cohort.schema: TableSchema has no option 'tiem'; did you mean 'time'?",
        ),
        (["train", "-c", "CONFIG", "--folds", "7", "name=f7"], "--folds 7: cohort table has folds 0 to 2"),
        (["train", "-c", "CONFIG", "--folds", "one"], "--folds one: expected whole numbers with commas"),
        (["train", "-c", "CONFIG"], "holds a run already; continue it with --resume or give another name=NAME"),
        (
            ["train", "-c", "CONFIG", "--resume", "trainer.max_epochs=9"],
            "made with another config (trainer.max_epochs was 6, now 9)",
        ),
        (["train", "-c", "CONFIG", "cohort.table=gone.csv", "name=gone"], "gone.csv: no such file"),
        (["train", "-c", "CONFIG", "name=a/b"], "name=a/b: a run's name is that of its folder below runs="),
        (["train", "-c", "CONFIG", "name=.."], "name=..: a run's name is that of its folder below runs="),
        (["evaluate", "runs/survival/smal"], "not a run folder (no config.yaml); beside it are"),
        (["predict", "runs/survival/small"], "say where the new patients are, for example table=new.csv"),
        (
            ["predict", "runs/survival/small", "table=table.csv", "-o", "table.csv/x.csv"],
            "table.csv/x.csv: table.csv is a file, so no folder of that name can hold it",
        ),
        (["predict", "runs/survival/small", "table=table.csv", "-o", "."], ".: a folder, and a file is wanted"),
        (["predict", "runs/survival/small", "tabel=x.csv"], "cohort: TableCohort has no option 'tabel'; did you mean"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    study: Path,
    finished: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(study)
    monkeypatch.setattr(
        sys, "argv", ["survival", *(str(study / "config.yaml") if a == "CONFIG" else a for a in arguments)]
    )
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    assert end.value.code == 2
    assert message in said.err
    assert said.err.rstrip().splitlines()[-1].startswith("survival: ")
    assert said.out == ""


def test_an_engine_that_does_not_answer_claims_no_run_folder(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    call = ["survival", "train", "-c", str(study / "config.yaml"), "name=unclaimed", "--engine", "nonsense"]
    monkeypatch.setattr(sys, "argv", call)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "--engine nonsense: no Dask scheduler answers there" in capsys.readouterr().err
    assert not (study / "runs" / "survival" / "unclaimed").exists()


def test_a_second_process_touches_nothing_of_a_run_that_is_being_written(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    run = study / "runs" / "survival" / "held"
    monkeypatch.setattr(sys, "argv", ["survival", "train", "-c", str(study / "config.yaml"), "name=held"])
    with RunFolder(run).locked(), pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert f"process {os.getpid()} is writing this run; wait for it" in capsys.readouterr().err
    assert [path.name for path in run.iterdir()] == [".lock"]


def test_arms_that_read_what_the_cohort_lacks_are_left_out_by_name(study: Path):
    experiment = build(SurvivalExperiment, TASK.resolved_config([str(study / "config.yaml"), "_base/survival"], []))
    assert experiment.left_out(experiment.cohort.load()) == {
        "slides alone (ABMIL)": "ABMIL reads slides, but the cohort has none"
    }
    bare = replace(experiment.cohort.load(), genes=None, groups={})
    assert set(experiment.left_out(bare)) == {
        "slides alone (ABMIL)",
        "genes alone (SNN)",
        "ridge genes",
        "ridge genes + age",
    }


class Unreadable(MemoryBags):
    """Slides that nobody may open."""

    def read(self, case_id: str) -> Bag:
        raise AssertionError(f"the slides of {case_id} were opened")


def test_a_model_of_genes_alone_opens_no_slide(study: Path, tmp_path: Path):
    config = TASK.resolved_config([str(study / "config.yaml")], ["rivals={slides: ABMIL}", "trainer.max_epochs=1"])
    experiment = build(SurvivalExperiment, config)
    cohort, split = experiment.cohort.load(), experiment.cohort.splits()[0]
    bag = Bag(torch.zeros(3, 8), None, torch.zeros(3, dtype=torch.long), ("S",))
    with_slides = replace(cohort, bags=Unreadable(dict.fromkeys(cohort.case_ids, bag)))
    for name, patients in (("bare", cohort), ("slides", with_slides)):
        (tmp_path / name).mkdir()
        Job(experiment, patients, split, tmp_path / name, 1).network(experiment.model)
    told = [(tmp_path / name / "predictions.csv").read_text() for name in ("bare", "slides")]
    assert told[0] == told[1]
    trained = Trained.load(tmp_path / "slides", experiment, "small")
    assert trained.prepared(with_slides).cohort.bags is None
    (tmp_path / "abmil").mkdir()
    with pytest.raises(AssertionError, match="were opened"):
        Job(experiment, with_slides, split, tmp_path / "abmil", 1).network(experiment.rivals["slides"])
