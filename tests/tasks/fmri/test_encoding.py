"""Encoding and reconstruction: closed forms equal peers, planted voxels are found, noise is not."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import PredefinedSplit

from data.brain.brain import Brains
from data.brain.splits import LeaveRunsOut
from data.errors import DataError
from tasks.experiment.signatures import ConfigError
from tasks.fmri.encoding import encode, fit_voxels
from tasks.fmri.reconstruction import Network, feature_two_way, pix_corr, reconstruction_metrics, ssim
from tasks.fmri.ridge import hat_matrix, ridge_cv, ridge_weights
from tests.tasks.fmri.made import blocks

ALPHAS = (0.1, 1.0, 10.0, 100.0, 1000.0)
ONE_HOT = {"classes": np.eye(4)}


def planted(voxels: int = 20, coded: int = 8) -> Brains:
    """The first voxels respond to classes, the others to nothing."""
    brains = blocks(runs=8, voxels=voxels, signal=2.0)
    own = brains.subjects["01"]
    x = own.x.copy()
    x[:, coded:] = np.random.default_rng(5).standard_normal((len(x), voxels - coded))
    return replace(brains, subjects={"01": replace(own, x=x)})


def regression(n: int, features: int, targets: int = 30) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    x = draw.standard_normal((n, features)) + 3
    y = x @ draw.standard_normal((features, targets)) * np.logspace(-2, 0, targets)
    return x, y + draw.standard_normal((n, targets)) - 2


@pytest.mark.parametrize(("n", "features"), [(60, 15), (40, 90)])
def test_ridge_with_chosen_penalties_is_that_of_himalaya(n: int, features: int):
    himalaya = pytest.importorskip("himalaya.ridge")
    x, y = regression(n, features)
    fold = np.arange(n) * 5 // n
    ours = ridge_cv(x, y, ALPHAS, fold)
    theirs = himalaya.RidgeCV(
        np.array(ALPHAS), cv=PredefinedSplit(fold), fit_intercept=True, solver_params={"warn": False}
    ).fit(x, y)
    assert len(set(ours.alpha)) > 1
    np.testing.assert_allclose(ours.alpha, theirs.best_alphas_)
    np.testing.assert_allclose(ours.weights, theirs.coef_, atol=1e-8)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), atol=1e-7)


@pytest.mark.parametrize(("n", "features"), [(60, 15), (40, 90)])
def test_closed_forms_are_ridge_regression(n: int, features: int):
    x, y = regression(n, features)
    expected = Ridge(7.0).fit(x, y)
    centred = x - x.mean(axis=0)
    np.testing.assert_allclose(ridge_weights(centred, y - y.mean(axis=0), 7.0), expected.coef_.T, atol=1e-8)
    new = np.random.default_rng(1).standard_normal((9, features))
    hat = hat_matrix(centred, new - x.mean(axis=0), 7.0)
    np.testing.assert_allclose(hat @ y, expected.predict(new), atol=1e-7)
    np.testing.assert_allclose(hat.sum(axis=1), 1)


def test_a_penalty_without_end_predicts_the_mean():
    x, y = regression(40, 10)
    fitted = ridge_cv(x, y, (1e12,), np.arange(40) % 4)
    np.testing.assert_allclose(fitted.predict(x), np.tile(y.mean(axis=0), (40, 1)), atol=1e-6)
    with pytest.raises(ValueError, match="two folds"):
        ridge_cv(x, y, ALPHAS, np.zeros(40, dtype=int))


def test_voxels_that_code_the_classes_are_found_and_no_others():
    brains = planted()
    found = encode(brains, LeaveRunsOut().splits(brains), ONE_HOT)["01"]
    assert (found.r[:8] > found.p95).sum() >= 7
    assert (found.r[8:] < found.p95).sum() >= 11
    assert found.n == 32
    assert found.significant >= 7


def test_features_that_mean_nothing_predict_nothing():
    brains = planted()
    flat = {"noise": np.ones((4, 3)) * np.arange(3)}
    found = encode(brains, LeaveRunsOut().splits(brains), flat, permutations=20)["01"]
    assert not (found.r > 0.5).any()


def test_noise_is_not_predicted_below_zero_either():
    """Over all folds at once its mean correlation would be -.2: training and held-out means lean opposite ways."""
    brains = blocks(runs=8, voxels=400, signal=0.0)
    found = encode(brains, LeaveRunsOut().splits(brains), ONE_HOT, permutations=0)["01"]
    assert abs(found.r.mean()) < 4 * found.r.std() / np.sqrt(400)


def test_banded_ridge_silences_the_band_that_says_nothing():
    pytest.importorskip("himalaya")
    draw = np.random.default_rng(0)
    told, noise = draw.standard_normal((80, 4)), draw.standard_normal((80, 60))
    y = told @ draw.standard_normal((4, 10)) + 0.5 * draw.standard_normal((80, 10))
    runs = [f"run{k // 10}" for k in range(80)]
    train, test = np.arange(60), np.arange(60, 80)
    banded = fit_voxels([told[train], noise[train]], y[train], ALPHAS, [runs[k] for k in train])
    single = fit_voxels([np.hstack([told, noise])[train]], y[train], ALPHAS, [runs[k] for k in train])
    errors = [
        np.mean((y[test] - predicted) ** 2)
        for predicted in (banded([told[test], noise[test]]), single([np.hstack([told, noise])[test]]))
    ]
    assert errors[0] < errors[1]


def test_two_bands_end_to_end():
    pytest.importorskip("himalaya")
    brains = planted()
    spaces = ONE_HOT | {"noise": np.random.default_rng(0).standard_normal((4, 2))}
    found = encode(brains, LeaveRunsOut(2).splits(brains), spaces, permutations=50)["01"]
    assert found.r[:8].mean() > 0.7


def test_what_encoding_needs_is_said(monkeypatch: pytest.MonkeyPatch):
    brains = planted()
    splits = LeaveRunsOut().splits(brains)
    with pytest.raises(DataError, match="features short: 3 rows for 4 candidates"):
        encode(brains, splits, {"short": np.eye(3)})
    with pytest.raises(DataError, match="found one run only"):
        fit_voxels([np.eye(4)], np.eye(4), ALPHAS, ["a"] * 4)
    monkeypatch.setitem(sys.modules, "himalaya.ridge", None)
    with pytest.raises(ConfigError, match=r"2 feature spaces need banded ridge; install the extra"):
        encode(brains, splits, ONE_HOT | {"more": np.eye(4)})


def test_a_perfect_picture_is_perfect_and_another_is_not():
    draw = np.random.default_rng(0)
    shown = draw.random((6, 32, 32, 3))
    perfect = reconstruction_metrics(shown, shown, {"mean": Network(lambda p: p.mean(axis=3).reshape(len(p), -1))})
    assert list(perfect.columns) == ["PixCorr", "SSIM", "mean"]
    np.testing.assert_allclose(perfect.to_numpy(), 1)
    assert np.abs(pix_corr(shown[::-1], shown)).max() < 0.1
    assert ssim(shown[::-1], shown).max() < 0.3
    distance = reconstruction_metrics(shown, shown, {"d": Network(lambda p: p.reshape(len(p), -1), "distance")})
    np.testing.assert_allclose(distance["d"], 0, atol=1e-12)


def test_random_features_win_half_of_their_pairs():
    draw = np.random.default_rng(0)
    won = [feature_two_way(draw.standard_normal((30, 20)), draw.standard_normal((30, 20))).mean() for _ in range(60)]
    assert np.mean(won) == pytest.approx(0.5, abs=0.03)


def test_pictures_must_fit_each_other():
    with pytest.raises(DataError, match=r"reconstructions \(2, 8, 8, 3\) for originals \(2, 9, 9, 3\)"):
        pix_corr(np.zeros((2, 8, 8, 3)), np.zeros((2, 9, 9, 3)))
    with pytest.raises(DataError, match="between 0 and 1; divide 8-bit values by 255"):
        ssim(np.full((1, 8, 8, 3), 200.0), np.zeros((1, 8, 8, 3)))
