"""Tissue is found where it was put, ink and glass are not tissue, and outlines enclose what the mask holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data.slides import tissue
from data.slides.generated import GLASS, ramp, stained, write_slide
from data.slides.opening import open_slide
from data.slides.outlines import outlines, patch_geojson, tissue_geojson
from data.slides.overlay import draw_overlay, value_map
from data.slides.survey import GridSettings, survey
from data.slides.tissue import TissueSettings, find_tissue, thumbnail

S = TissueSettings()


def area(ring: np.ndarray) -> float:
    """Shoelace."""
    x, y = ring[:, 0], ring[:, 1]
    return abs(float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())) / 2


def test_a_disc_of_tissue_is_found_with_its_area():
    pixels = stained(400, 300, blobs=[(0.5, 0.5, 0.35)])
    mask = find_tissue(pixels, 8.0, S)
    assert mask.sum() == pytest.approx(np.pi * 105**2, rel=0.03)
    y, x = np.mgrid[:300, :400]
    assert mask[np.hypot(x - 200, y - 150) < 100].all()
    assert not mask[np.hypot(x - 200, y - 150) > 110].any()


@pytest.mark.parametrize("noise", [0, 3])
def test_glass_alone_has_no_tissue(noise: int):
    rng = np.random.default_rng(0)
    pixels = np.clip(np.array(GLASS) + rng.normal(0, noise, (200, 300, 3)), 0, 255).astype(np.uint8)
    assert not find_tissue(pixels, 8.0, S).any()


def test_a_slide_full_of_tissue_has_no_holes():
    assert find_tissue(stained(200, 200, blobs=[(0.5, 0.5, 2.0)]), 8.0, S).all()


@pytest.mark.parametrize(
    "ink", [(20, 150, 60), (30, 90, 200), (220, 20, 40), (15, 15, 20)], ids=["green", "blue", "red", "black"]
)
def test_ink_and_black_are_left_out(ink: tuple[int, int, int]):
    pixels = stained(400, 300, blobs=[(0.3, 0.5, 0.3)])
    pixels[100:200, 300:380] = ink
    mask = find_tissue(pixels, 8.0, S)
    assert mask[150, 120]
    assert not mask[90:210, 290:390].any()


@pytest.mark.parametrize("white", [225, 120])
def test_leaving_glass_unsmoothed_changes_no_mask(white: int, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(1)
    pixels = stained(900, 500, blobs=[(0.2, 0.3, 0.2), (0.7, 0.8, 0.1)])
    pixels[300:310, 600:640] = (30, 90, 200)
    pixels[0, 0] = pixels[499, 899] = 0
    noisy = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
    settings = TissueSettings(white=white)
    found = find_tissue(noisy, 8.0, settings)
    monkeypatch.setattr(tissue, "BLOCK", 10_000)
    assert np.array_equal(found, find_tissue(noisy, 8.0, settings))
    assert 0 < found.mean() < 0.2


def test_dust_goes_and_small_holes_close():
    pixels = stained(400, 300, blobs=[(0.3, 0.5, 0.3)])
    pixels[20:30, 350:360] = (180, 90, 150)
    pixels[145:155, 115:125] = GLASS
    mask = find_tissue(pixels, 8.0, S)
    assert not mask[:60, 300:].any()
    assert mask[140:160, 110:130].all()


def test_outlines_enclose_the_area_of_the_mask_at_level_0():
    y, x = np.mgrid[:120, :160]
    distance = np.hypot(x - 80, y - 60)
    mask = (distance < 50) & (distance > 20)
    mask[5:15, 5:15] = True
    polygons = outlines(mask, 10.0, 12.0)
    assert sorted(len(polygon) for polygon in polygons) == [1, 2]
    enclosed = sum(area(p[0]) - sum(area(hole) for hole in p[1:]) for p in polygons)
    assert enclosed == pytest.approx(mask.sum() * 120, rel=0.01)
    square = min(polygons, key=lambda p: area(p[0]))[0]
    assert square.min(axis=0) == pytest.approx((50, 60))
    assert square.max(axis=0) == pytest.approx((150, 180))
    assert all(np.array_equal(ring[0], ring[-1]) for polygon in polygons for ring in polygon)


def test_geojson_is_what_qupath_reads():
    polygons = outlines(np.pad(np.ones((4, 6), bool), 2), 16.0, 16.0)
    said = json.loads(tissue_geojson(polygons))
    assert said["type"] == "FeatureCollection"
    feature = said["features"][0]
    assert feature["geometry"]["type"] == "Polygon"
    assert feature["properties"]["objectType"] == "annotation"
    patches = json.loads(patch_geojson([(512, 256)], 256, [0.7], "attention", [(255, 0, 0)]))["features"][0]
    assert patches["geometry"]["coordinates"] == [[[512, 256], [768, 256], [768, 512], [512, 512], [512, 256]]]
    assert patches["properties"]["measurements"] == {"attention": 0.7}


@pytest.mark.parametrize("downsamples", [(1.0,), (1.0, 4.0), (1.0, 2.7, 7.3)])
def test_the_thumbnail_is_the_slide_at_its_scale(tmp_path: Path, downsamples: tuple[float, ...]):
    path = write_slide(tmp_path / "a.svs", ramp(1501, 1103), downsamples, 0.5)
    with open_slide(path) as slide:
        small = thumbnail(slide, 16.0)
    assert small.pixels.shape == (69, 94, 3)
    middle = (np.arange(94) + 0.5) * small.down_x
    assert abs(small.pixels[..., 0].mean(axis=0) - middle / 1501 * 254).max() < 1.6


def test_values_are_drawn_where_their_patches_are(tmp_path: Path):
    path = write_slide(tmp_path / "a.svs", stained(1024, 768), (1.0,), 0.5)
    with open_slide(path) as slide:
        small = thumbnail(slide, 8.0)
    drawn = value_map(np.array([[256, 128], [512, 128]]), 256, np.array([1.0, 3.0]), small)
    assert drawn.shape == (96, 128)
    assert (drawn[16:48, 32:64] == 1).all()
    assert (drawn[16:48, 64:96] == 3).all()
    assert np.isnan(drawn[:16]).all()
    assert np.isnan(drawn[:, 96:]).all()


def test_a_survey_takes_patches_on_tissue_only(tmp_path: Path):
    path = write_slide(tmp_path / "a.svs", stained(3000, 2200, blobs=[(0.3, 0.5, 0.3)]), (1.0, 4.0), 0.5)
    seen = survey(path, GridSettings(patch=200, tissue_share=0.5), S)
    centre = np.hypot(*(seen.coords + 100 - np.array([900, 1100])).T)
    assert len(seen.coords) > 20
    assert centre.max() < 660 + 100
    everything = seen.grid.all()
    inside = np.hypot(*(everything + 100 - np.array([900, 1100])).T) < 660 - 142
    assert {tuple(c) for c in everything[inside]} <= {tuple(c) for c in seen.coords}
    picture = draw_overlay(seen.view, seen.polygons, seen.coords, 200)
    assert picture.shape == seen.view.pixels.shape
    assert not np.array_equal(picture, seen.view.pixels)
