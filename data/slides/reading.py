"""Patches of a slide in pieces of bounded memory, each tile decoded about once, by this process or by several."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from data.errors import DataError
from data.slides.grid import Coords, Grid, read_patch
from data.slides.levels import Slide
from data.slides.opening import open_slide
from data.slides.workers import BrokenProcessPool, pool

PIECE_BYTES = 4 << 20
BAND = 32  # patches per row of a piece: a band of tiles this wide stays in the tile cache

Source = tuple[float | None, float | None]
Patches = UInt8[np.ndarray, "p y x 3"]


def pieces(grid: Grid, coords: Coords) -> list[Int[np.ndarray, " _"]]:
    """Cut the patches into pieces of at most 4 MB of pixels, near one another on the slide.

    Patches are taken band by band and row by row within a band, whatever the number of readers: results do not depend
    on it.

    Returns:
        row numbers of `coords`; every row is in exactly one piece
    """
    if len(coords) == 0:
        return []
    column, row = (coords // grid.step0).T
    order = np.lexsort((column, row, column // BAND))
    count = max(1, PIECE_BYTES // (grid.patch**2 * 3))
    return [order[start : start + count] for start in range(0, len(order), count)]


def read_patches(slide: Slide, grid: Grid, coords: Coords) -> Patches:
    """Pixels of patches, `[p, patch, patch, 3]`."""
    out = np.empty((len(coords), grid.patch, grid.patch, 3), np.uint8)
    for index, (x, y) in enumerate(coords):
        out[index] = read_patch(slide, grid, int(x), int(y))
    return out


def read_piece(path: Path, source: Source, grid: Grid, coords: Coords, then: Callable[[Patches], Any] | None) -> Any:
    """Read one piece in whichever process this is; the slide stays open for the next piece.

    Args:
        path: slide file
        source: `mpp` and `source_mpp` of `open_slide`
        grid: geometry
        coords: patches of this piece
        then: importable function applied to the pixels here, e.g. an encoder without a GPU; None returns the pixels
    """
    slide = _hold(path, source)
    pixels = read_patches(slide, grid, coords)
    return pixels if then is None else then(pixels)


_held: dict[tuple[Any, ...], Slide] = {}


def _hold(path: Path, source: Source) -> Slide:
    """The slide this process reads from, kept open with its tile cache until another is asked for."""
    key = (path, path.stat().st_mtime_ns, *source)
    if key not in _held:
        release()
        _held[key] = open_slide(path, *source)
    return _held[key]


def release() -> None:
    """Close the slide this process holds open."""
    while _held:
        _held.popitem()[1].close()


def read_all(
    path: Path,
    source: Source,
    grid: Grid,
    coords: Coords,
    then: Callable[[Patches], Any] | None = None,
    readers: int = 0,
) -> Iterator[tuple[Int[np.ndarray, " p"], Any]]:
    """Every piece in order, at most two per reader ahead of the consumer.

    Args:
        path, source, grid, coords, then: see `read_piece`
        readers: processes that read; 0 reads here

    Yields:
        row numbers of `coords` and what `read_piece` gave for them

    Raises:
        DataError: the slide cannot be read, or a reader died on it
    """
    try:
        if readers == 0:
            for rows in pieces(grid, coords):
                yield rows, read_piece(path, source, grid, coords[rows], then)
            return
        processes = pool(readers)
        ahead: deque[tuple[Int[np.ndarray, " p"], Future[Any]]] = deque()
        try:
            for rows in pieces(grid, coords):
                ahead.append((rows, processes.submit(read_piece, path, source, grid, coords[rows], then)))
                if len(ahead) > 2 * readers:
                    first, future = ahead.popleft()
                    yield first, future.result()
            while ahead:
                first, future = ahead.popleft()
                yield first, future.result()
        finally:
            for _, future in ahead:
                future.cancel()
    except FileNotFoundError:
        raise DataError(f"slide {path.name}: the file went away while it was read ({path})") from None
    except BrokenProcessPool as error:
        raise DataError(
            f"slide {path.name}: a reader process died on it (a crash in the decoder, or out of memory)"
        ) from error
    finally:
        release()
