"""Pictures of a slide to be looked at: tissue and patches over the thumbnail, a value per patch as a heat map."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw

from data.slides.levels import Pixels
from data.slides.outlines import Polygon
from data.slides.tissue import Thumbnail

OUTLINE = (0, 128, 60)
HOLE = (200, 120, 0)
PATCH = (40, 70, 200)


def draw_overlay(thumb: Thumbnail, polygons: Sequence[Polygon], coords: Int[np.ndarray, "p 2"], size0: int) -> Pixels:
    """Tissue outlines (green, holes orange) and patch squares (blue) over the thumbnail.

    Args:
        thumb: the slide, small
        polygons: level-0 outlines
        coords: level-0 corners of the patches
        size0: level-0 side of a patch
    """
    image = Image.fromarray(thumb.pixels)
    draw = ImageDraw.Draw(image)
    scale = np.array([thumb.down_x, thumb.down_y])
    for x, y in coords / scale:
        corner = (x + size0 / thumb.down_x - 1, y + size0 / thumb.down_y - 1)
        draw.rectangle((x, y, *corner), outline=PATCH, width=max(1, max(image.size) // 700))
    for polygon in polygons:
        for index, ring in enumerate(polygon):
            points = [(float(x), float(y)) for x, y in ring / scale]
            draw.line(points, fill=HOLE if index else OUTLINE, width=max(1, max(image.size) // 500))
    return np.asarray(image)


def value_map(
    coords: Int[np.ndarray, "p 2"], size0: int, values: Float[np.ndarray, " p"], thumb: Thumbnail
) -> Float[np.ndarray, "i j"]:
    """The mean value of the patches that cover each thumbnail pixel, NaN where there is none.

    Args:
        coords: level-0 corners
        size0: level-0 side
        values: one number per patch
        thumb: gives the size and scale
    """
    rows, columns = thumb.pixels.shape[:2]
    total, count = np.zeros((rows, columns)), np.zeros((rows, columns))
    left, right = (np.round((coords[:, 0] + add) / thumb.down_x).astype(int) for add in (0, size0))
    top, bottom = (np.round((coords[:, 1] + add) / thumb.down_y).astype(int) for add in (0, size0))
    for a, b, c, d, value in zip(left, right, top, bottom, values, strict=True):
        total[c : max(d, c + 1), a : max(b, a + 1)] += value
        count[c : max(d, c + 1), a : max(b, a + 1)] += 1
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def shrink_to(pixels: Pixels, longest: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """A smaller copy for a page; smaller pictures stay as they are."""
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return np.asarray(image)


def jpeg_bytes(pixels: Pixels) -> bytes:
    """A JPEG; equal pixels give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
