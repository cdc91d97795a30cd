"""Features of one slide: a unit of work that can be killed at any moment and run again.

It takes the slide's lock, looks whether the journal says it is done, reads, encodes, writes whole files, and adds its
line to the journal; two runs may share one folder.
"""

from __future__ import annotations

import errno
import json
import time
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, UInt8

from data.errors import DataError
from data.slides.catalogue import SlideFile
from data.slides.feature_layouts import Layout, SlideFeatures, write_features
from data.slides.grid import NoResolution
from data.slides.journal import Journal, Record, stamp, why_again
from data.slides.locks import holder, try_lock, write_whole
from data.slides.outlines import tissue_geojson
from data.slides.overlay import draw_overlay, jpeg_bytes
from data.slides.reading import Source, read_all
from data.slides.survey import GridSettings, Survey, survey
from data.slides.tissue import TissueSettings
from data.slides.workers import BrokenProcessPool, pool
from encoders.patch import PatchEncoder

Tree = dict[str, Any]


@dataclass
class FeatureSettings:
    """What is extracted from every slide.

    Args:
        encoder: pixels of a patch -> features
        grid: resolution, size and choice of patches
        tissue: how tissue is told from glass
        precision: of the features on disk
    """

    namespaces: ClassVar[tuple[str, ...]] = ("encoders.patch",)

    encoder: PatchEncoder
    grid: GridSettings = field(default_factory=GridSettings)
    tissue: TissueSettings = field(default_factory=TissueSettings)
    precision: Literal["float16", "float32"] = "float32"


class EncoderFailed(RuntimeError):
    """An encoder raised; the message names it and the batch."""


@lru_cache(maxsize=1)
def _encoder(spec: str) -> PatchEncoder:
    """The encoder of this process, built once."""
    from tasks.experiment.config import build

    settings: FeatureSettings = build(FeatureSettings, {"encoder": json.loads(spec)})
    return settings.encoder


@dataclass(frozen=True)
class Encode:
    """Encode pixels in whichever process this is called; travels as the text of a config."""

    spec: str

    def __call__(self, pixels: UInt8[np.ndarray, "p y x 3"]) -> Float[np.ndarray, "p c"]:
        encoder = _encoder(self.spec)
        try:
            found = encoder(pixels)
        except Exception as error:
            raise EncoderFailed(
                f"encoder {encoder.name} failed on a batch of {len(pixels)} patches ({type(error).__name__}: {error})"
            ) from error
        if found.shape != (len(pixels), encoder.width):
            raise EncoderFailed(
                f"encoder {encoder.name} gave features of shape {found.shape} for {len(pixels)} patches; "
                f"expected ({len(pixels)}, {encoder.width})"
            )
        if not np.isfinite(found).all():
            raise EncoderFailed(f"encoder {encoder.name} gave features that are not finite")
        return found


@dataclass(frozen=True)
class Order:
    """What is asked of a run, the same for every slide.

    Attributes:
        out: feature folder
        settings: resolved `FeatureSettings`
        layout: of the files
        source_mpp: micrometres per pixel for headers that say nothing
        since: bytes of the journal when the run began; what another run did to a slide since then is not tried again.
            Not a time: the clocks of two machines differ, and one of them may be set back
        readers: processes that read one slide together; 0 = the process of the unit
    """

    out: Path
    settings: Tree
    layout: Layout
    source_mpp: float | None
    since: int
    readers: int = 0

    def for_slide(self, slide: SlideFile) -> Tree:
        """Everything that shapes this slide's files, flat, to be compared with the journal."""
        flat = {"layout": self.layout, "source_mpp": self.source_mpp, "slide_mpp": slide.mpp}
        for key, value in self.settings.items():
            flat |= value if key == "grid" else {key: value}
        return json.loads(json.dumps(flat))


def extract_slide(slide: SlideFile, order: Order) -> Record | str:
    """One unit: a slide's features, files and journal line.

    Returns:
        what happened, or the name of the process that is working on this slide
    """
    journal, lock = Journal(order.out / "journal.jsonl"), order.out / ".locks" / f"{slide.slide_id}.lock"
    with try_lock(lock) as held:
        if not held:
            return holder(lock)
        settings, mark = order.for_slide(slide), stamp(slide.path)
        before, lately = journal.last(slide.slide_id), journal.last(slide.slide_id, order.since)
        tried_since = lately is not None and lately.settings == settings
        if before is not None and (tried_since or why_again(before, settings, mark, order.out) is None):
            return before
        start = time.perf_counter()
        try:
            record = _extract(slide, order)
        except Exception as error:  # one bad slide must not end the others: whatever it raised is its line
            state: Literal["skipped", "failed"] = "skipped" if isinstance(error, NoResolution) else "failed"
            record = Record(slide.slide_id, state, in_words(error))
        seconds = round(time.perf_counter() - start, 2)
        return noted(journal, replace(record, settings=settings, slide=mark, seconds=seconds, at=time.time()))


