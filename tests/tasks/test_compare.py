"""Paired comparison, the best-epoch rule, and what noise reaches under it."""

import numpy as np
import pandas as pd
import pytest

from tasks.experiment.compare import (
    best_epoch_rule,
    best_of_noise,
    paired_difference,
    percentile_interval,
    resample,
    signed,
)


def test_resamples_start_with_the_sample_and_keep_its_size():
    counts = resample(30, 200, seed=1)
    assert (counts[0] == 1).all()
    assert (counts.sum(axis=1) == 30).all()
    assert counts[1:].mean() == 1
    np.testing.assert_array_equal(counts, resample(30, 200, seed=1))
    with pytest.raises(ValueError, match="cannot resample n=0 cases"):
        resample(0)


def test_the_interval_of_a_mean_is_the_normal_one():
    x = np.random.default_rng(0).normal(size=400)
    found = percentile_interval(resample(400, 4000) @ x / 400)
    half = 1.96 * x.std() / 20
    assert found.value == pytest.approx(x.mean())
    assert found.low == pytest.approx(x.mean() - half, abs=0.01)
    assert found.high == pytest.approx(x.mean() + half, abs=0.01)


def test_undefined_resamples_are_counted_and_too_many_leave_no_interval():
    few = percentile_interval(np.array([1.0, 1.0, 2.0, np.nan]))
    assert (few.undefined, few.low > 0) == (1, True)
    many = percentile_interval(np.array([1.0, 1.0, np.nan, np.nan]))
    assert np.isnan(many.low)
    assert np.isnan(percentile_interval(np.array([0.7])).low)


def test_pairing_finds_a_small_difference_that_two_intervals_hide():
    rng = np.random.default_rng(1)
    base = rng.normal(size=200)
    counts = resample(200)
    b, a = counts @ base / 200, counts @ (base + 0.1 + 0.05 * rng.normal(size=200)) / 200
    assert percentile_interval(a).low < percentile_interval(b).high
    outcome = paired_difference("fusion", "genes alone", a, b, metric="score", n=200)
    assert outcome.difference.excludes_zero
    assert outcome.sentence.startswith("fusion is better than genes alone on this cohort (difference +.0")
    worse = paired_difference("fusion", "genes alone", a, b, metric="error", n=200, higher_is_better=False)
    assert worse.sentence.startswith("fusion is worse than genes alone")


def test_the_sentence_says_when_nothing_can_be_told():
    a, b = np.array([0.604, 0.579, 0.63]), np.array([0.6, 0.6, 0.6])
    same = paired_difference("fusion", "genes alone", a, b, metric="c_index", n=10, level=0.99)
    assert same.sentence == (
        "fusion is not distinguishable from genes alone on this cohort (difference +.004, 99 % interval -.021 to +.030)"
    )
    undefined = paired_difference("a", "b", np.full(3, np.nan), b, metric="c_index", n=10)
    assert "the metric is undefined for at least one of them" in undefined.sentence
    with pytest.raises(ValueError, match="a has 2 draws, b has 3"):
        paired_difference("a", "b", np.ones(2), np.ones(3), metric="c_index", n=10)


def test_differences_are_written_with_their_sign():
    assert [signed(v) for v in (0.004, -0.0214, 1.5, 0.0)] == ["+.004", "-.021", "+1.500", "+.000"]


def test_best_epoch_is_never_below_the_last():
    epochs = pd.DataFrame({"fold": [0, 0, 0, 1, 1], "epoch": [2, 0, 1, 0, 1], "c": [0.5, 0.7, 0.6, np.nan, 0.4]})
    table = best_epoch_rule(epochs, "c")
    assert table["last"].tolist() == [0.5, 0.4]
    assert table["best_epoch"].tolist() == [0, 1]
    assert table["gain"].tolist() == pytest.approx([0.2, 0.0])
    with pytest.raises(ValueError, match="epoch table has no column val; it has fold, epoch, c"):
        best_epoch_rule(epochs, "val")


def test_noise_of_one_epoch_is_chance_and_more_epochs_only_help():
    def agreement(random: np.ndarray) -> np.ndarray:
        return (random > 0).mean(axis=1)

    reached = [best_of_noise([agreement] * 3, [50] * 3, epochs=e, repeats=200).value for e in (1, 5, 30)]
    assert reached[0] == pytest.approx(0.5, abs=0.01)
    assert reached[0] < reached[1] < reached[2]
    # The expected largest of 30 standard normals is 2.04.
    assert reached[2] == pytest.approx(0.5 + 2.04 * 0.5 / np.sqrt(50), abs=0.015)
    mixed = best_of_noise([agreement] * 2, [50] * 2, epochs=[1, 30], repeats=200).value
    assert mixed == pytest.approx((reached[0] + reached[2]) / 2, abs=0.01)
    with pytest.raises(ValueError, match="1 scores for 2 folds"):
        best_of_noise([agreement], [50, 50])
