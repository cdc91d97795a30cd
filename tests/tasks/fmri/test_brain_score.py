"""Brain-Score: its exact laws, the known answer on simulated assemblies, and what must be nan."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.errors import DataError
from tasks.fmri.brain_score import (
    brain_score,
    internal_consistency,
    layer_features,
    pearson_of_units,
    spearman_brown,
)


def assembly(
    n: int = 200, features: int = 8, units: int = 12, repeats: int = 10, noise: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Responses that are linear in the features, plus noise of its own in every repeat."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((n, features))
    signal = x @ draw.standard_normal((features, units)) / np.sqrt(features)
    return x, signal[:, None] + noise * draw.standard_normal((n, repeats, units))


def test_all_components_are_least_squares():
    x, y = assembly(repeats=2)
    mean = y.mean(axis=1)
    ours = brain_score(x, mean, components=8, splits=1)
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import ShuffleSplit

    train, test = next(ShuffleSplit(1, train_size=0.9, random_state=1).split(x))
    predicted = LinearRegression().fit(x[train], mean[train]).predict(x[test])
    np.testing.assert_allclose(ours.units, pearson_of_units(predicted, mean[test]), atol=1e-8)


def test_a_complete_model_reaches_one_whatever_the_noise():
    for noise in (0.5, 2.0):
        x, y = assembly(n=2000, noise=noise)
        score = brain_score(x, y)
        assert score.score == pytest.approx(1, abs=0.04)
        signal = np.var(x @ np.ones(8) / np.sqrt(8))
        assert score.ceiling == pytest.approx(signal / (signal + noise**2 / 10), abs=0.1)
        assert score.r < 1


def test_half_the_features_explain_half():
    x, y = assembly(n=2000, features=8, units=40, noise=0.5)
    assert brain_score(x[:, :4], y).score == pytest.approx(0.5, abs=0.15)


def test_features_that_know_nothing_score_nothing():
    _, y = assembly(n=1000)
    other = np.random.default_rng(9).standard_normal((1000, 8))
    assert abs(brain_score(other, y).score) < 0.02


def test_spearman_brown():
    assert spearman_brown(1.0) == 1
    assert spearman_brown(0.0) == 0
    assert spearman_brown(0.5) == pytest.approx(2 / 3)


def test_identical_repeats_have_a_ceiling_of_one():
    _, y = assembly()
    assert internal_consistency(np.repeat(y[:, :1], 6, axis=1)) == pytest.approx(1)


def test_the_order_of_units_changes_nothing():
    x, y = assembly()
    order = np.random.default_rng(3).permutation(12)
    before, after = brain_score(x, y), brain_score(x, y[..., order])
    assert after.score == pytest.approx(before.score, abs=1e-9)
    np.testing.assert_allclose(after.units, before.units[order], atol=1e-9)


def test_an_affine_change_of_any_unit_changes_nothing():
    """With as many components as features; with fewer, a louder unit has more say in what the components are."""
    x, y = assembly()
    scale = np.exp(np.random.default_rng(3).standard_normal(12))
    before, after = (brain_score(x, responses) for responses in (y, y * scale + 5))
    assert after.score == pytest.approx(before.score, abs=1e-8)


def test_responses_that_do_not_repeat_give_nan_and_a_warning():
    draw = np.random.default_rng(0)
    x, y = draw.standard_normal((60, 4)), draw.standard_normal((60, 2, 5))
    y[:, 1] = -y[:, 0] + 0.5 * y[:, 1]
    with pytest.warns(UserWarning, match="responses do not repeat"):
        score = brain_score(x, y)
    assert np.isnan(score.score)
    assert score.ceiling < 0


def test_without_repeats_there_is_an_r_and_no_score():
    x, y = assembly()
    score = brain_score(x, y.mean(axis=1))
    assert np.isnan(score.score)
    assert score.r > 0.9
    assert score.note == "no repeats, so no ceiling"
    with pytest.raises(DataError, match="at least two repeats of every stimulus, found 1"):
        brain_score(x, y[:, :1])


def test_constant_units_are_excluded_and_counted():
    x, y = assembly()
    y[..., 2] = 7.0
    score = brain_score(x, y)
    assert score.excluded == 1
    assert np.isnan(score.units[2])
    assert "1 constant units excluded" in score.note
    assert score.score == pytest.approx(1, abs=0.1)


def test_objects_stratify_the_splits_and_stimuli_must_agree():
    x, y = assembly()
    objects = [f"object{k % 10}" for k in range(200)]
    assert brain_score(x, y, objects).score == pytest.approx(1, abs=0.1)
    with pytest.raises(DataError, match="199 stimuli with features and 200 with responses"):
        brain_score(x[:-1], y)


def test_the_features_of_a_layer_are_what_it_computes():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Flatten())
    images = torch.randn(5, 3, 6, 6)
    features = layer_features(net, "1", images, batch=2)
    np.testing.assert_allclose(features, net[1](net[0](images)).detach().flatten(1).double().numpy(), rtol=1e-6)
    assert net.training
    with pytest.raises(DataError, match="the model has no layer 'conv9'; it has 0, 1, 2, 3"):
        layer_features(net, "conv9", images)


def test_what_cannot_be_scored_is_said():
    draw = np.random.default_rng(0)
    with pytest.raises(DataError, match="9 stimuli; Brain-Score needs at least 10 to hold some out"):
        brain_score(draw.standard_normal((9, 3)), draw.standard_normal((9, 4)))
    broken = draw.standard_normal((12, 4))
    broken[3, 1] = np.nan
    with pytest.raises(DataError, match="responses hold NaN or infinite values; leave those stimuli or units out"):
        brain_score(draw.standard_normal((12, 3)), broken)
