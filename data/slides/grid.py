"""Lay the patch grid: which level is read, how it is resampled, and where each patch lies at level 0.

The level-0 size of a patch is a whole number of pixels and the patch shows exactly that square, so coordinates and
sizes in a feature file are the truth and not a rounding of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from data.errors import DataError
from data.slides.levels import Level, Pixels, Slide

# A level within 1 % of the asked resolution or of a whole part of it is used as it is: 0.499 is 0.5, 0.2521 half of it.
SNAP = 0.01
BASE_MAGNIFICATION = 10.0  # magnification x microns per pixel, the convention of TRIDENT's folder names


class NoResolution(DataError):
    """Nothing says how many micrometres a pixel is; the user can."""


Coords = Int[np.ndarray, "p 2"]


@dataclass(frozen=True)
class Grid:
    """A patch grid over one slide.

    Attributes:
        patch: pixels of a patch as the encoder sees it
        overlap: pixels shared by neighbours, at the same resolution
        mpp: micrometres asked for
        level: pyramid level read
        ratio: pixels of that level per patch pixel
        size0: side of a patch in level-0 pixels
        step0: distance of neighbours in level-0 pixels
        slide_mpp: micrometres per level-0 pixel
        width, height: of level 0
        edge: "drop" keeps whole patches only, "pad" adds the partly outside ones (white)
    """

    patch: int
    overlap: int
    mpp: float
    level: int
    ratio: float
    size0: int
    step0: int
    slide_mpp: float
    width: int
    height: int
    edge: Literal["drop", "pad"] = "drop"

    @property
    def effective_mpp(self) -> float:
        """Micrometres per patch pixel as read; within 1 % of `mpp`."""
        return self.size0 * self.slide_mpp / self.patch

    @property
    def magnification(self) -> float:
        """Magnification of the patches, 10 / mpp: 20 at 0.5 micrometres."""
        return BASE_MAGNIFICATION / self.mpp

    @property
    def level0_magnification(self) -> float:
        return BASE_MAGNIFICATION / self.slide_mpp

    def axis(self, length: int) -> Int[np.ndarray, " n"]:
        """Level-0 starts of the patches along one axis."""
        last = length - self.size0 if self.edge == "drop" else length - 1 - (self.size0 - self.step0)
        if self.edge == "pad" and length > 0:
            last = max(last, 0)
        return np.arange(0, last + 1, self.step0, dtype=np.int64)

    def all(self) -> Coords:
        """Every patch of the grid, `[p, 2]` as (x, y) of the upper left corner at level 0, row by row."""
        x, y = np.meshgrid(self.axis(self.width), self.axis(self.height))
        return np.stack([x.ravel(), y.ravel()], axis=1)

    def on_tissue(self, tissue: Bool[np.ndarray, "i j"], share: float) -> Coords:
        """Patches of which at least `share` of the area is tissue; with share 0, every patch that touches tissue.

        Args:
            tissue: mask over the whole slide at any resolution
            share: from 0 to 1
        """
        coords = self.all()
        found = tissue_share(tissue, coords, self.size0, self.width, self.height)
        return coords[found >= share if share > 0 else found > 0]


def lay_grid(slide: Slide, mpp: float, patch: int, overlap: int = 0, edge: Literal["drop", "pad"] = "drop") -> Grid:
    """Choose the level and the level-0 size of a patch.

    The coarsest level at least as fine as asked is read. A ratio within 1 % of a whole number is that number, and
    `ratio x ratio` pixels are averaged; any other is resampled over the exact footprint.

    Raises:
        ValueError: a setting that cannot be
        NoResolution: nothing gives the slide's microns per pixel
        DataError: it is so coarse that a patch would be one pixel
    """
    if mpp <= 0 or patch < 1 or not 0 <= overlap < patch:
        raise ValueError(f"expected mpp > 0, patch >= 1 and 0 <= overlap < patch; got {mpp}, {patch}, {overlap}")
    known = slide.resolution.mpp
    if known is None:
        raise NoResolution(
            f"slide {slide.path.name}: no microns-per-pixel in the file. Add a row to --mpp-table (slide_id,mpp), "
            "or give --source-mpp for all slides without one"
        )
    choice, ratio = 0, mpp / known
    for index, level in enumerate(slide.levels):
        here = mpp / (known * level.down)
        if here >= 1 - SNAP and level.down >= slide.levels[choice].down:
            choice, ratio = index, here
    whole = round(ratio)
    if whole >= 1 and abs(ratio / whole - 1) <= SNAP:
        ratio = float(whole)
    size0 = round(patch * ratio * slide.levels[choice].down)
    if size0 < 2:
        raise DataError(
            f"slide {slide.path.name}: at {known:g} micrometres per pixel a patch of {patch} px at {mpp:g} is one pixel"
        )
    step0 = max(1, round((patch - overlap) * size0 / patch))
    return Grid(patch, overlap, mpp, choice, ratio, size0, step0, known, slide.width, slide.height, edge)


def tissue_share(
    tissue: Bool[np.ndarray, "i j"], coords: Coords, size0: int, width: int, height: int
) -> Float[np.ndarray, " p"]:
    """Exact area share of tissue in each patch, mask pixels counted by the fraction a patch covers. `[p]`"""
    rows, columns = tissue.shape
    area = np.zeros((rows + 1, columns + 1))
    area[1:, 1:] = tissue.cumsum(0, dtype=np.float64).cumsum(1)
    x = np.stack([coords[:, 0], coords[:, 0] + size0]).clip(0, width) * (columns / width)
    y = np.stack([coords[:, 1], coords[:, 1] + size0]).clip(0, height) * (rows / height)

    def integral(u: Float[np.ndarray, " p"], v: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
        i, j = np.minimum(v.astype(int), rows - 1), np.minimum(u.astype(int), columns - 1)
        a, b = v - i, u - j
        upper = area[i, j] * (1 - b) + area[i, j + 1] * b
        lower = area[i + 1, j] * (1 - b) + area[i + 1, j + 1] * b
        return upper * (1 - a) + lower * a

    inside = integral(x[1], y[1]) - integral(x[0], y[1]) - integral(x[1], y[0]) + integral(x[0], y[0])
    patch_area = (size0 * columns / width) * (size0 * rows / height)
    return (inside / patch_area).clip(0, 1)


def footprint(grid: Grid, level: Level, x: int, y: int) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a patch in the pixels of the level that is read."""
    return x / level.down_x, y / level.down_y, (x + grid.size0) / level.down_x, (y + grid.size0) / level.down_y


