"""`fusion demo --gallery DIR`: small pictures of the demo's runs, and the page that shows them (docs/gallery.md)."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from data.slides.generated import stained, write_slide
from data.slides.overlay import draw_overlay, shrink_to
from data.slides.survey import GridSettings, survey
from data.slides.tissue import TissueSettings
from tasks.demo.page import Ended
from tasks.experiment.folder import write_whole
from tasks.experiment.report import Figure
from tasks.experiment.report.palette import PAPER

PAGE, PICTURES = "gallery.md", "gallery"
MOST_BYTES = 60_000
CHOSEN = {
    "survival": ("arms", "calibration"),
    "melody": ("song-0-song", "song-0-generated"),
    "fmri": ("arms", "confusion"),
    "retrieval": ("arms-3", "right-answer-1", "wrong-answer-1"),
}
"""Task -> names of the figures of its report that are shown."""
BLOBS = ((0.34, 0.42, 0.33), (0.68, 0.62, 0.27), (0.85, 0.2, 0.1))
"""Tissue of the generated slide."""
HEAD = """# Gallery

Every picture is drawn by the code, from simulated data: `fusion demo --gallery docs` writes this page again.
"""


def write(ended: Sequence[Ended], folder: Path) -> Path:
    """Write the page and its pictures.

    Args:
        ended: the parts of the demo, all of them reported
        folder: gets `gallery.md` and a folder `gallery`

    Raises:
        ValueError: a part has no report or lacks a figure, or a picture is over 60 kB
    """
    said = [HEAD]
    for one in ended:
        said.append(f"## {one.part.title}\n\n{one.part.about}\n")
        said += [f"{verdict.sentence}\n" for verdict in one.verdicts]
        said += [_shown(figure.under(one.part.task), folder) for figure in _figures(one)]
    said.append("## Slides: tissue and patches\n")
    said.append(_shown(slide_figure(), folder))
    path = folder / PAGE
    write_whole(path, "\n".join(said))
    return path


def slide_figure() -> Figure:
    """A generated slide with the tissue that was found and the patches that would be read."""
    with tempfile.TemporaryDirectory() as place:
        slide = write_slide(Path(place) / "slide.svs", stained(4096, 3072, blobs=BLOBS), (1.0, 4.0))
        look = survey(slide, GridSettings(), TissueSettings())
    pixels = shrink_to(draw_overlay(look.view, look.polygons, look.coords, look.grid.size0), 480)
    return Figure(
        "tissue", png_bytes(pixels), "Tissue and patches of a slide",
        "Outlines of tissue are green, of holes orange; every blue square is a patch that an encoder reads.",
        f"{len(look.coords)} patches", "A generated slide, its tissue outlined, with a grid of patches.",
    )  # fmt: skip


def png_bytes(pixels: np.ndarray) -> bytes:
    """An RGB picture as PNG."""
    out = io.BytesIO()
    Image.fromarray(pixels).quantize(128).save(out, "PNG", optimize=True)
    return out.getvalue()


def _figures(one: Ended) -> Iterator[Figure]:
    sections = one.page.sections if one.page is not None else []
    there = {part.key: part for section in sections for part in section.parts if isinstance(part, Figure)}
    for key in CHOSEN[one.part.task]:
        if key not in there:
            known = ", ".join(there) or "none"
            raise ValueError(f"gallery: {one.run} has no figure '{key}' (there are {known}); repeat `fusion demo`")
        yield there[key]


def _shown(figure: Figure, folder: Path) -> str:
    """Save a picture on white, and the lines that show it."""
    if isinstance(figure.image, str):
        ground = f'<rect width="100%" height="100%" fill="{PAPER}"/>'
        end = figure.image.index(">") + 1
        figure = replace(figure, image=figure.image[:end] + ground + figure.image[end:])
    path = figure.save(folder / PICTURES)
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"gallery: {path} has {size:,} bytes, over {MOST_BYTES:,}; choose another figure")
    alt = figure.alt.replace("[", "(").replace("]", ")")
    return f"**{figure.title}.** {figure.caption} n = {figure.n}.\n\n![{alt}]({PICTURES}/{path.name})\n"
