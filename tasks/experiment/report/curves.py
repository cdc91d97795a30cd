"""Arms over a quantity that was varied: a line each, with the intervals as bands and chance below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.experiment.report.drawing import sheet
from tasks.experiment.report.numbers import count, decimal
from tasks.experiment.report.palette import QUIET
from tasks.experiment.report.parts import Figure


@dataclass(frozen=True)
class Line:
    """One arm.

    Attributes:
        label: its name
        points: varied quantity -> value and the ends of its interval
        colour: of the line
        dash: matplotlib's line style
        band: opacity of the interval; 0 = not drawn
        width: of the line
    """

    label: str
    points: Mapping[float, tuple[float, float, float]]
    colour: str
    dash: Any = "-"
    band: float = 0.07
    width: float = 1.6


def curves(
    key: str,
    lines: Sequence[Line],
    *,
    title: str,
    x: str,
    y: str,
    caption: str,
    chance: float,
    counts: bool = False,
) -> Figure:
    """Every line in one picture.

    Args:
        key: name of the figure
        lines: in the order of the legend
        title: a few words
        x: label of the horizontal axis, with the unit
        y: the measure
        caption: what the bands are
        chance: of the measure
        counts: the varied quantity is a number of cases: a logarithmic axis with a tick at each
    """
    with sheet(key, 320) as drawn:
        axes = drawn.canvas.subplots()
        for line in lines:
            at = sorted(line.points)
            value, low, high = np.array([line.points[n] for n in at]).T
            if line.band:
                axes.fill_between(at, low, high, color=line.colour, alpha=line.band, lw=0)
            axes.plot(at, value, color=line.colour, ls=line.dash, marker="o", ms=3.5, lw=line.width, label=line.label)
        axes.axhline(chance, color=QUIET, lw=1.0, ls=(0, (4, 3)))
        axes.annotate(
            "chance", (1.01, chance), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=QUIET
        )
        axes.set(xlabel=x, ylabel=y)
        if counts:
            numbers = sorted({n for line in lines for n in line.points})
            axes.set_xscale("log")
            axes.set_xticks(numbers, [f"{n:g}" for n in numbers])
            axes.minorticks_off()
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        drawn.canvas.legend(loc="outside lower left", ncols=2)
    spoken = "; ".join(
        f"{line.label}: " + ", ".join(f"{at:g} {decimal(line.points[at][0])}" for at in sorted(line.points))
        for line in lines
    )
    return Figure(key, drawn.svg, title, caption, count(len(lines), "arm"), f"{y} by {x}. {spoken}.")
