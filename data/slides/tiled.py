"""Tiles of a TIFF decoded straight from the file, each once, into the region that needs them.

OpenSlide composes every region through a 32-bit surface and a copy; for the tiled TIFF family the tiles can be decoded
directly, bit for bit the same pixels in a quarter of the time (`fusion bench slides`).
"""

from __future__ import annotations

import logging
import math
import os
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile

from data.errors import DataError
from data.slides.levels import WHITE, Pixels, Slide

# Codecs compared with OpenSlide in tests: none, LZW, JPEG, deflate (two numbers), Aperio JPEG 2000 RGB.
CODECS = {1, 5, 7, 8, 32946, 33005}
CACHE_BYTES = 96 << 20
# What it says about damaged files is said once, in the slide's own line.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


LARGEST_TILE = 8192 * 8192


def refuse_invented(path: Path) -> None:
    """Refuse a TIFF whose directories ask for tiles that are not there: over those, OpenSlide ends the whole process.

    Raises:
        DataError: fewer places or sizes of tiles than the level has, or tiles larger than the level and than any writer
            makes them
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            tiled = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage) and page.is_tiled]
            asked = [(page, page.tilewidth * page.tilelength, math.prod(page.chunked)) for page in tiled]
            counts = [[page.tags[name].count for name in ("TileOffsets", "TileByteCounts")] for page in tiled]
    except Exception:  # no TIFF, or one that OpenSlide refuses by itself
        return
    for (page, area, tiles), (places, sizes) in zip(asked, counts, strict=True):
        size = f"a level of {page.imagewidth} x {page.imagelength} pixels"
        if min(places, sizes) < tiles:
            raise DataError(
                f"slide {path.name}: {size} needs {tiles} tiles and has {places} places and {sizes} sizes of them; "
                "damaged? Copy it again"
            )
        if area > max(LARGEST_TILE, page.imagewidth * page.imagelength):
            raise DataError(
                f"slide {path.name}: {size} in tiles of {page.tilewidth} x {page.tilelength}; damaged? Copy it again"
            )


def tiled_pages(
    path: Path, sizes: list[tuple[int, int]] | None
) -> tuple[tifffile.TiffFile, list[tifffile.TiffPage]] | None:
    """The TIFF page of each level, or None when this reader does not know the file's layout or codec.

    Args:
        path: a TIFF
        sizes: `(width, height)` per level as OpenSlide sees them; None = take the pyramid of the first OME series

    Raises:
        DataError: the file ends before its directories or tiles do
    """
    try:
        tiff = tifffile.TiffFile(path)
    except Exception:  # of a damaged file it raises whatever its arithmetic meets
        return None
    try:
        usable = _pages(tiff, sizes)
        cut = _directories_missing(tiff) or any(_ends(page) > tiff.filehandle.size for page in usable)
    except Exception:
        tiff.close()
        return None
    if cut or not usable:
        tiff.close()
    if cut:
        raise DataError(f"slide {path.name}: truncated, its pages reach beyond the end of the file. Copy it again")
    return (tiff, usable) if usable else None


def _pages(tiff: tifffile.TiffFile, sizes: list[tuple[int, int]] | None) -> list[tifffile.TiffPage]:
    """The page of each level, or none at all where one is missing or cannot be decoded here."""
    if sizes is None:
        series = tiff.series[0] if tiff.series else None
        pages = [level.keyframe for level in series.levels] if series is not None else []
        usable = [page for page in pages if page is not None and _decodable(page)]
        return usable if len(usable) == len(pages) else []
    full = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage) and _decodable(page)]
    by_size = {(page.imagewidth, page.imagelength): page for page in reversed(full)}
    usable = [by_size[size] for size in sizes if size in by_size]
    return usable if len(usable) == len(sizes) else []


def _directories_missing(tiff: tifffile.TiffFile) -> bool:
    """Whether the last directory that could be read names a next one: a file cut short between them."""
    len(tiff.pages)  # walks the chain
    tiff.filehandle.seek(tiff.pages.next_page_offset or 0)
    following = tiff.filehandle.read(tiff.tiff.offsetsize)
    return int.from_bytes(following, "little" if tiff.byteorder == "<" else "big") != 0


def _ends(page: tifffile.TiffPage) -> int:
    return max((start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)


def _decodable(page: tifffile.TiffPage) -> bool:
    return bool(
        page.is_tiled
        and page.compression in CODECS
        and page.dtype == np.uint8
        and page.samplesperpixel == 3
        and page.planarconfig == 1
        and page.imagedepth == 1
        and page.photometric in (2, 6)
        and len(page.dataoffsets) == len(page.databytecounts) >= math.prod(page.chunked)
    )


@dataclass
class TiledTiff(Slide):
    """A slide whose levels are tiled pages of one TIFF file."""

    tiff: tifffile.TiffFile = field(kw_only=True)
    pages: list[tifffile.TiffPage] = field(kw_only=True)
    cache: OrderedDict[tuple[int, int], Pixels] = field(default_factory=OrderedDict, kw_only=True)
    cached: int = field(default=0, kw_only=True)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        out = np.full((height, width, 3), WHITE, np.uint8)
        page, size = self.pages[level], self.levels[level]
        tile_w, tile_h = page.tilewidth, page.tilelength
        across = -(-size.width // tile_w)
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + width, size.width), min(y + height, size.height)
        if right <= left or bottom <= top:
            return out
        for row in range(top // tile_h, (bottom - 1) // tile_h + 1):
            for column in range(left // tile_w, (right - 1) // tile_w + 1):
                tile = self._tile(level, row * across + column)
                if tile is None:
                    continue
                x0, y0 = column * tile_w, row * tile_h
                a, b = max(left, x0), min(right, x0 + tile.shape[1])
                c, d = max(top, y0), min(bottom, y0 + tile.shape[0])
                out[c - y : d - y, a - x : b - x] = tile[c - y0 : d - y0, a - x0 : b - x0]
        return out

    def _tile(self, level: int, index: int) -> Pixels | None:
        """One decoded tile; None where the writer left it out (blank)."""
        key = (level, index)
        if key in self.cache:
            self.cache.move_to_end(key)
            return self.cache[key]
        page = self.pages[level]
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if count == 0:
            return None
        data = os.pread(self.tiff.filehandle.fileno(), count, offset)
        if len(data) < count:
            raise DataError(
                f"slide {self.path.name}: truncated, tile {index} of level {level} ends {count - len(data)} bytes "
                "after the file does. Copy or download it again"
            )
        try:
            decoded = page.decode(data, index, jpegtables=page.jpegtables)[0]
        except Exception as error:  # every codec has its own exception type, none shared
            raise DataError(
                f"slide {self.path.name}: tile {index} of level {level} cannot be decoded ({error})"
            ) from error
        if decoded is None:
            return None
        tile: Pixels = decoded[0]
        self.cache[key] = tile
        self.cached += tile.nbytes
        while self.cached > CACHE_BYTES:
            self.cached -= self.cache.popitem(last=False)[1].nbytes
        return tile

    def close(self) -> None:
        self.cache.clear()
        self.tiff.close()
