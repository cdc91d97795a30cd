"""Where the tissue is: a thumbnail of the whole slide and a mask over it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageFilter
from scipy import ndimage
from skimage.filters import threshold_otsu

from data.slides.levels import Pixels, Slide

STRIP_BYTES = 48 << 20
BLOCK = 128  # pixels of a mask that are smoothed together
NO_INK = 192  # channels above this differ by less than a quarter of the brightest: no ink (see `foreign`)

Mask = Bool[np.ndarray, "i j"]


@dataclass(frozen=True)
class Thumbnail:
    """The whole slide, small.

    Attributes:
        pixels: `[rows, columns, 3]`
        down_x, down_y: level-0 pixels per thumbnail pixel
    """

    pixels: Pixels
    down_x: float
    down_y: float

    @property
    def down(self) -> float:
        return (self.down_x + self.down_y) / 2


def thumbnail(slide: Slide, down: float, longest: int = 8192) -> Thumbnail:
    """Shrink a slide, reading the coarsest level that is fine enough, a strip at a time.

    Args:
        slide: opened slide
        down: level-0 pixels per thumbnail pixel
        longest: limit on the longer side in pixels; the thumbnail is coarser where it would be exceeded
    """
    down = max(down, 1.0, max(slide.width, slide.height) / longest)
    columns, rows = max(1, round(slide.width / down)), max(1, round(slide.height / down))
    fine_enough = [index for index, level in enumerate(slide.levels) if level.down <= down * 1.001]
    index = max(fine_enough, key=lambda i: slide.levels[i].down, default=0)
    level = slide.levels[index]
    shrink = max(1, int(min(level.width / columns, level.height / rows)))
    height = max(1, STRIP_BYTES // (3 * level.width) // shrink) * shrink
    strips = []
    for y in range(0, level.height, height):
        strip = slide.read(index, 0, y, level.width, min(height, level.height - y))
        strips.append(np.asarray(Image.fromarray(strip).reduce(shrink)) if shrink > 1 else strip)
    small = Image.fromarray(np.concatenate(strips))
    # The last reduced row or column may cover less than `shrink` pixels: the box ends where the level does.
    box = (0.0, 0.0, level.width / shrink, level.height / shrink)
    pixels = np.asarray(small.resize((columns, rows), Image.Resampling.BILINEAR, box=box))
    return Thumbnail(pixels, slide.width / columns, slide.height / rows)


@dataclass(frozen=True)
class TissueSettings:
    """How tissue is told from glass. Defaults suit H&E; every length is in micrometres.

    Attributes:
        mpp: resolution of the thumbnail
        lowest, highest: Otsu's threshold on saturation (0 to 1) is kept within these, so that a blank slide has no
            tissue and a slide full of tissue has no holes
        smooth: width of the median filter
        close: gaps up to this width are closed
        smallest: pieces of less area (square micrometres) are dust
        largest_hole: holes of less area are filled
        white: a pixel whose darkest channel is above this (0 to 255) is glass
        black: a pixel whose brightest channel is below this is a border, a fold or a marker
        pen: leave out green, blue and red ink

    Raises:
        ValueError: names the setting that cannot be
    """

    mpp: float = 8.0
    lowest: float = 0.05
    highest: float = 0.20
    smooth: float = 40.0
    close: float = 60.0
    smallest: float = 20_000.0
    largest_hole: float = 20_000.0
    white: int = 225
    black: int = 45
    pen: bool = True

    def __post_init__(self) -> None:
        if not self.mpp > 0:
            raise ValueError(f"tissue.mpp={self.mpp:g}: expected micrometres per pixel of the mask, more than 0")
        if not 0 <= self.lowest <= self.highest <= 1:
            raise ValueError(
                f"tissue.lowest={self.lowest:g}, tissue.highest={self.highest:g}: expected 0 <= lowest <= highest <= 1"
            )
        for name in ("smooth", "close", "smallest", "largest_hole"):
            if getattr(self, name) < 0:
                raise ValueError(f"tissue.{name}={getattr(self, name):g}: expected 0 or more")


def find_tissue(pixels: Pixels, mpp: float, settings: TissueSettings) -> Mask:
    """Mask of the tissue, True = tissue.

    Args:
        pixels: thumbnail
        mpp: micrometres per thumbnail pixel
        settings: thresholds
    """
    width = max(1, round(settings.smooth / mpp)) // 2 * 2 + 1
    smooth = _smoothed(pixels, width, settings.white) if width > 1 else pixels
    ink, saturation = foreign(smooth, settings), _saturation(smooth)
    glass = _extremes(smooth)[0] > settings.white
    usable = saturation[~(ink | glass)]
    if usable.size == 0 or float(usable.max()) <= settings.lowest:
        return np.zeros(saturation.shape, bool)
    threshold = float(threshold_otsu(usable)) if usable.min() < usable.max() else settings.lowest
    mask = (saturation > np.clip(threshold, settings.lowest, settings.highest)) & ~(ink | glass)
    reach = max(1, round(settings.close / mpp / 2))
    closed = ndimage.grey_closing(np.pad(mask, reach).astype(np.uint8), size=2 * reach + 1)
    mask = closed[reach:-reach, reach:-reach] > 0
    mask = _drop_small(mask, settings.smallest / mpp**2)
    mask = ~_drop_small(~mask, settings.largest_hole / mpp**2)
    return mask & ~ink


def _smoothed(pixels: Pixels, width: int, white: int) -> Pixels:
    """Median of `width x width` pixels, left out where all of them are glass and so is their median.

    The mask does not depend on it: glass is no tissue, and a pixel this bright in every channel is no ink.
    """
    image, out, reach = Image.fromarray(pixels), pixels.copy(), width // 2
    stained = _extremes(pixels)[0] <= max(white, NO_INK)
    for top in range(0, pixels.shape[0], BLOCK):
        for left in range(0, pixels.shape[1], BLOCK):
            a, b = max(top - reach, 0), max(left - reach, 0)
            c, d = min(top + BLOCK + reach, pixels.shape[0]), min(left + BLOCK + reach, pixels.shape[1])
            if stained[a:c, b:d].any():
                median = np.asarray(image.crop((b, a, d, c)).filter(ImageFilter.MedianFilter(width)))
                out[top : top + BLOCK, left : left + BLOCK] = median[
                    top - a : top - a + BLOCK, left - b : left - b + BLOCK
                ]
    return out


def foreign(pixels: Pixels, settings: TissueSettings) -> Mask:
    """Black areas and ink: pixels that are no tissue whatever their saturation, and fill no hole."""
    red, green, blue = (pixels[..., channel].astype(np.int16) for channel in range(3))
    darkest, brightest = _extremes(pixels)
    found: Mask = brightest < settings.black
    if settings.pen:
        # Stains absorb green most; green and blue ink let it through. Red ink is purer than blood.
        cold = (green - red > 20) & (brightest - darkest > 0.25 * brightest)
        hot = (red > 170) & (green < 60) & (blue < 70)
        found = found | cold | hot
    return found


def _extremes(pixels: Pixels) -> tuple[UInt8[np.ndarray, "i j"], UInt8[np.ndarray, "i j"]]:
    """Darkest and brightest channel of each pixel; plane by plane, several times as fast as along the last axis."""
    red, green, blue = (pixels[..., channel] for channel in range(3))
    return np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)


def _saturation(pixels: Pixels) -> Float[np.ndarray, "i j"]:
    darkest, top = _extremes(pixels)
    brightest = top.astype(np.float32)
    spread = brightest - darkest
    return np.divide(spread, brightest, out=np.zeros_like(brightest), where=brightest > 0)


def _drop_small(mask: Mask, smallest: float) -> Mask:
    """Without the connected pieces (4 neighbours) of fewer than `smallest` pixels."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    keep = sizes >= smallest
    keep[0] = False
    return keep[labels]
