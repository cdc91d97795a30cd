"""Slides -> patch features: one unit of work per slide, on processes of this machine or on a Dask cluster.

A unit takes the slide's lock, looks whether the journal says it is done, reads, encodes, writes whole files, and adds
its line to the journal. It can be killed at any moment and run again; two runs may share one folder.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, UInt8

from data.errors import DataError
from data.slides.catalogue import SlideFile, find_slides
from data.slides.feature_layouts import Layout, SlideFeatures, write_features
from data.slides.grid import NoResolution
from data.slides.journal import FINISHED, Journal, Record, stamp, why_again
from data.slides.locks import holder, try_lock, write_whole
from data.slides.outlines import tissue_geojson
from data.slides.overlay import draw_overlay, jpeg_bytes
from data.slides.reading import Source, read_all
from data.slides.resolution import checked_mpp, read_mpp_table
from data.slides.survey import GridSettings, Survey, survey
from data.slides.tissue import TissueSettings
from data.slides.workers import BrokenProcessPool, pool
from encoders.patch import PatchEncoder
from tasks.experiment.engine import stream
from tasks.survival.contact_sheet import summarise

Tree = dict[str, Any]
PATIENCE = 0.5  # seconds between looks at slides that another run is working on


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
            record = Record(slide.slide_id, state, _in_words(error))
        seconds = round(time.perf_counter() - start, 2)
        return _noted(journal, replace(record, settings=settings, slide=mark, seconds=seconds, at=time.time()))


def _noted(journal: Journal, record: Record) -> Record:
    """The record as it was written to the journal, or with the reason why it was not."""
    try:
        journal.append(record)
    except OSError as error:
        unwritten = f"the journal could not be written ({error.strerror})"
        record = replace(record, warnings=(*record.warnings, unwritten))
    return record


def _in_words(error: Exception) -> str:
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


def resolved_settings(tree: Tree | None = None) -> Tree:
    """Settings with every default filled in, checked. Without an encoder it is `StainTexture`.

    Raises:
        ConfigError: names the wrong option, the nearest right one and what there is
    """
    from tasks.experiment.config import resolve

    return resolve(FeatureSettings, {"encoder": {"class_path": "StainTexture"}, **(tree or {})})


def extract(
    slides: Path,
    out: Path,
    settings: Tree | None = None,
    *,
    layout: Layout = "trident",
    mpp_table: Path | None = None,
    source_mpp: float | None = None,
    resume: bool = False,
    jobs: int | None = None,
    share: Literal["auto", "slides", "regions"] = "auto",
    engine: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[int, list[Record]]:
    """Extract features from every slide of a folder.

    Args:
        slides: folder, CSV list or one slide
        out: feature folder
        settings: constructor arguments of `FeatureSettings`; what is left out has its default
        layout: of the feature files
        mpp_table: CSV slide_id,mpp that wins over the headers
        source_mpp: micrometres per level-0 pixel for headers that say nothing
        resume: continue in a folder that has finished slides, or join another run
        jobs: processes on this machine; None = one per core
        share: the processes take a slide each, or regions of one slide; "auto" takes regions for a learnt encoder and
            for fewer slides than processes
        engine: `tcp://host:port` of a Dask scheduler instead of processes here
        tell: called with one line per slide

    Returns:
        exit code (0 all done or empty, 1 some skipped or failed), and what happened to each slide

    Raises:
        DataError: no slides, two of one name, a bad table, no place to write, or a folder in use without `resume`
        ConfigError, ValueError: bad settings
        EncoderFailed: the encoder cannot take patches of this size
        RunError: the engine cannot be reached
    """
    started = time.monotonic()
    if source_mpp is not None:
        checked_mpp(source_mpp, "--source-mpp")
    chosen = resolved_settings(settings)
    files = find_slides(slides)
    if mpp_table is not None:
        table = read_mpp_table(mpp_table)
        files = [replace(file, mpp=table.get(file.slide_id, file.mpp)) for file in files]
    journal = Journal(out / "journal.jsonl")
    since, known = journal.size(), journal.latest()
    finished = sum(record.state in FINISHED for record in known.values())
    if finished and not resume:
        raise DataError(
            f"{out}: already holds features of {finished} slides. Add --resume to continue or to join a run, or choose "
            "another folder"
        )
    jobs = jobs or os.cpu_count() or 1
    readers = 0 if engine else _readers(chosen, len(files), jobs, share)
    order = Order(out.absolute(), chosen, layout, source_mpp, since, readers)
    _refuse_early(order, on_cluster=engine is not None)
    for file in files:
        again = why_again(known.get(file.slide_id), order.for_slide(file), stamp(file.path), out)
        if resume and again not in (None, "new"):
            tell(f"{file.slide_id}: again, {again}")
    files = [replace(file, path=file.path.absolute()) for file in files]
    rows = _run(files, order, known, 0 if readers else jobs, engine, tell)
    try:
        summarise(rows, order.out, layout, chosen, time.monotonic() - started)
    except OSError as error:
        raise DataError(f"{order.out}: its summary cannot be written; {_in_words(error)}") from None
    return int(any(row.state not in FINISHED for row in rows)), rows


def _refuse_early(order: Order, on_cluster: bool) -> None:
    """Find before the first slide what would fail at every slide: settings, encoder, folder."""
    grid, _ = GridSettings(**order.settings["grid"]), TissueSettings(**order.settings["tissue"])
    if not on_cluster:  # there the workers have the encoder, this process need not
        probe = np.random.default_rng(0).integers(128, 256, (1, grid.patch, grid.patch, 3), np.uint8)
        Encode(json.dumps(order.settings["encoder"], sort_keys=True))(probe)
    try:
        order.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{order.out}: cannot be a folder of features ({error.strerror}); choose another") from error
    if not os.access(order.out, os.W_OK | os.X_OK):
        raise DataError(f"{order.out}: no permission to write into it; chmod it or choose another folder")


def _readers(settings: Tree, slides: int, jobs: int, share: str) -> int:
    if share == "auto":
        from tasks.experiment.signatures import named_class

        central = getattr(named_class(settings["encoder"]["class_path"], (), "encoder"), "central", False)
        share = "regions" if central or slides < jobs else "slides"
    return jobs if share == "regions" else 0


def _run(
    files: Sequence[SlideFile],
    order: Order,
    known: Mapping[str, Record],
    jobs: int,
    engine: str | None,
    tell: Callable[[str], None],
) -> list[Record]:
    """Every slide once; those another run is working on are looked at again until that run has done or left them."""
    rows: dict[str, Record] = {}
    waiting = list(files)
    while waiting:
        busy = []
        for index, ended in stream(extract_slide, [(file, order) for file in waiting], jobs, engine):
            file = waiting[index]
            if isinstance(ended, str):
                busy.append(file)
                continue
            if isinstance(ended, Exception):
                asked = order.for_slide(file)
                failed = Record(file.slide_id, "failed", _in_words(ended), settings=asked, at=time.time())
                ended = _noted(Journal(order.out / "journal.jsonl"), failed)
            rows[file.slide_id] = ended
            kept = " (kept)" if ended == known.get(file.slide_id) else ""
            tell(f"{len(rows)}/{len(files)} {line(ended)}{kept}")
        if len(busy) == len(waiting):
            time.sleep(PATIENCE)
        waiting = busy
    return [rows[file.slide_id] for file in files]


def line(record: Record) -> str:
    """A slide's outcome in one line."""
    said = f"{record.slide_id}: {record.state}"
    if record.state == "done":
        said += f", {record.patches} patches, {record.seconds:g} s"
    return said + "".join(f"; {note}" for note in (record.why, *record.warnings) if note)


def as_row(record: Record) -> Tree:
    """A record flattened for tables and `--json`."""
    row = {key: value for key, value in asdict(record).items() if key not in ("settings", "facts", "slide", "at")}
    return row | dict(record.facts or {})
