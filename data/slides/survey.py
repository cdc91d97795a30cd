"""Look at a slide before any patch is read: thumbnail, tissue, grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from data.slides.grid import Coords, Grid, lay_grid
from data.slides.levels import Level, Resolution
from data.slides.opening import open_slide
from data.slides.outlines import Polygon, outlines
from data.slides.tissue import Mask, Thumbnail, TissueSettings, find_tissue, thumbnail

# A picture to be looked at has at least this many pixels on its longer side, where the slide has them.
VIEW = 1500


@dataclass(frozen=True)
class GridSettings:
    """Which patches are taken.

    Attributes:
        mpp: micrometres per patch pixel
        patch: side of a patch in pixels
        overlap: pixels shared by neighbouring patches
        edge: "drop" takes whole patches only, "pad" adds those partly outside the slide, white there
        tissue_share: least share of a patch's area that is tissue; 0 takes every patch that touches tissue

    Raises:
        ValueError: names the setting that cannot be
    """

    mpp: float = 0.5
    patch: int = 256
    overlap: int = 0
    edge: Literal["drop", "pad"] = "drop"
    tissue_share: float = 0.25

    def __post_init__(self) -> None:
        if not self.mpp > 0:
            raise ValueError(f"grid.mpp={self.mpp:g}: expected micrometres per patch pixel, more than 0")
        if self.patch < 1:
            raise ValueError(f"grid.patch={self.patch}: expected at least 1 pixel")
        if not 0 <= self.overlap < self.patch:
            raise ValueError(f"grid.overlap={self.overlap}: expected 0 to {self.patch - 1}, less than grid.patch")
        if not 0 <= self.tissue_share <= 1:
            raise ValueError(f"grid.tissue_share={self.tissue_share:g}: expected a share from 0 to 1")


@dataclass(frozen=True)
class Survey:
    """What is known of a slide before its patches are read.

    Attributes:
        view: thumbnail
        tissue: mask, at its own resolution
        polygons: outlines of the tissue at level 0
        grid, level: geometry of the patches
        coords: patches to read, `[p, 2]` at level 0
        resolution: of the slide
    """

    view: Thumbnail
    tissue: Mask
    polygons: list[Polygon]
    grid: Grid
    level: Level
    coords: Coords
    resolution: Resolution

    @property
    def warnings(self) -> tuple[str, ...]:
        asked, has = self.grid.mpp, self.grid.slide_mpp
        finer = (f"{asked:g} micrometres per pixel is finer than the slide's {has:g}; patches are enlarged",)
        return self.resolution.warnings + (finer if self.grid.ratio < 1 else ())


def survey(
    path: Path,
    grid: GridSettings,
    tissue: TissueSettings,
    mpp: float | None = None,
    source_mpp: float | None = None,
) -> Survey:
    """Open a slide, find its tissue and lay its grid.

    Args:
        path: slide file
        grid: which patches
        tissue: what counts as tissue
        mpp: micrometres per level-0 pixel from a table
        source_mpp: the same for headers that say nothing

    Raises:
        DataError: the slide cannot be read
        NoResolution: nothing gives its microns per pixel
    """
    with open_slide(path, mpp, source_mpp) as slide:
        laid = lay_grid(slide, grid.mpp, grid.patch, grid.overlap, grid.edge)
        down = tissue.mpp / laid.slide_mpp
        view = thumbnail(slide, min(down, max(slide.width, slide.height) / VIEW))
        size = (max(1, round(slide.width / down)), max(1, round(slide.height / down)))
        small = view.pixels
        if size[0] < small.shape[1] or size[1] < small.shape[0]:
            small = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BOX))
        down_x, down_y = slide.width / small.shape[1], slide.height / small.shape[0]
        mask = find_tissue(small, (down_x + down_y) / 2 * laid.slide_mpp, tissue)
        coords = laid.on_tissue(mask, grid.tissue_share)
        polygons = outlines(mask, down_x, down_y)
        return Survey(view, mask, polygons, laid, slide.levels[laid.level], coords, slide.resolution)
