"""A patch shows exactly the square of the slide that its coordinates name, whatever the pyramid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float

from data.slides.generated import ramp, stained, write_slide
from data.slides.grid import Grid, lay_grid, read_patch, tissue_share
from data.slides.levels import Pixels, pyramid
from data.slides.opening import NativeSlide, open_slide
from data.slides.reading import pieces, read_patches
from data.slides.tiled import TiledTiff

PYRAMIDS = [(1.0,), (1.0, 2.0), (1.0, 4.0, 16.0), (1.0, 2.7, 7.3), (1.0, 2.0, 4.0, 8.0)]
W, H = 1237, 913


def area_mean(pixels: Pixels, box: tuple[float, float, float, float], side: int) -> Float[np.ndarray, "side side 3"]:
    """The definition of a patch: exact mean of the source over each of `side x side` equal parts of a box.

    Args:
        pixels: level 0
        box: left, top, right, bottom in level-0 pixels
        side: of the patch
    """
    rows, columns = pixels.shape[:2]
    weights_x = _weights(np.linspace(box[0], box[2], side + 1), columns)
    weights_y = _weights(np.linspace(box[1], box[3], side + 1), rows)
    return np.einsum("iy,yxc,jx->ijc", weights_y, pixels.astype(np.float64), weights_x, optimize=True)


def _weights(edges: Float[np.ndarray, " n"], length: int) -> Float[np.ndarray, "m length"]:
    """Share of each pixel in each interval, rows adding to 1."""
    pixel = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    overlap = overlap.clip(0, None)
    return overlap / overlap.sum(axis=1, keepdims=True)


def square(grid: Grid, x: int, y: int) -> tuple[float, float, float, float]:
    return float(x), float(y), float(x + grid.size0), float(y + grid.size0)


@pytest.fixture(scope="module")
def source() -> Pixels:
    return ramp(W, H)


@pytest.fixture(scope="module", params=PYRAMIDS, ids=str)
def pyramid_file(request: pytest.FixtureRequest, source: Pixels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("pyramid") / "a.svs", source, request.param, 0.25)


@pytest.mark.parametrize(
    ("slide_mpp", "mpp", "overlap"), [(0.25, 0.5, 0), (0.5, 0.5, 16), (0.25, 1.0, 8), (0.3, 1.1, 0)]
)
@pytest.mark.parametrize("direct", [True, False])
def test_a_patch_is_the_source_at_its_place(
    pyramid_file: Path, source: Pixels, slide_mpp: float, mpp: float, overlap: int, direct: bool
):
    with open_slide(pyramid_file, mpp=slide_mpp, direct=direct) as slide:
        assert isinstance(slide, TiledTiff if direct else NativeSlide)
        grid = lay_grid(slide, mpp, 64, overlap)
        assert abs(grid.effective_mpp / mpp - 1) < 0.02
        corners = grid.all()
        for x, y in corners[:: max(1, len(corners) // 3)]:
            seen = read_patch(slide, grid, int(x), int(y)).astype(float)
            want = area_mean(source, square(grid, x, y), 64)
            # Red and green rise by 0.2 and 0.28 a level-0 pixel, so no patch is off by one. Of the tolerance 0.125 is a
            # bias that is known: means of 2 x 2 bytes end in .5 a quarter of the time, and Pillow rounds these up.
            assert abs((seen - want).mean(axis=(0, 1))[:2]).max() < 0.2
            assert abs(seen - want).max() <= 4


def test_native_pixels_are_copied_and_whole_ratios_are_means(tmp_path: Path):
    source = stained(901, 777, seed=3)
    path = write_slide(tmp_path / "a.svs", source, mpp=0.25)
    with open_slide(path) as slide:
        grid = lay_grid(slide, 0.25, 100)
        assert np.array_equal(read_patch(slide, grid, 200, 300), source[300:400, 200:300])
        grid = lay_grid(slide, 0.5, 100)
        blocks = source[300:500, 200:400].reshape(100, 2, 100, 2, 3).mean(axis=(1, 3))
        assert abs(read_patch(slide, grid, 200, 300) - blocks).max() <= 0.5


def test_the_coarsest_level_that_is_fine_enough_is_read(pyramid_file: Path):
    with open_slide(pyramid_file) as slide:
        for mpp in (0.25, 0.5, 1.0, 2.0):
            grid = lay_grid(slide, mpp, 32)
            fine = [level.down for level in slide.levels if level.down * 0.25 <= mpp * 1.0101]
            assert slide.levels[grid.level].down == max(fine)


@pytest.mark.parametrize(("patch", "overlap"), [(64, 0), (64, 16), (50, 25), (33, 7)])
@pytest.mark.parametrize("edge", ["drop", "pad"])
def test_the_grid_covers_and_counts_nothing_twice(patch: int, overlap: int, edge: str):
    grid = Grid(patch, overlap, 0.5, 0, 1.0, patch, patch - overlap, 0.5, W, H, edge)
    count = np.zeros((H, W), int)
    for x, y in grid.all():
        assert 0 <= x < W
        assert 0 <= y < H
        if edge == "drop":
            assert x + patch <= W
            assert y + patch <= H
        count[y : y + patch, x : x + patch] += 1
    last_x, last_y = grid.all().max(axis=0) + patch
    assert (count[: min(last_y, H), : min(last_x, W)] >= 1).all()
    if edge == "pad":
        assert (count >= 1).all()
    else:
        assert W - last_x < grid.step0
        assert H - last_y < grid.step0
    if overlap == 0:
        assert count.max() == 1


def test_tissue_share_is_the_exact_area():
    rng = np.random.default_rng(0)
    mask = rng.random((37, 53)) > 0.6
    big = np.kron(mask, np.ones((20, 20), bool))
    coords = rng.integers(0, 600, (50, 2))
    share = tissue_share(mask, coords, 90, 53 * 20, 37 * 20)
    want = [big[y : y + 90, x : x + 90].sum() / 8100 for x, y in coords]
    np.testing.assert_allclose(share, want, atol=1e-9)


def test_every_patch_is_in_one_piece_and_pieces_read_the_same(tmp_path: Path):
    path = write_slide(tmp_path / "a.svs", ramp(W, H), (1.0, 2.0), 0.25)
    with open_slide(path) as slide:
        grid = lay_grid(slide, 0.5, 48, 5)
        coords = grid.all()
        rows = np.concatenate(pieces(grid, coords))
        assert sorted(rows) == list(range(len(coords)))
        whole = read_patches(slide, grid, coords)
        for index in (0, len(coords) // 2, len(coords) - 1):
            x, y = map(int, coords[index])
            assert np.array_equal(whole[index], read_patch(slide, grid, x, y))


def test_outside_the_slide_is_white_for_every_reader(tmp_path: Path):
    source = np.zeros((100, 120, 3), np.uint8)
    path = write_slide(tmp_path / "a.svs", source, mpp=0.5)
    for direct in (True, False):
        with open_slide(path, direct=direct) as slide:
            seen = slide.read(0, -10, -20, 150, 140)
            assert (seen[20:120, 10:130] == 0).all()
            assert (seen[:20] == 255).all()
            assert (seen[:, 130:] == 255).all()


def test_sizes_that_were_truncated_give_whole_downsamples():
    assert [level.down for level in pyramid([(4443, 3567), (2221, 1783)])] == [1.0, 2.0]
    assert [level.down for level in pyramid([(1001, 999), (251, 250)])] == [1.0, 4.0]
    odd = pyramid([(1000, 800), (370, 296)])[1]
    assert odd.down_x == pytest.approx(1000 / 370)


def test_impossible_grids_are_refused(tmp_path: Path):
    path = write_slide(tmp_path / "a.svs", ramp(300, 300), mpp=None)
    with (
        open_slide(path) as slide,
        pytest.raises(ValueError, match=r"slide a.svs: no microns-per-pixel .* --mpp-table"),
    ):
        lay_grid(slide, 0.5, 64)
    with open_slide(path, mpp=0.5) as slide, pytest.raises(ValueError, match="0 <= overlap < patch"):
        lay_grid(slide, 0.5, 64, 64)
