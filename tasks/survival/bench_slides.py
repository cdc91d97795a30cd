"""How fast patches come out of a slide, beside the loop everybody writes first.

The peer is one thread calling OpenSlide's `read_region` for every patch and shrinking it with Pillow where the pyramid
has no level of the asked resolution. Ours reads the same patches with two processes and delivers the pixels to this
process, or their StainTexture features. Both open the slide anew and take turns, several times; the best time of each
counts: on a shared machine the fastest run is the one least disturbed.
"""

from __future__ import annotations

import platform
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from PIL import Image

from data.slides.generated import stained, write_slide, write_sparse_slide
from data.slides.grid import Coords, Grid, lay_grid
from data.slides.opening import open_slide
from data.slides.reading import read_all
from data.slides.survey import GridSettings, survey
from data.slides.tissue import TissueSettings
from data.slides.workers import pool
from data.sources import source
from tasks.survival.slide_unit import Encode

READERS = 2
TURNS = 3
TEXTURE = Encode('{"class_path": "encoders.patch.StainTexture"}')


@dataclass(frozen=True)
class Case:
    """One slide and what is asked of it."""

    name: str
    path: Path
    mpp: float
    given: float | None = None


def run(folder: Path | None = None) -> dict[str, Any]:
    """Run the bench.

    Args:
        folder: of real slides to measure as well, by default the data set `slides` where it has been imported;
            generated ones always are

    Returns:
        bench, device, versions and rows of case, ours_s, peer_s, ratio (ours / peer), CPU seconds of both and peak_mb
    """
    folder = folder or source("slides").folder
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        for case in _cases(Path(place), folder):
            rows += _measure(case)
        rows += _blank_heavy(Path(place))
    device = f"{platform.processor() or platform.machine()}, {READERS} reader processes"
    versions = {name: version(name) for name in ("openslide-python", "tifffile", "imagecodecs", "numpy", "pillow")}
    return {"bench": "slides", "device": device, "versions": versions, "rows": rows}


def _cases(place: Path, folder: Path) -> list[Case]:
    pixels = stained(4096, 3600, blobs=[(0.5, 0.5, 0.6)])
    made = [
        Case("generated 20x jpeg", write_slide(place / "a.svs", pixels, (1.0, 4.0), 0.5, compression="jpeg"), 0.5),
        Case(
            "generated 40x jpeg, read at 20x",
            write_slide(place / "b.svs", pixels, (1.0, 4.0), 0.25, compression="jpeg"),
            0.5,
        ),
    ]
    real = {"CMU-1-Small-Region.svs": None, "TCGA-CR-7395-01A-01-TS1.svs": 0.5}
    found = [(folder / name, mpp) for name, mpp in real.items()]
    return made + [Case(path.stem, path, 0.5, mpp) for path, mpp in found if path.exists()]


def peer_loop(path: Path, grid: Grid, coords: Coords) -> None:
    """Read every patch with one thread of OpenSlide."""
    with openslide.OpenSlide(path) as slide:
        down = slide.level_downsamples[grid.level]
        side = round(grid.size0 / down)
        for x, y in coords:
            image = slide.read_region((int(x), int(y)), grid.level, (side, side)).convert("RGB")
            np.asarray(image if side == grid.patch else image.resize((grid.patch, grid.patch), Image.Resampling.BOX))


def _ours(case: Case, grid: Grid, coords: Coords, then: Encode | None) -> None:
    # A new name each time: a reader that still held the slide open would find its tiles decoded.
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / case.path.name
        path.symlink_to(case.path)
        for _ in read_all(path, (case.given, None), grid, coords, then, READERS):
            pass


def _measure(case: Case) -> list[dict[str, Any]]:
    with open_slide(case.path, case.given) as slide:
        grid = lay_grid(slide, case.mpp, 256)
    coords = grid.all()
    runs: dict[str, Callable[[], None]] = {
        "peer": lambda: peer_loop(case.path, grid, coords),
        "pixels": lambda: _ours(case, grid, coords, None),
        "StainTexture": lambda: _ours(case, grid, coords, TEXTURE),
    }
    runs["StainTexture"]()  # processes start and import before anything is timed
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(TURNS):
        for name, work in runs.items():
            times[name].append(_timed(work))
    best = {name: min(found) for name, found in times.items()}
    return [
        _row(f"{case.name}, {len(coords)} patches, {name}", best[name], "read_region loop", best["peer"])
        for name in ("pixels", "StainTexture")
    ]


def _blank_heavy(place: Path) -> list[dict[str, Any]]:
    """The same tissue on a slide of sixteen times the area: survey and patches together."""
    tissue = [(2048, 2048, 3072)]
    small, large = (write_sparse_slide(place / f"{side}.svs", side, tissue) for side in (8192, 32768))

    def whole(path: Path) -> None:
        seen = survey(path, GridSettings(), TissueSettings())
        for _ in read_all(path, (None, None), seen.grid, seen.coords, TEXTURE, READERS):
            pass

    times = [min(_timed(partial(whole, path)) for _ in range(TURNS)) for path in (small, large)]
    return [_row("16 times the glass, same tissue, survey and StainTexture", times[1], "without the glass", times[0])]


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds, worker processes included."""
    before, start = _cpu(), time.perf_counter()
    work()
    return time.perf_counter() - start, _cpu() - before


def _cpu() -> float:
    import psutil

    here = psutil.Process()
    used = [process.cpu_times() for process in (here, *here.children(recursive=True))]
    return float(sum(each.user + each.system for each in used))


def _row(case: str, ours: tuple[float, float], peer: str, theirs: tuple[float, float]) -> dict[str, Any]:
    children = pool(READERS).submit(_peak).result()
    return {
        "case": case,
        "ours_s": round(ours[0], 3),
        "peer": peer,
        "peer_s": round(theirs[0], 3),
        "ratio": round(ours[0] / theirs[0], 3),
        "ours_cpu_s": round(ours[1], 3),
        "peer_cpu_s": round(theirs[1], 3),
        "peak_mb": round(_peak() + READERS * children),
    }


def _peak() -> float:
    """Largest resident memory of this process so far, megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
