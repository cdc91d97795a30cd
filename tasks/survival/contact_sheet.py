"""What a run did to every slide: a table, an HTML page to leaf through, and CLAM's process list."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from data.slides.feature_layouts import Layout
from data.slides.journal import Record
from data.slides.locks import try_lock, write_whole

COLUMNS = ("slide_id", "state", "patches", "seconds", "why", "warnings")
FACTS = ("width", "height", "mpp", "mpp_source", "read_level", "read_downsample", "patch_level0", "tissue_mm2")
# CLAM's words in process_list_autogen.csv
CLAM_STATUS = {"done": "processed", "empty": "processed", "skipped": "failed_seg", "failed": "failed_seg"}


def summarise(rows: Sequence[Record], out: Path, layout: Layout, settings: dict[str, Any], seconds: float) -> None:
    """Write `summary.csv` and `contact_sheet.html` (and CLAM's `process_list_autogen.csv`) into the feature folder.

    Args:
        rows: what happened to each slide
        out: feature folder
        layout: "clam" adds the process list
        settings: of this run, shown on the page
        seconds: of this run
    """
    lock = out / ".locks" / "summary.lock"
    while True:
        with try_lock(lock) as held:
            if held:
                write_whole(out / "summary.csv", summary_csv(rows))
                write_whole(out / "contact_sheet.html", contact_sheet(rows, out, settings, seconds))
                if layout == "clam":
                    write_whole(out / "process_list_autogen.csv", process_list(rows))
                break
        time.sleep(0.1)
    try:
        lock.parent.rmdir()
    except OSError:
        return  # another run holds a lock in it


def summary_csv(rows: Sequence[Record]) -> str:
    """One row per slide."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow((*COLUMNS, *FACTS))
    for row in rows:
        said = (row.slide_id, row.state, row.patches, row.seconds, row.why, "; ".join(row.warnings))
        table.writerow((*said, *((row.facts or {}).get(key, "") for key in FACTS)))
    return text.getvalue()


def process_list(rows: Sequence[Record]) -> str:
    """CLAM's list: slide_id with its suffix, process, status."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("slide_id", "process", "status"))
    for row in rows:
        name = row.slide[0] if row.slide else row.slide_id
        table.writerow((name, int(row.state in ("skipped", "failed")), CLAM_STATUS[row.state]))
    return text.getvalue()


def contact_sheet(rows: Sequence[Record], out: Path, settings: dict[str, Any], seconds: float) -> str:
    """An HTML page: counts, a line per problem, a card per finished slide with its overlay (loaded when in sight)."""
    page = Environment(loader=PackageLoader("tasks.survival", "."), autoescape=True).get_template("contact_sheet.html")
    grid = settings["grid"]
    cards = [
        {"row": row, "facts": row.facts or {}, "picture": name}
        for row in rows
        for name in row.files
        if name.startswith("contours/")
    ]
    return page.render(
        cards=cards,
        problems=[row for row in rows if row.state in ("skipped", "failed")],
        counts=Counter(row.state for row in rows),
        patches=sum(row.patches for row in rows),
        asked=f"{grid['patch']} px at {grid['mpp']:g} micrometres per pixel, overlap {grid['overlap']} px",
        encoder=settings["encoder"]["class_path"].rpartition(".")[2],
        seconds=seconds,
        folder=out.name,
    )
