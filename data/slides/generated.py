"""Generated slides whose every pixel is known: for tests, the bench and the demo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from PIL import Image

from data.slides.levels import Pixels

GLASS = (244, 242, 244)
EOSIN = np.array([226.0, 138.0, 178.0])
NUCLEI = np.array([96.0, 58.0, 140.0])

Style = Literal["aperio", "tiff"]


def ramp(width: int, height: int) -> Pixels:
    """Red grows with x, green with y, blue waves: a mean tells where a patch is. Dithered, so means are unbiased."""
    out = np.random.default_rng(0).random((height, width, 3), np.float32)
    out[..., 0] += np.linspace(0, 254, width)
    out[..., 1] += np.linspace(0, 254, height)[:, None]
    out[..., 2] += 127 + 60 * np.sin(np.arange(width) / 37) * np.cos(np.arange(height) / 29)[:, None]
    return out.astype(np.uint8)


def stained(
    width: int,
    height: int,
    seed: int = 0,
    blobs: Sequence[tuple[float, float, float]] = ((0.5, 0.5, 0.3),),
) -> Pixels:
    """Discs of pink tissue with purple nuclei on glass.

    Args:
        width, height: pixels
        seed: of the texture
        blobs: centre x, centre y and radius of each disc, in shares of the width, height and shorter side
    """
    texture = _texture(512, seed)
    y, x = np.ogrid[:height, :width]
    inside = np.zeros((height, width), bool)
    for cx, cy, r in blobs:
        inside |= (x - cx * width) ** 2 + (y - cy * height) ** 2 < (r * min(width, height)) ** 2
    tiled = np.tile(texture, (-(-height // 512), -(-width // 512), 1))[:height, :width]
    return np.where(inside[..., None], tiled, np.array(GLASS, np.uint8))


@lru_cache(maxsize=4)
def _texture(side: int, seed: int) -> Pixels:
    rng = np.random.default_rng(seed)
    nuclei = np.zeros((side, side))
    y, x = np.mgrid[-12:13, -12:13]
    for cx, cy, r in zip(*rng.integers(12, side - 13, (2, 120)), rng.uniform(4, 9, 120), strict=True):
        here = nuclei[cy - 12 : cy + 13, cx - 12 : cx + 13]
        np.maximum(here, np.clip(1.3 - np.hypot(x, y) / r, 0, 1), out=here)
    share = nuclei[..., None]
    grain = rng.normal(0, 7, (side, side, 1))
    return np.clip(EOSIN * (1 - share) + NUCLEI * share + grain, 0, 255).astype(np.uint8)


def shrunk(pixels: Pixels, width: int, height: int) -> Pixels:
    """Area mean at another size: over whole blocks where these divide, over fractional boxes otherwise."""
    rows, columns = pixels.shape[:2]
    across, down = columns // width, rows // height
    if across == down and (columns // across, rows // down) == (width, height):
        cut = pixels[: height * down, : width * across].reshape(height, down, width, across, 3)
        return np.rint(cut.mean(axis=(1, 3))).astype(np.uint8)
    channels = [
        np.asarray(Image.fromarray(pixels[..., c].astype(np.float32)).resize((width, height), Image.Resampling.BOX))
        for c in range(3)
    ]
    return np.rint(np.stack(channels, axis=2)).astype(np.uint8)


def write_slide(
    path: Path,
    pixels: Pixels,
    downsamples: Sequence[float] = (1.0,),
    mpp: float | None = 0.5,
    style: Style = "aperio",
    tile: int = 240,
    compression: str | None = "deflate",
) -> Path:
    """Write a pyramid.

    Args:
        path: `.svs` or `.tif`
        pixels: level 0
        downsamples: of each level, the first 1; sizes are truncated
        mpp: micrometres per level-0 pixel, None leaves it out
        style: "aperio" with the description OpenSlide looks for, "tiff" with resolution tags
        tile: side of a tile, a multiple of 16
        compression: tifffile's name, None for none
    """
    height, width = pixels.shape[:2]
    with tifffile.TiffWriter(path, bigtiff=False) as file:
        for index, down in enumerate(downsamples):
            size = (int(width / down), int(height / down))
            level = pixels if down == 1 else shrunk(pixels, *size)
            file.write(level, **_tags(index, size, (width, height), mpp, style, tile, compression))
    return path


def write_sparse_slide(path: Path, side: int, tissue: Sequence[tuple[int, int, int]], mpp: float = 0.25) -> Path:
    """A square slide of any size, level by level and tile by tile, of little memory: glass with squares of tissue.

    Args:
        path: `.svs`
        side: level-0 pixels
        tissue: x, y and side of each square at level 0
        mpp: micrometres per level-0 pixel
    """
    texture, tile = _texture(512, 0), 512
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for index, down in enumerate((1, 4, 16)):
            size = side // down
            squares = [tuple(part // down for part in square) for square in tissue]
            shape: dict[str, Any] = {"shape": (size, size, 3), "dtype": np.uint8}
            tags = _tags(index, (size, size), (side, side), mpp, "aperio", tile, "jpeg")
            file.write(_tiles(size, tile, squares, texture), **shape, **tags)
    return path


def _tiles(size: int, tile: int, squares: Sequence[tuple[int, ...]], texture: Pixels) -> Iterator[Pixels]:
    blank = np.full((tile, tile, 3), GLASS, np.uint8)
    for y in range(0, size, tile):
        for x in range(0, size, tile):
            out = blank
            for left, top, side in squares:
                a, b = max(left, x) - x, min(left + side, x + tile) - x
                c, d = max(top, y) - y, min(top + side, y + tile) - y
                if a < b and c < d:
                    out = out.copy()
                    out[c:d, a:b] = texture[c:d, a:b]
            yield out


def _tags(
    index: int,
    size: tuple[int, int],
    full: tuple[int, int],
    mpp: float | None,
    style: Style,
    tile: int,
    compression: str | None,
) -> dict[str, Any]:
    tags: dict[str, Any] = {
        "tile": (tile, tile),
        "photometric": "rgb",
        "compression": compression,
        "metadata": None,
        "subfiletype": int(index > 0 and style == "tiff"),
    }
    if style == "aperio":
        known = "" if mpp is None else f"|AppMag = {10 / mpp:g}|MPP = {mpp:.4f}"
        shape = f"{full[0]}x{full[1]} [0,0 {full[0]}x{full[1]}] ({tile}x{tile}) -> {size[0]}x{size[1]}"
        tags["description"] = f"Aperio Image Library v11.2.1\r\n{shape}{known}"
        tags["software"] = False
    elif mpp is not None:
        tags |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    return tags