def read_patch(slide: Slide, grid: Grid, x: int, y: int) -> Pixels:
    """The patch whose upper left corner is (x, y) at level 0, `[patch, patch, 3]`.

    A footprint on whole pixels is copied or averaged `k x k`; any other is resampled by Pillow's antialiased bilinear
    filter over the fractional box. Pixels outside the footprint never enter: a patch does not depend on its neighbours.
    """
    return resample(slide, grid.level, footprint(grid, slide.levels[grid.level], x, y), grid.patch)


def resample(slide: Slide, level: int, box: tuple[float, float, float, float], patch: int) -> Pixels:
    """Read a box of a level, in that level's pixels, as `[patch, patch, 3]`."""
    left, top = int(np.floor(box[0])), int(np.floor(box[1]))
    right, bottom = int(np.ceil(box[2] - 1e-9)), int(np.ceil(box[3] - 1e-9))
    region = slide.read(level, left, top, right - left, bottom - top)
    if region.shape[:2] == (patch, patch):
        exact = box[0] == left and box[1] == top and box[2] == right and box[3] == bottom
        if exact:
            return region
    image = Image.fromarray(region)
    whole, rest = divmod(right - left, patch)
    if rest == 0 and (right - left) == (bottom - top) and all(edge == round(edge) for edge in box):
        return np.asarray(image.reduce(whole))
    inner = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    return np.asarray(image.resize((patch, patch), Image.Resampling.BILINEAR, box=inner))