def noted(journal: Journal, record: Record) -> Record:
    """The record as it was written to the journal, or with the reason why it was not."""
    try:
        journal.append(record)
    except OSError as error:
        unwritten = f"the journal could not be written ({error.strerror})"
        record = replace(record, warnings=(*record.warnings, unwritten))
    return record


def in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space and repeat with --resume"
    if isinstance(error, DataError | EncoderFailed):
        return " ".join(str(error).split())
    return " ".join(f"{type(error).__name__}: {error}".split())


def _extract(slide: SlideFile, order: Order) -> Record:
    grid, tissue = GridSettings(**order.settings["grid"]), TissueSettings(**order.settings["tissue"])
    source: Source = (slide.mpp, order.source_mpp)
    try:
        # In a reader process too: a decoder that crashes takes that process, not the run.
        look = (
            pool(order.readers).submit(survey, slide.path, grid, tissue, *source).result()
            if order.readers
            else survey(slide.path, grid, tissue, *source)
        )
    except BrokenProcessPool as error:
        raise DataError(f"slide {slide.path.name}: a reader process died while opening it") from error
    features, encoder = _features(slide.path, source, look, order)
    made = SlideFeatures(slide.slide_id, look.grid, look.level, look.coords, features, encoder, look.resolution.source)
    files = _pictures(slide.slide_id, look, order.out) + write_features(order.out, made, order.layout)
    return Record(
        slide.slide_id,
        "done" if len(look.coords) else "empty",
        "" if len(look.coords) else "no tissue" if not look.tissue.any() else "no patch with enough tissue",
        patches=len(look.coords),
        warnings=look.warnings,
        facts=_facts(look, encoder, features.shape[1]),
        files=tuple(str(file.relative_to(order.out)) for file in files),
    )


def _features(path: Path, source: Source, look: Survey, order: Order) -> tuple[Float[np.ndarray, "p c"], str]:
    spec = json.dumps(order.settings["encoder"], sort_keys=True)
    encode, encoder = Encode(spec), _encoder(spec)
    out = np.empty((len(look.coords), encoder.width), order.settings["precision"])
    then = None if encoder.central else encode
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    for rows, found in read_all(path, source, look.grid, look.coords, then, order.readers):
        if then is not None:
            out[rows] = found
            continue
        waiting.append((rows, found))
        while sum(len(rows) for rows, _ in waiting) >= encoder.batch:
            waiting = _encode_batch(waiting, encoder.batch, encode, out)
    while waiting:
        waiting = _encode_batch(waiting, encoder.batch, encode, out)
    return out, encoder.name


def _encode_batch(
    waiting: list[tuple[np.ndarray, np.ndarray]], batch: int, encode: Encode, out: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Encode the first `batch` patches that wait; give back the rest."""
    rows, pixels = (np.concatenate(part) for part in zip(*waiting, strict=True))
    out[rows[:batch]] = encode(pixels[:batch])
    return [(rows[batch:], pixels[batch:])] if len(rows) > batch else []


def _pictures(slide_id: str, look: Survey, out: Path) -> list[Path]:
    thumb, contour = out / "thumbnails" / f"{slide_id}.jpg", out / "contours" / f"{slide_id}.jpg"
    geojson = out / "contours_geojson" / f"{slide_id}.geojson"
    write_whole(thumb, jpeg_bytes(look.view.pixels))
    write_whole(contour, jpeg_bytes(draw_overlay(look.view, look.polygons, look.coords, look.grid.size0)))
    write_whole(geojson, tissue_geojson(look.polygons))
    return [thumb, contour, geojson]


def _facts(look: Survey, encoder: str, width: int) -> Tree:
    grid = look.grid
    millimetres = grid.width * grid.height * (grid.slide_mpp / 1000) ** 2
    return {
        "width": grid.width,
        "height": grid.height,
        "mpp": round(grid.slide_mpp, 5),
        "mpp_source": look.resolution.source,
        "read_level": grid.level,
        "read_downsample": round(look.level.down * grid.ratio, 4),
        "patch_level0": grid.size0,
        "tissue_mm2": round(float(look.tissue.mean()) * millimetres, 3),
        "encoder": encoder,
        "feature_width": width,
    }
