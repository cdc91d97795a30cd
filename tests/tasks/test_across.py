"""Several runs side by side: one column a run, and a mean that says over how many."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tasks.experiment.folder import RunError
from tasks.survival.across import UNDER_TEST, across
from tests.tasks.survival_runs import write_run


def test_the_model_under_test_is_one_row_whatever_the_runs_are_called(tmp_path: Path):
    first = write_run(tmp_path / "blca", {"blca": 0.5, "age": 2.0})
    second = write_run(tmp_path / "luad", {"luad": 1.0, "ridge": 1.0, "age": 2.0})
    rows = {row["arm"]: row for row in across([first, second])}
    assert next(iter(rows)) == UNDER_TEST
    summary = pd.read_csv(second / "summary.csv").query("metric == 'c_index' and fold == 'mean'").set_index("arm")
    assert rows[UNDER_TEST]["luad"] == pytest.approx(summary.loc["luad", "value"])
    assert rows[UNDER_TEST]["mean"] == pytest.approx((rows[UNDER_TEST]["blca"] + rows[UNDER_TEST]["luad"]) / 2)
    assert (rows[UNDER_TEST]["runs"], rows["ridge"]["runs"]) == (2, 1)


def test_runs_of_one_name_and_runs_without_a_summary_are_refused(tmp_path: Path):
    first = write_run(tmp_path / "here" / "blca", {"blca": 0.5, "age": 2.0}, folds=2)
    second = write_run(tmp_path / "there" / "blca", {"blca": 0.5, "age": 2.0}, folds=2)
    with pytest.raises(RunError, match=r"there/blca: another of these runs is called blca too"):
        across([first, second])
    (second / "summary.csv").unlink()
    with pytest.raises(RunError, match=r"not evaluated yet; survival evaluate"):
        across([second])
