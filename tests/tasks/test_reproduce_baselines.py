"""The reproductions that need no training: every row holds on the real data, and missing data is said in one line."""

from pathlib import Path

import pytest

from data.errors import DataError
from tasks.reproduce import mcat_predictions, survival_baselines
from tasks.reproduce.rows import at_least, close, result


def test_published_mcat_risks_score_as_published(shared_data: Path):
    outcome = mcat_predictions.run(shared_data / "tcga", small=True)
    assert [row["name"] for row in outcome["rows"] if not row["ok"]] == []
    assert outcome["ok"]
    assert outcome["paper"] == "mcat-predictions"
    names = [row["name"] for row in outcome["rows"]]
    assert sum("fold-mean" in name and name.startswith("MCAT") for name in names) == 5
    assert sum("pooled" in name for name in names) == 5
    assert all(row["note"] for row in outcome["rows"])


def test_baselines_on_two_real_cohorts(shared_data: Path):
    outcome = survival_baselines.run(shared_data / "tcga", small=True)
    assert [row["name"] for row in outcome["rows"] if not row["ok"]] == []
    assert [row["name"] for row in outcome["rows"]] == [
        "age gbmlgg",
        "ridge + age gbmlgg",
        "age ucec",
        "ridge + age ucec",
    ]
    first = outcome["rows"][0]
    assert "187 events, 5 folds" in first["note"]
    assert first["n"] == 569
    assert first["low"] < first["ours"] < first["high"]


@pytest.mark.slow
def test_all_five_cohorts_reach_the_bar(shared_data: Path):
    outcome = survival_baselines.run(shared_data / "tcga")
    mean = next(row for row in outcome["rows"] if row["name"].startswith("mean"))
    assert mean["ours"] >= 0.675


@pytest.mark.parametrize("paper", [mcat_predictions, survival_baselines])
def test_missing_data_names_the_import(paper, tmp_path: Path):
    with pytest.raises(DataError, match=r"no such file or folder; .*`fusion data import tcga --from FOLDER`"):
        paper.run(tmp_path)


def test_rows_hold_within_their_tolerance_and_nothing_undefined_holds():
    assert close("a", 0.6, 0.6001, 1e-4, "", kind="published")["ok"]
    assert not close("a", 0.6, 0.6002, 1e-4, "", kind="published")["ok"]
    assert not close("a", 0.6, float("nan"), 1.0, "", kind="published")["ok"]
    assert at_least("a", 0.6, 0.9, 0.01, "", kind="published")["ok"]
    assert not at_least("a", 0.6, float("nan"), 0.01, "", kind="published")["ok"]
    assert not result("p", [])["ok"]


def test_the_bar_is_of_processor_time_whatever_the_clock_says():
    busy = survival_baselines._seconds(400.0, 20.04, 2)
    assert (busy["name"], busy["ours"], busy["ok"]) == ("seconds of processor time", 20.0, True)
    assert busy["note"] == "all five cohorts, reading and bootstrap included; 400 s by the clock with 2 jobs"
    assert not survival_baselines._seconds(35.0, 61.0, 2)["ok"], "two processes do not halve it"
