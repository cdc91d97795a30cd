"""Kaplan-Meier, Brier score and calibration: independent programs, limits, and what a calibrated model must show."""

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test
from sksurv.metrics import integrated_brier_score
from sksurv.nonparametric import CensoringDistributionEstimator
from sksurv.util import Surv

from tasks.experiment.compare import resample
from tasks.survival.brier import brier_shares, integrated, mean_share
from tasks.survival.calibration import (
    bin_memberships,
    calibration_curve,
    calibration_error,
    calibration_groups,
    d_calibration,
    resampled_survival,
    survival_at,
    unevenness,
)
from tasks.survival.follow_up import FollowUp, censoring, kaplan_meier
from tasks.survival.risk_groups import logrank, split_at_quantiles


def exponential(n: int, seed: int) -> tuple[FollowUp, np.ndarray]:
    """Patients whose own survival curve is exp(-rate t), with independent censoring."""
    rng = np.random.default_rng(seed)
    rate = 0.02 * np.exp(rng.normal(size=n))
    died, left = rng.exponential(1 / rate), rng.exponential(60, size=n)
    return FollowUp.of(np.minimum(died, left) + 1e-6, died <= left), rate


@pytest.mark.parametrize("rounded", [False, True])
def test_kaplan_meier_matches_lifelines_and_its_reverse_scikit_survival(rounded: bool):
    outcome, _ = exponential(80, 0)
    if rounded:
        outcome = FollowUp.of(np.ceil(outcome.time / 5), outcome.event)
    months = np.linspace(0.5, outcome.time.max() - 1e-3, 40)
    lifelines = KaplanMeierFitter().fit(outcome.time, outcome.event)
    np.testing.assert_allclose(kaplan_meier(outcome).at(months), lifelines.predict(months), atol=1e-12)
    reverse = CensoringDistributionEstimator().fit(Surv.from_arrays(outcome.event, outcome.time))
    np.testing.assert_allclose(
        kaplan_meier(outcome, of_censoring=True).at(months), reverse.predict_proba(months), atol=1e-12
    )


@pytest.mark.parametrize("seed", range(3))
def test_integrated_brier_matches_scikit_survival(seed: int):
    train, _ = exponential(200, seed + 50)
    outcome, rate = exponential(80, seed)
    inside = outcome.time < train.time.max()
    outcome, rate = outcome[inside], rate[inside]
    weights = censoring(train)
    months = np.linspace(2, weights.horizon * 0.9, 15)
    months = months[months < outcome.time.max()]
    survival = np.exp(-rate[:, None] * months)
    oracle = integrated_brier_score(
        Surv.from_arrays(train.event, train.time), Surv.from_arrays(outcome.event, outcome.time), survival, months
    )
    shares = integrated(brier_shares(outcome, survival, months, weights), months)
    assert mean_share(shares, np.ones((1, len(outcome))))[0] == pytest.approx(oracle, abs=1e-9)


def test_a_perfect_prophet_has_no_brier_error_and_a_coin_a_quarter():
    outcome = FollowUp.of([5.0, 15.0, 25.0], [1, 1, 1])
    weights, months = censoring(FollowUp.of([100.0, 200.0], [1, 1])), np.array([1.0, 10.0, 20.0, 30.0])
    prophet = (outcome.time[:, None] > months).astype(float)
    assert integrated(brier_shares(outcome, prophet, months, weights), months).tolist() == [0, 0, 0]
    coin = np.full_like(prophet, 0.5)
    np.testing.assert_allclose(integrated(brier_shares(outcome, coin, months, weights), months), 0.25)


def test_the_true_curves_are_calibrated_and_distorted_ones_are_not():
    outcome, rate = exponential(4000, 1)
    true = np.exp(-rate * outcome.time)
    assert d_calibration(bin_memberships(outcome, true))[1] > 0.05
    assert d_calibration(bin_memberships(outcome, true**2))[1] < 1e-6
    at_two_years = np.exp(-rate * 24)
    once = np.ones((1, 4000))
    assert calibration_error(outcome, at_two_years, 24.0, once)[0] < 0.03
    assert calibration_error(outcome, at_two_years**2, 24.0, once)[0] > 0.1
    assert unevenness(bin_memberships(outcome, true), once)[0] < 0.01


def test_memberships_share_out_every_patient_once():
    outcome = FollowUp.of([1.0, 1.0, 1.0, 1.0], [1, 0, 0, 0])
    members = bin_memberships(outcome, np.array([1.0, 0.25, 1.0, 0.0]), bins=4)
    np.testing.assert_allclose(members, [[0, 0, 0, 1], [1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [1, 0, 0, 0]])


def test_curves_are_read_between_months():
    curve = np.array([[0.8, 0.6]])
    assert survival_at(curve, np.array([10.0, 20.0]), np.array([5.0]))[0] == pytest.approx(0.9)
    assert survival_at(curve, np.array([10.0, 20.0]), np.array([15.0]))[0] == pytest.approx(0.7)
    assert survival_at(curve, np.array([10.0, 20.0]), np.array([99.0]))[0] == pytest.approx(0.6)


def test_a_resampled_curve_is_the_curve_of_the_patients_drawn():
    outcome, _ = exponential(40, 2)
    counts = resample(40, 8, seed=0)
    for drawn, value in zip(counts, resampled_survival(outcome, 20.0, counts), strict=True):
        rows = np.repeat(np.arange(40), drawn.astype(int))
        assert value == pytest.approx(kaplan_meier(outcome[rows]).at(np.array([20.0]))[0])


def test_the_calibration_curve_and_its_error_agree():
    outcome, rate = exponential(200, 4)
    predicted = np.exp(-rate * 24)
    curve = calibration_curve(outcome, predicted, 24.0)
    assert curve["n"].sum() == 200
    assert (curve["low"] <= curve["observed"]).all()
    assert (curve["observed"] <= curve["high"]).all()
    error = ((curve["predicted"] - curve["observed"]).abs() * curve["n"]).sum() / 200
    assert calibration_error(outcome, predicted, 24.0, np.ones((1, 200)))[0] == pytest.approx(error)


def test_equal_predictions_share_a_group():
    assert len(set(calibration_groups(np.full(20, 0.7)))) == 1


def test_log_rank_matches_lifelines_for_two_groups():
    outcome, rate = exponential(120, 5)
    group = split_at_quantiles(rate)
    assert group.sum() == 60
    high = group == 1
    oracle = logrank_test(outcome.time[high], outcome.time[~high], outcome.event[high], outcome.event[~high])
    assert logrank(outcome, group)[0] == pytest.approx(oracle.p_value)


def test_log_rank_says_why_it_is_undefined():
    outcome, rate = exponential(20, 6)
    assert logrank(outcome, split_at_quantiles(np.zeros(20)))[1] == "undefined: all patients fall into one risk group"
    nobody = FollowUp.of(outcome.time, np.zeros(20))
    assert logrank(nobody, split_at_quantiles(rate))[1] == "undefined: no patient had the event"
    with pytest.raises(ValueError, match="groups=1"):
        split_at_quantiles(rate, 1)
