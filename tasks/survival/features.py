"""Slides -> patch features: one unit of work per slide, on processes of this machine or on a Dask cluster."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data.errors import DataError
from data.slides.catalogue import SlideFile, find_slides
from data.slides.feature_layouts import Layout
from data.slides.journal import FINISHED, Journal, Record, stamp, why_again
from data.slides.resolution import checked_mpp, read_mpp_table
from data.slides.survey import GridSettings
from data.slides.tissue import TissueSettings
from tasks.experiment.engine import stream
from tasks.survival.contact_sheet import summarise
from tasks.survival.slide_unit import Encode, FeatureSettings, Order, extract_slide, in_words, noted

Tree = dict[str, Any]
PATIENCE = 0.5  # seconds between looks at slides that another run is working on


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
        raise DataError(f"{order.out}: its summary cannot be written; {in_words(error)}") from None
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
                failed = Record(file.slide_id, "failed", in_words(ended), settings=asked, at=time.time())
                ended = noted(Journal(order.out / "journal.jsonl"), failed)
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
