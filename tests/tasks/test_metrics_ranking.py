"""Harrell's and Uno's c-index and time-dependent AUC: definitions, symmetries, other programs, degenerate cases."""

import itertools

import numpy as np
import pytest
from lifelines.utils import concordance_index
from sksurv.metrics import concordance_index_censored, concordance_index_ipcw, cumulative_dynamic_auc
from sksurv.util import Surv

from data.errors import DataError
from tasks.experiment.compare import resample
from tasks.survival.concordance import describe_ranking, harrell, harrell_of_many, uno
from tasks.survival.dynamic_auc import auc_at, mean_auc
from tasks.survival.follow_up import FollowUp, censoring


def simulated(n: int, seed: int, ties: bool = False) -> tuple[FollowUp, np.ndarray]:
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=n)
    died, left = rng.exponential(30 * np.exp(-risk)), rng.exponential(40, size=n)
    time = np.minimum(died, left) + 0.01
    if ties:
        time, risk = np.ceil(time / 8), np.round(risk)
    return FollowUp.of(time, died <= left), risk


def by_definition(outcome: FollowUp, risk: np.ndarray) -> float:
    right, total = 0.0, 0
    for i, j in itertools.permutations(range(len(outcome)), 2):
        t_i, t_j = outcome.time[i], outcome.time[j]
        if outcome.event[i] and (t_i < t_j or (t_i == t_j and not outcome.event[j])):
            total += 1
            right += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    return right / total


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_harrell_matches_its_definition_lifelines_and_scikit_survival(seed: int, ties: bool):
    outcome, risk = simulated(60, seed, ties)
    ours = harrell(outcome, risk)[0]
    assert ours == pytest.approx(by_definition(outcome, risk), abs=1e-12)
    assert ours == pytest.approx(concordance_index(outcome.time, -risk, outcome.event), abs=1e-12)
    assert ours == pytest.approx(concordance_index_censored(outcome.event, outcome.time, risk)[0], abs=1e-12)


def test_a_resample_scores_like_the_patients_it_drew():
    outcome, risk = simulated(50, 3, ties=True)
    counts = resample(50, 20, seed=4)
    values = harrell(outcome, risk, counts)
    for drawn, value in zip(counts, values, strict=True):
        rows = np.repeat(np.arange(50), drawn.astype(int))
        assert value == pytest.approx(harrell(outcome[rows], risk[rows])[0], abs=1e-12)


def test_many_risks_score_like_each():
    outcome, _ = simulated(40, 0)
    risks = np.random.default_rng(1).normal(size=(6, 40))
    np.testing.assert_allclose(harrell_of_many(outcome, risks), [harrell(outcome, risk)[0] for risk in risks])


def test_ranking_does_not_see_the_scale_and_turning_it_round_mirrors_it():
    outcome, risk = simulated(80, 1, ties=True)
    value = harrell(outcome, risk)[0]
    assert harrell(outcome, np.exp(risk))[0] == value
    assert harrell(outcome, -risk)[0] == pytest.approx(1 - value, abs=1e-12)
    assert harrell(outcome, np.zeros(80))[0] == 0.5


@pytest.mark.parametrize("seed", range(4))
def test_uno_matches_scikit_survival(seed: int):
    train, _ = simulated(150, seed + 100)
    outcome, risk = simulated(70, seed)
    weights = censoring(train)
    outcome = outcome[outcome.time < train.time.max()]
    risk = risk[: len(outcome)]
    oracle = concordance_index_ipcw(
        Surv.from_arrays(train.event, train.time),
        Surv.from_arrays(outcome.event, outcome.time),
        risk,
        tau=weights.horizon,
    )[0]
    assert uno(outcome, risk, weights.of_events(outcome))[0] == pytest.approx(oracle, abs=1e-9)


def test_uno_without_censoring_in_training_is_harrell_up_to_the_horizon():
    outcome, risk = simulated(60, 2)
    everyone_died = FollowUp.of(np.linspace(1, 500, 50), np.ones(50))
    weights = censoring(everyone_died)
    assert uno(outcome, risk, weights.of_events(outcome))[0] == pytest.approx(harrell(outcome, risk)[0], abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_auc_matches_scikit_survival(seed: int):
    train, _ = simulated(150, seed + 100)
    outcome, risk = simulated(90, seed)
    inside = outcome.time < train.time.max()
    outcome, risk = outcome[inside], risk[inside]
    months = np.array([6.0, 12.0, 20.0])
    weights = censoring(train)
    assert months[-1] < weights.horizon
    each, mean = cumulative_dynamic_auc(
        Surv.from_arrays(train.event, train.time), Surv.from_arrays(outcome.event, outcome.time), risk, months
    )
    once, ipcw = np.ones((1, len(outcome))), weights.of_events(outcome)
    np.testing.assert_allclose([auc_at(outcome, risk, ipcw, month, once)[0] for month in months], each, atol=1e-9)
    assert mean_auc(outcome, risk, ipcw, months, once)[0] == pytest.approx(mean, abs=1e-9)


def test_nothing_to_compare_is_nan_not_an_error():
    outcome = FollowUp.of([3.0, 5.0, 8.0], [0, 0, 1])
    once, risk = np.ones((1, 3)), np.array([1.0, 2.0, 3.0])
    assert np.isnan(harrell(outcome, risk)[0])
    assert np.isnan(harrell_of_many(outcome, risk[None])[0])
    assert np.isnan(auc_at(outcome, risk, np.ones(3), 1.0, once)[0])
    assert np.isnan(mean_auc(outcome, risk, np.ones(3), np.array([1.0, 2.0]), once)[0])


def test_bad_rankings_are_named():
    assert "collapsed" in describe_ranking(np.full(5, -2.25), 0.6)
    assert "inverted" in describe_ranking(np.arange(5.0), 0.45)
    assert describe_ranking(np.array([1.0, np.nan]), np.nan).startswith("1 of 2 risks are not finite")
    assert describe_ranking(np.arange(5.0), 0.55) == ""


@pytest.mark.parametrize(
    ("time", "event", "said"),
    [
        ([1.0, 0.0], [1, 0], "time is 0.0 for patient 1; expected months above zero"),
        ([1.0, np.nan], [1, 0], "time is nan for patient 1"),
        ([1.0, 2.0], [1, 2], "event is .*2.*; expected True"),
        ([1.0, 2.0], [1], "times for .* events"),
    ],
)
def test_impossible_follow_up_is_refused(time: list[float], event: list[int], said: str):
    with pytest.raises(DataError, match=said):
        FollowUp.of(time, event)


def test_censoring_needs_training_patients():
    with pytest.raises(DataError, match="censoring weights need training patients and there are none"):
        censoring(FollowUp.of(np.zeros(0), np.zeros(0)))
