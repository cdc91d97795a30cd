"""StainTexture: scikit-image's definitions, symmetries, and a patch's features from that patch alone."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from skimage.color import rgb2hed
from skimage.feature import graycomatrix, graycoprops

from encoders.patch import StainTexture
from encoders.patch.stain_texture import ANGLES, DISTANCES, LEVELS, PROPERTIES, _co_occurrence, unmix


@pytest.fixture
def patches() -> np.ndarray:
    rng = np.random.default_rng(7)
    smooth = rng.integers(60, 230, (5, 16, 16, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def test_stains_are_those_of_scikit_image(patches: np.ndarray):
    encoder = StainTexture()
    ours = unmix(encoder.density(patches[0].transpose(2, 0, 1)))
    np.testing.assert_allclose(ours.transpose(1, 2, 0), rgb2hed(patches[0]), atol=2e-6)


def test_co_occurrence_is_that_of_scikit_image():
    plane = np.random.default_rng(0).integers(0, LEVELS, (40, 33), dtype=np.uint8)
    matrix = graycomatrix(plane, DISTANCES, ANGLES, LEVELS, symmetric=True, normed=True)
    want = np.concatenate([graycoprops(matrix, name).mean(axis=1) for name in PROPERTIES])
    np.testing.assert_allclose(_co_occurrence(plane), want, rtol=1e-9)


def test_a_patch_has_the_same_features_in_any_company(patches: np.ndarray):
    encoder = StainTexture()
    together = encoder(patches)
    assert together.shape == (5, encoder.width)
    assert together.dtype == np.float32
    assert np.isfinite(together).all()
    for index in range(5):
        assert np.array_equal(encoder(patches[index : index + 1])[0], together[index])
    assert np.array_equal(StainTexture()(patches), together)
    assert encoder(patches[:0]).shape == (0, encoder.width)


def test_mirrored_and_turned_patches_have_nearly_the_same_features(patches: np.ndarray):
    encoder = StainTexture()
    plain = encoder(patches)
    for turned in (patches[:, ::-1], patches[:, :, ::-1], patches.transpose(0, 2, 1, 3)):
        np.testing.assert_allclose(encoder(turned), plain, atol=0.02, rtol=0.02)


def test_features_say_what_they_are_named():
    encoder = StainTexture()
    at = {name: index for index, name in enumerate(encoder.names)}
    assert len(at) == encoder.width
    glass = np.full((1, 64, 64, 3), 255, np.uint8)
    purple = np.broadcast_to(np.array([90, 60, 140], np.uint8), (1, 64, 64, 3))
    pink = np.broadcast_to(np.array([230, 140, 180], np.uint8), (1, 64, 64, 3))
    blank, nuclei, stroma = (encoder(np.ascontiguousarray(p))[0] for p in (glass, purple, pink))
    assert blank[at["glass"]] == 1
    assert nuclei[at["glass"]] == 0
    assert blank[at["haematoxylin mean"]] == 0
    assert nuclei[at["haematoxylin mean"]] > 3 * stroma[at["haematoxylin mean"]]
    assert stroma[at["eosin mean"]] > 0
    assert nuclei[at["red mean"]] == pytest.approx(90 / 255, abs=1e-6)
    assert nuclei[at["haematoxylin deviation over 2"]] == pytest.approx(0, abs=1e-6)


def test_a_patch_too_small_to_have_texture_is_refused():
    with pytest.raises(ValueError, match="patches of 16 x 16 px: StainTexture needs at least 32 px a side"):
        StainTexture()(np.zeros((1, 16, 16, 3), np.uint8))


def test_reading_processes_need_no_torch():
    code = "import sys, encoders.patch, data.slides.survey, data.slides.reading; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
