"""The survival report: the honest sentence first, every arm in one table, and the truth about what is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.experiment.folder import RunError
from tasks.experiment.report.numbers import sentence
from tasks.experiment.state import LEFT_OUT
from tasks.survival import report
from tasks.survival.evaluation import evaluate_run
from tasks.survival.report_tables import Scores, headline, title
from tasks.survival.results import read
from tests.tasks.pages import Page
from tests.tasks.survival_runs import write_run

ARMS = {"cmta": 1.0, "ridge": 0.9, "age": 3.0, "ceiling": 0.0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "cmta", ARMS)


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(report.write(run).read_text())


def test_the_page_is_whole_and_safe(page: Page):
    assert page.breaches == []
    assert "3 patients: no <age>" in page.words
    assert "CMTA on tcga_<b>" in page.words


def test_the_first_sentence_is_the_verdict_against_the_strongest_rival(run: Path):
    composed = report.compose(read(run))
    assert composed.lead.startswith(("cmta is not distinguishable from ridge", "cmta is worse than ridge"))
    assert "of the way from chance to the ceiling of" in composed.lead
    assert composed.notice == ""


def test_every_arm_stands_in_one_table_between_ceiling_and_chance(run: Path):
    results = read(run)
    table = headline(Scores.of_summary(results.summary, "cmta"), "everyone")
    assert [(row.label, row.role) for row in table.rows] == [
        ("ceiling", "ceiling"), ("cmta", "own"), ("ridge", "baseline"), ("age", "baseline"), ("chance", "chance"),
    ]  # fmt: skip
    assert results.summary is not None
    mean = results.summary.query("arm == 'cmta' and metric == 'c_index' and fold == 'mean'").iloc[0]
    own = table.rows[1].cells["C-index ↑"]
    assert (own.value, own.low, own.high) == tuple(mean[["value", "low", "high"]])
    assert table.rows[-1].cells["C-index ↑"].value == 0.5


def test_the_ceiling_is_no_rival(run: Path, page: Page):
    scores = Scores.of_summary(read(run).summary, "cmta")
    assert scores.strongest_rival == "ridge"
    assert "ceiling" not in [estimate.label for estimate in scores.estimates("c_index")]
    assert "than ceiling" not in page.words


def test_the_command_names_the_program_not_the_machine(page: Page):
    assert "survival train -c 'a b.yaml'" in page.words
    assert "/anywhere" not in page.words


def test_plot_writes_the_figures_of_the_report(run: Path):
    names = {path.name for path in report.plot(run)}
    assert names >= {"kaplan-meier.svg", "arms.svg", "folds.svg", "differences.svg", "epochs.svg", "calibration.svg"}
    assert all(path.parent == run / "figures" for path in report.plot(run))


def test_an_interrupted_run_says_what_is_missing(tmp_path: Path):
    run = write_run(tmp_path / "half", ARMS)
    (run / "cmta" / "fold1-seed1" / "done.json").unlink()
    (run / "cmta" / "fold1-seed1" / "error.txt").write_text("ValueError: <b>boom\n\nTraceback")
    (run / "cmta" / "fold2-seed1" / "done.json").unlink()
    composed = report.compose(read(run))
    assert composed.notice.startswith("This run is not complete: 10 of 12 units done; 1 failed; 1 not finished")
    page = Page(composed.html())
    assert "cmta/fold1-seed1 ValueError: <b>boom" in page.words
    assert "cmta/fold2-seed1" in page.words
    assert page.breaches == []


def test_a_run_that_has_barely_begun_still_has_a_page(tmp_path: Path):
    run = write_run(tmp_path / "young", {"cmta": 1.0, "age": 1.0}, folds=1, evaluate=False)
    composed = report.compose(read(run))
    assert composed.lead == "Nothing can be concluded yet: 1 unit of cmta is finished."
    assert "not evaluated" in composed.notice
    for unit in run.glob("*/fold*"):
        (unit / "done.json").unlink()
    page = Page(report.write(run).read_text())
    assert "There is no finished unit to draw yet." in page.words
    assert page.breaches == []


def test_a_folder_with_nothing_but_a_config_has_a_page_and_lists_its_arms(tmp_path: Path):
    run = write_run(tmp_path / "empty", {"cmta": 1.0, "age": 1.0}, folds=0, evaluate=False)
    (run / "environment.json").unlink()
    results = read(run)
    assert results.open == ["age", "cmta"]
    assert Page(report.write(run).read_text()).breaches == []


def test_a_fold_that_chose_not_to_train_counts_in_the_epoch_figure_with_its_result(tmp_path: Path):
    run = write_run(tmp_path / "nested", {"core": 1.0, "age": 2.0})
    (run / "core" / "fold1-seed1" / "epochs.csv").write_text("epoch,train_loss,c_index\n")
    results = read(run)
    shown = {figure.key: figure for figure in report.all_figures(results, "core")}["epochs"]
    ends = [pd.read_csv(run / "core" / f"fold{k}-seed1" / "epochs.csv")["c_index"].iloc[-1] for k in (0, 2)]
    assert results.summary is not None
    own = results.summary.query("arm == 'core' and metric == 'c_index' and fold == '1'")["value"].iloc[0]
    assert f"last {np.mean([*ends, own]):.3f}" in shown.alt


def test_an_arm_that_was_left_out_is_told_and_not_awaited(tmp_path: Path):
    run = write_run(tmp_path / "genes", {"core": 1.0, "slides alone (ABMIL)": 1.0, "age": 2.0})
    shutil.rmtree(run / "slides alone (ABMIL)")
    assert report.compose(read(run)).notice.startswith("This run is not complete: 6 of 7 units done")
    (run / LEFT_OUT).write_text('{"slides alone (ABMIL)": "ABMIL reads slides, but the cohort has none"}')
    composed = report.compose(read(run))
    assert composed.notice == ""
    told = "slides alone (ABMIL) was not run: ABMIL reads slides, but the cohort has none."
    assert told in Page(composed.html()).words


def test_no_other_arm_takes_the_place_of_a_model_that_failed(tmp_path: Path):
    run = write_run(tmp_path / "failed", {"cmta": 1.0, "ridge": 1.0, "age": 2.0}, folds=2, evaluate=False)
    for unit in (run / "cmta").iterdir():
        (unit / "done.json").unlink()
        (unit / "error.txt").write_text("ValueError: boom")
    evaluate_run(run, draws=20)
    composed = report.compose(read(run), "cmta")
    assert composed.lead == "Nothing can be concluded yet: no unit of cmta is finished."
    page = Page(report.write(run, "cmta").read_text())
    assert page.breaches == []
    assert "own" not in {row.get("class") for row in page.all("tr")}
    assert "ridge" in page.words


def test_one_fold_is_told_as_all_patients(tmp_path: Path):
    run = write_run(tmp_path / "one", {"cmta": 1.0, "age": 2.0}, folds=1)
    scores = Scores.of_summary(read(run).summary, "cmta")
    assert scores.over == "pooled"
    assert "folds" not in {path.stem for path in report.plot(run)}


def test_an_undefined_number_stands_in_the_table_with_its_reason():
    rows = [
        {"arm": "a", "fold": fold, "metric": "ibs", "value": float("nan"), "low": float("nan"), "high": float("nan"),
         "n": 9, "events": 2, "note": note}
        for fold, note in (("0", "x"), ("mean", "over 0 of 5 folds (undefined: 0)"), ("pooled", "undefined: no curves"))
    ]  # fmt: skip
    table = headline(Scores(pd.DataFrame(rows), "a"), "nine patients")
    assert table.rows[0].cells["Brier ↓"].text == "undefined"
    assert table.rows[0].cells["Brier ↓"].note == "no curves"


def test_differences_are_written_like_every_other_number():
    said = sentence("a is better than b-2.0 on this cohort (difference +.019, 95 % interval -.021 to +.068)")
    assert said == "a is better than b-2.0 on this cohort (difference +0.019, 95 % interval −0.021 to +0.068)."


def test_metrics_without_a_better_side_carry_no_arrow():
    assert title("c_index")[0] == "C-index ↑"
    assert title("ibs")[0] == "Brier ↓"
    assert title("logrank_p")[0] == "Log-rank"
    assert title("auc_36m") == ("AUC ↑", "at 36 months")
    assert title("something_new")[0].startswith("something_new")


def test_what_is_not_there_is_named(tmp_path: Path, run: Path):
    with pytest.raises(RunError, match="not a run folder"):
        report.write(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no arm 'cmtb'; there are 'cmta', 'ridge', 'age'"):
        report.write(run, "cmtb")
