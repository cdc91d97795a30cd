"""The table of all metrics: its shape, its averages, and what it says where a metric does not exist."""

import numpy as np
import pandas as pd
import pytest

from data.errors import DataError
from tasks.survival.concordance import harrell
from tasks.survival.follow_up import FollowUp
from tasks.survival.metrics import COLUMNS, compare_arms, evaluate, higher_is_better, rank

MONTHS = np.arange(0.0, 73.0, 6.0)


def study(n: int = 150, folds: int = 3, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Predictions and curves of an arm that knows the hazard and of one that collapsed, and the training follow-up."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=n)
    rate = 0.02 * np.exp(risk)
    died, left = rng.exponential(1 / rate), rng.uniform(5, 120, size=n)
    base = pd.DataFrame(
        {
            "fold": np.arange(n) % folds,
            "case_id": [f"P{i:03d}" for i in range(n)],
            "time": np.minimum(died, left) + 0.01,
            "event": died <= left,
        }
    )
    truth, flat = base.assign(arm="truth", risk=risk), base.assign(arm="flat", risk=-2.25)
    grid = pd.DataFrame(np.exp(-rate[:, None] * MONTHS), columns=[f"{month:g}" for month in MONTHS])
    curves = pd.concat([truth[["arm", "fold", "case_id"]], grid], axis=1)
    training = pd.concat([base[base["fold"] != fold].assign(fold=fold) for fold in range(folds)])
    return pd.concat([truth, flat], ignore_index=True), curves, training


def row(table: pd.DataFrame, arm: str, fold: str, metric: str) -> pd.Series:
    found = table[(table["arm"] == arm) & (table["fold"] == fold) & (table["metric"] == metric)]
    assert len(found) == 1
    return found.iloc[0]


def test_every_arm_has_every_metric_on_every_fold_with_its_counts():
    predictions, curves, training = study()
    table = evaluate(predictions, curves, training, draws=50)
    assert tuple(table.columns) == COLUMNS
    pooled = table[table["fold"] == "pooled"]
    assert set(pooled[pooled["arm"] == "truth"]["metric"]) == set(pooled[pooled["arm"] == "flat"]["metric"])
    assert set(table["fold"]) == {"0", "1", "2", "mean", "pooled"}
    assert (pooled["n"] == 150).all()
    assert (pooled["events"] == study()[0]["event"].sum() / 2).all()
    known = table.dropna(subset=["low"])
    assert (known["low"] <= known["value"] + 1e-12).mean() > 0.95
    assert table.loc[table["value"].isna(), "note"].str.len().min() > 0


def test_the_mean_is_the_mean_of_the_folds_and_pooled_is_all_at_once():
    predictions, curves, training = study()
    table = evaluate(predictions, curves, training, draws=0)
    for metric in ("c_index", "c_uno", "ibs", "auc_12m"):
        folds = [row(table, "truth", str(fold), metric)["value"] for fold in range(3)]
        assert row(table, "truth", "mean", metric)["value"] == pytest.approx(np.mean(folds))
    own = predictions[predictions["arm"] == "truth"]
    once = harrell(FollowUp.of(own["time"], own["event"]), own["risk"].to_numpy())[0]
    assert row(table, "truth", "pooled", "c_index")["value"] == pytest.approx(once)


def test_the_truth_beats_kaplan_meier_and_is_calibrated():
    table = evaluate(*study(600), draws=100)
    assert row(table, "truth", "mean", "c_index")["low"] > 0.6
    assert row(table, "truth", "pooled", "ibs_skill")["low"] > 0
    assert row(table, "truth", "pooled", "d_calibration_p")["value"] > 0.01
    assert row(table, "truth", "pooled", "logrank_p")["value"] < 1e-6


def test_a_collapsed_arm_is_named_and_left_alone():
    table = evaluate(*study(), draws=50)
    for fold in ("0", "pooled"):
        collapsed = row(table, "flat", fold, "c_index")
        assert collapsed["value"] == 0.5
        assert collapsed["note"].startswith("collapsed: all ")
    assert row(table, "flat", "mean", "c_index")["note"] == "collapsed on fold 0, 1, 2"
    assert row(table, "flat", "0", "logrank_p")["note"] == "undefined: all patients fall into one risk group"
    assert row(table, "flat", "pooled", "ibs")["note"] == "undefined: no survival curves were predicted"


def test_an_inverted_ranking_is_named_and_not_flipped():
    predictions, _, _ = study()
    table = rank(predictions.assign(risk=-predictions["risk"]), draws=200)
    inverted = row(table, "truth", "pooled", "c_index")
    assert inverted["high"] < 0.5
    assert inverted["note"].startswith("inverted: patients are ranked the wrong way round")


def test_a_fold_without_events_is_nan_with_the_reason_and_the_mean_says_so():
    predictions, curves, training = study()
    predictions.loc[predictions["fold"] == 1, "event"] = False
    table = evaluate(predictions, curves, training, draws=20)
    empty = row(table, "truth", "1", "c_index")
    assert np.isnan(empty["value"])
    assert empty["note"] == "undefined: none of the 50 patients had the event"
    mean = row(table, "truth", "mean", "c_index")
    assert np.isfinite(mean["value"])
    assert mean["note"] == "over 2 of 3 folds (undefined: 1)"


def test_risks_that_are_not_numbers_and_late_landmarks_are_reasons_not_crashes():
    predictions, curves, training = study()
    predictions.loc[0, "risk"] = np.nan
    table = evaluate(predictions, curves, training, draws=5, landmarks=(12.0, 500.0))
    assert row(table, "truth", "0", "c_index")["note"] == "undefined: 1 of 50 risks are not finite numbers"
    assert "fewer than 10 % of the training patients" in row(table, "truth", "1", "auc_500m")["note"]
    assert np.isfinite(row(table, "truth", "1", "c_index")["value"])


def test_two_patients_are_enough_not_to_crash():
    two = pd.DataFrame(
        {"arm": "a", "fold": 0, "case_id": ["x", "y"], "time": [3.0, 4.0], "event": [1, 0], "risk": [1.0, 0.0]}
    )
    table = evaluate(two, None, two[["fold", "time", "event"]], draws=10)
    assert row(table, "a", "0", "c_index")["value"] == 1.0
    assert "mean" not in set(table["fold"])


def test_seeds_are_averaged_and_their_spread_is_told():
    predictions, _, _ = study()
    truth = predictions[predictions["arm"] == "truth"]
    noisy = truth.assign(risk=truth["risk"] + np.random.default_rng(1).normal(size=len(truth)))
    two = pd.concat([truth.assign(seed=1), noisy.assign(seed=2)])
    both = row(rank(two, draws=10), "truth", "mean", "c_index")
    single = [row(rank(own, draws=0), "truth", "mean", "c_index")["value"] for own in (truth, noisy)]
    assert both["value"] == pytest.approx(np.mean(single))
    assert row(rank(two, draws=10), "truth", "0", "c_index")["note"].startswith("2 seeds, sd .")
    assert both["n"] == 150


def test_arms_are_compared_on_the_cases_both_scored():
    predictions, _, _ = study()
    outcome = compare_arms(predictions, "truth", "flat", draws=200)
    assert outcome.difference.low > 0
    assert outcome.sentence.startswith("truth is better than flat on this cohort (difference +.")
    only = predictions.drop(predictions[(predictions["arm"] == "flat") & (predictions["fold"] == 2)].index)
    assert compare_arms(only, "truth", "flat", draws=10).n == 100
    assert compare_arms(predictions, "truth", "truth", draws=10).difference.high == 0


def test_order_of_cases_and_a_second_arm_change_nothing():
    predictions, curves, training = study()
    table = evaluate(predictions, curves, training, draws=30)
    shuffled = evaluate(
        predictions.iloc[::-1].sort_values("arm", ascending=False, kind="stable"),
        curves.sample(frac=1, random_state=4),
        training,
        draws=30,
    )
    pd.testing.assert_frame_equal(table, shuffled)
    alone = evaluate(predictions[predictions["arm"] == "truth"], curves, training, draws=30)
    pd.testing.assert_frame_equal(table[table["arm"] == "truth"].reset_index(drop=True), alone)


def test_which_way_is_up():
    assert higher_is_better("auc_12m")
    assert not higher_is_better("ibs")
    assert higher_is_better("ibs_skill")
    assert not higher_is_better("calibration_error_12m")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p, c, t: (p.drop(columns="risk"), c, t), "predictions: no column risk; it has fold"),
        (lambda p, c, t: (p.iloc[:0], c, t), "predictions: no rows"),
        (lambda p, c, t: (pd.concat([p, p[:1]]), c, t), "case P000 stands twice in arm truth, fold 0, seed 0"),
        (lambda p, c, t: (p.assign(time=-p["time"]), c, t), "expected months above zero"),
        (lambda p, c, t: (p, c, t[t["fold"] != 1]), "training: no patients for fold 1"),
        (lambda p, c, t: (p, c.rename(columns={"6": "six"}), t), "column 'six' is not a month"),
        (lambda p, c, t: (p, c[["arm", "fold", "case_id", "12", "6"]], t), "one column per month, in rising order"),
        (lambda p, c, t: (p.assign(event=p["event"] & (p["arm"] == "flat")), c, t), "has different outcomes"),
        (lambda p, c, t: (p, pd.concat([c, c[:1]]), t), "curves: case P000 stands twice"),
    ],
)
def test_broken_tables_are_refused_by_name(change, said: str):
    with pytest.raises(DataError, match=said):
        evaluate(*change(*study()), draws=0)


def test_arms_that_share_nothing_are_not_compared():
    predictions, _, _ = study()
    with pytest.raises(DataError, match="no arm 'deep'; there are 'truth', 'flat'"):
        compare_arms(predictions, "truth", "deep")
    apart = predictions[(predictions["arm"] == "truth") == (predictions["fold"] == 0)]
    with pytest.raises(DataError, match="truth and flat scored no case in the same fold"):
        compare_arms(apart, "truth", "flat")
