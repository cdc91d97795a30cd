"""matplotlib to small SVG that goes inside a page: deterministic, without ids that clash, text left as text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure as Canvas

from tasks.experiment.report.palette import INK, QUIET, RULE, SERIES

WIDTH = 360.0
"""Width of a figure in points; a phone shows it one to one, so text is never below 9 pixels there."""

STYLE: dict[Any, Any] = {
    "font.size": 10.0,
    "font.family": "sans-serif",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10.0,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "axes.edgecolor": QUIET,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "axes.prop_cycle": cycler(color=list(SERIES)),
    "axes.unicode_minus": True,
    "svg.fonttype": "none",
    "image.composite_image": False,
}


@dataclass
class Sheet:
    """A figure while it is drawn, and its SVG afterwards."""

    canvas: Canvas
    svg: str = ""


@contextmanager
def sheet(key: str, height: float | int, width: float | int = WIDTH) -> Iterator[Sheet]:
    """Draw on `sheet.canvas` inside the block; read `sheet.svg` after it.

    Args:
        key: name of the figure, unique within a page; every id in the SVG starts with it
        height: in points
        width: in points
    """
    with mpl.rc_context({**STYLE, "svg.hashsalt": key}):
        drawn = Sheet(Canvas(figsize=(width / 72, height / 72), layout="constrained"))
        yield drawn
        out = io.StringIO()
        drawn.canvas.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn.svg = _compact(out.getvalue(), key)


def _compact(svg: str, key: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg).replace("<svg ", '<svg font-family="sans-serif" ', 1)
    svg = re.sub(r'="[^"]*"', lambda attribute: re.sub(r"(?<=\d\.\d\d)\d+", "", attribute[0]), svg)
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda i: f' id="{key}-{i[1]}"' if i[1] in used else "", svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{key}-", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg)
    return re.sub(r"> +<", "><", svg).replace(" />", "/>").strip()
