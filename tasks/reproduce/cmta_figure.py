"""The curve of `fusion reproduce cmta`: what fusion makes of slides, over how much they know."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tasks.experiment.report import Figure
from tasks.experiment.report.drawing import sheet
from tasks.experiment.report.numbers import decimal
from tasks.experiment.report.palette import INK, QUIET, SERIES
from tasks.reproduce.rows import Row

_NAME = re.compile(r"semi-real, information (?P<amount>[\d.]+): (?P<arm>.+)")
_ENDS = re.compile(r"95 % interval ([\d.]+) to ([\d.]+)")


def curves(rows: Sequence[Row]) -> Figure | None:
    """c-index over the information of the slides, a line per arm; None without semi-real rows.

    Args:
        rows: of the reproduction
    """
    points: dict[str, dict[float, tuple[float, float, float]]] = {}
    for row in rows:
        named, ends = _NAME.fullmatch(row["name"]), _ENDS.search(row["note"])
        if named and ends:
            at = float(named["amount"])
            points.setdefault(named["arm"], {})[at] = (row["ours"], float(ends[1]), float(ends[2]))
    if not points:
        return None
    colours = dict(zip((arm for arm in points if arm != "ceiling"), (*SERIES, INK, QUIET), strict=False))
    with sheet("fusion-gain", 320) as drawn:
        axes = drawn.canvas.subplots()
        for arm, of in points.items():
            amounts = sorted(of)
            value, low, high = (np.array([of[at][k] for at in amounts]) for k in range(3))
            colour = colours.get(arm, QUIET)
            axes.plot(
                amounts, value, color=colour, marker="o", ms=3.5, lw=1.6, ls=":" if arm == "ceiling" else "-", label=arm
            )
            axes.fill_between(amounts, low, high, color=colour, alpha=0.07, lw=0)
        axes.axhline(0.5, color=QUIET, lw=1.0, ls="--")
        axes.set(xlabel="Information of the simulated slides (correlation with the outcome)", ylabel="c-index")
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        drawn.canvas.legend(loc="outside lower left", ncols=3)
    spoken = "; ".join(
        f"{arm}: " + ", ".join(f"{at:g} {decimal(of[at][0])}" for at in sorted(of)) for arm, of in points.items()
    )
    return Figure(
        "fusion-gain", drawn.svg, "What fusion makes of slides, over how much they know",
        "Semi-real: patients, genes and outcomes are real, slides are simulated. Bands: 95 % intervals over patients. "
        "Dotted: slides read perfectly, genes and age as the ridge reads them. Dashed: chance.",
        f"{len(points)} arms", f"c-index by information. {spoken}.",
    )  # fmt: skip
