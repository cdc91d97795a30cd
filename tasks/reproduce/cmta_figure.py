"""The curve of `fusion reproduce cmta`: what fusion makes of slides, over how much they know."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.experiment.report import Figure
from tasks.experiment.report.curves import Line, curves
from tasks.experiment.report.palette import INK, QUIET, SERIES
from tasks.reproduce.cmta_runs import EXACT, PUBLISHED
from tasks.reproduce.rows import Row
from tasks.survival.report_tables import CEILING


def fusion_gain(rows: Sequence[Row]) -> Figure | None:
    """c-index over the information of the slides, a line per arm; None without semi-real rows.

    Args:
        rows: of the reproduction
    """
    points: dict[str, dict[float, tuple[float, float, float]]] = {}
    for row in rows:
        if "line" in row:
            points.setdefault(row["line"], {})[row["at"]] = (row["ours"], row["low"], row["high"])
    if not points:
        return None
    dashes = {CEILING: ":", PUBLISHED: "--"}
    colours = dict(zip((arm for arm in points if arm not in dashes), (*SERIES, INK, QUIET), strict=False))
    colours[PUBLISHED] = colours.get(EXACT, QUIET)
    lines = [Line(arm, of, colours.get(arm, QUIET), dashes.get(arm, "-")) for arm, of in points.items()]
    return curves(
        "fusion-gain",
        lines,
        title="What fusion makes of slides, over how much they know",
        x="Information of the simulated slides (correlation with the outcome)",
        y="C-index",
        caption="Semi-real: patients, genes and outcomes are real, slides are simulated. Bands: 95 % intervals over "
        "patients. Dotted: slides read perfectly, genes and age as the ridge reads them.",
        chance=0.5,
    )
