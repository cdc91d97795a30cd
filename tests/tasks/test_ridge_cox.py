"""Ridge Cox: lifelines and scikit-survival as oracles, derivatives, limits, and choosing a penalty."""

import numpy as np
import pandas as pd
import pytest
from lifelines import BreslowFlemingHarringtonFitter, CoxPHFitter
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from data.errors import DataError
from tasks.survival.follow_up import FollowUp
from tasks.survival.ridge_cox import Basis, PartialLikelihood, RidgeCox, cross_validated, event_folds, fit_in


def simulated(n: int, g: int, seed: int, tied: bool = False) -> tuple[np.ndarray, FollowUp]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, g))
    died, left = rng.exponential(20 * np.exp(-x[:, 0])), rng.exponential(30, size=n)
    time = np.minimum(died, left) + 0.01
    return x, FollowUp.of(np.ceil(time / 6) if tied else time, died <= left)


@pytest.mark.parametrize("ties", ["breslow", "efron"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("penalty", [1e-4, 0.1, 3.0])
def test_coefficients_match_scikit_survival(penalty: float, tied: bool, ties: str):
    x, outcome = simulated(80, 5, 0, tied)
    oracle = CoxPHSurvivalAnalysis(alpha=penalty * len(x), ties=ties, tol=1e-12)
    oracle.fit(x, Surv.from_arrays(outcome.event, outcome.time))
    ours = RidgeCox(penalty, ties=ties).fit(x, outcome).coefficients
    np.testing.assert_allclose(ours, oracle.coef_, atol=1e-6)


@pytest.mark.parametrize("penalty", [0.05, 1.0])
def test_coefficients_match_lifelines(penalty: float):
    x, outcome = simulated(90, 4, 1, tied=True)
    x = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)  # lifelines penalises the coefficients of scaled features
    table = pd.DataFrame(x).assign(time=outcome.time, event=outcome.event)
    oracle = CoxPHFitter(penalizer=penalty, l1_ratio=0.0).fit(
        table, "time", "event", fit_options={"precision": 1e-10, "step_size": 0.9}
    )
    ours = RidgeCox(penalty).fit(x, outcome).coefficients
    np.testing.assert_allclose(ours, oracle.params_.to_numpy(), atol=1e-5)


def test_more_features_than_patients_reach_the_same_optimum_as_the_full_problem():
    x, outcome = simulated(30, 60, 2, tied=True)
    oracle = CoxPHSurvivalAnalysis(alpha=0.5 * 30, ties="efron", tol=1e-12)
    oracle.fit(x, Surv.from_arrays(outcome.event, outcome.time))
    np.testing.assert_allclose(RidgeCox(0.5).fit(x, outcome).coefficients, oracle.coef_, atol=1e-6)


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_derivatives_are_those_of_the_value(ties: str):
    _, outcome = simulated(25, 1, 3, tied=True)
    rng = np.random.default_rng(0)
    likelihood, eta, step = PartialLikelihood(outcome, ties), rng.normal(size=25), 1e-6
    unit = np.eye(25)
    slopes = [(likelihood.value(eta + step * u) - likelihood.value(eta - step * u)) / (2 * step) for u in unit]
    np.testing.assert_allclose(likelihood.gradient(eta), slopes, atol=1e-8)
    curvature = likelihood.curvature(eta)
    for u in unit[:5]:
        slope = (likelihood.gradient(eta + step * u) - likelihood.gradient(eta - step * u)) / (2 * step)
        np.testing.assert_allclose(curvature.times(u), slope, atol=1e-8)
    assert (curvature.diagonal >= [curvature.times(u) @ u for u in unit]).all()


def test_a_shift_of_all_risks_is_not_seen():
    _, outcome = simulated(25, 1, 3)
    likelihood, eta = PartialLikelihood(outcome), np.linspace(-1, 1, 25)
    assert likelihood.value(eta + 900) == pytest.approx(likelihood.value(eta))
    np.testing.assert_allclose(likelihood.curvature(eta).times(np.ones(25)), 0, atol=1e-12)


def test_an_endless_penalty_leaves_no_coefficient_and_a_constant_feature_gets_none():
    x, outcome = simulated(60, 3, 4)
    assert np.abs(RidgeCox(1e8).fit(x, outcome).coefficients).max() < 1e-6
    x[:, 2] = 7.0
    model = RidgeCox(1e-6).fit(x, outcome)
    assert model.coefficients[2] == pytest.approx(0, abs=1e-12)
    assert np.isfinite(model.risk(x)).all()
    only = RidgeCox(1e-6).fit(np.ones((60, 1)), outcome)
    assert only.risk(np.ones((2, 1))).tolist() == [0, 0]


def test_a_basis_turns_but_does_not_bend():
    for n, g in ((20, 50), (50, 20), (20, 20)):
        x = np.random.default_rng(n).normal(size=(n, g))
        basis = Basis.of(x)
        centred = x - x.mean(axis=0)
        np.testing.assert_allclose(basis.scores @ basis.scores.T, centred @ centred.T, atol=1e-9)
        c = np.random.default_rng(1).normal(size=basis.scores.shape[1])
        np.testing.assert_allclose(centred @ basis.coefficients(x, c), basis.scores @ c, atol=1e-9)


def test_survival_without_covariates_is_breslows_own_estimator():
    _, outcome = simulated(70, 1, 5, tied=True)
    model = RidgeCox(1.0).fit(np.zeros((70, 1)), outcome)
    months = np.array([0.0, 5.0, 6.0, 13.0])
    died = [((outcome.time == t) & outcome.event).sum() / (outcome.time >= t).sum() for t in model.times]
    expected = [np.exp(-sum(d for t, d in zip(model.times, died, strict=True) if t <= month)) for month in months]
    np.testing.assert_allclose(model.survival(np.zeros((1, 1)), months)[0], expected)
    assert model.survival(np.zeros((1, 1)), np.array([1e9]))[0, 0] == pytest.approx(np.exp(-sum(died)))


def test_survival_without_ties_is_near_lifelines_nelson_aalen():
    _, outcome = simulated(70, 1, 6)
    fit = BreslowFlemingHarringtonFitter().fit(outcome.time, outcome.event)
    months = np.linspace(1, 20, 7)
    ours = RidgeCox(1.0).fit(np.zeros((70, 1)), outcome).survival(np.zeros((1, 1)), months)[0]
    np.testing.assert_allclose(ours, fit.predict(months), atol=1e-9)


def test_folds_share_the_events_evenly():
    event = np.arange(53) < 12
    fold = event_folds(event, 5, seed=0)
    assert sorted(np.bincount(fold[event])) == [2, 2, 2, 3, 3]
    assert np.ptp(np.bincount(fold)) <= 1
    assert (fold == event_folds(event, 5, seed=0)).all()


def test_a_rotation_of_the_features_leaves_the_choice_of_penalty_alone():
    x, outcome = simulated(50, 80, 7)
    penalties = (0.1, 1.0, 10.0)
    raw = cross_validated(x, outcome, penalties)
    np.testing.assert_allclose(
        cross_validated(Basis.of(x).scores, outcome, penalties), raw, atol=1e-5
    )  # Newton stops at 1e-5


def test_noise_is_shrunk_and_signal_is_not():
    x, outcome = simulated(200, 5, 8)
    noise = np.random.default_rng(9).normal(size=(200, 300))
    assert RidgeCox().fit(noise, outcome).chosen >= 10
    assert RidgeCox().fit(x, outcome).chosen <= 0.3


def test_what_cannot_be_fitted_is_said():
    x, outcome = simulated(20, 2, 10)
    with pytest.raises(DataError, match="none of the 20 patients had the event"):
        RidgeCox(1.0).fit(x, FollowUp.of(outcome.time, np.zeros(20)))
    with pytest.raises(DataError, match="needs at least 2 events and there are 1; give the penalty"):
        RidgeCox().fit(x, FollowUp.of(outcome.time, np.arange(20) == 3))
    x[4, 1] = np.nan
    with pytest.raises(DataError, match="feature 1 holds a missing or infinite value; impute it first"):
        RidgeCox(1.0).fit(x, outcome)
    with pytest.raises(ValueError, match=r"penalty=0.0 must be above zero"):
        fit_in(np.ones((20, 1)), PartialLikelihood(outcome), 0.0)
