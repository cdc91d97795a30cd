"""Pictures of numbers with intervals: a forest of arms, and the folds behind a mean."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tasks.experiment.report.drawing import sheet
from tasks.experiment.report.numbers import decimal, interval
from tasks.experiment.report.palette import BLUE, QUIET, RULE
from tasks.experiment.report.parts import Figure, Role

_FRAME = 62.0
_LINE, _LETTER, _AXES_WIDTH = 12.0, 5.2, 200.0
"""Points: height of a line of words, width of a letter in it, and about how wide the axes of a figure are."""


@dataclass(frozen=True)
class Estimate:
    """One arm: a number with its interval, and the folds it came from when there are several."""

    label: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    role: Role = "baseline"
    folds: Sequence[float] = ()

    @property
    def colour(self) -> str:
        return BLUE if self.role == "own" else QUIET


def forest(
    key: str,
    estimates: Sequence[Estimate],
    *,
    title: str,
    axis: str,
    caption: str,
    n: str,
    lines: Mapping[str, float] | None = None,
    digits: int = 3,
    signed: bool = False,
) -> Figure:
    """Value and interval of every arm in one picture, best readable with the reference values as vertical lines.

    Args:
        key: name of the figure
        estimates: from top to bottom; an undefined value leaves its row empty and says so
        title: a few words
        axis: label of the horizontal axis, with the unit and the better direction
        caption: what the interval is
        n: cases, in words
        lines: words -> value of a vertical line, such as chance and ceiling
        digits: of the numbers printed at the right
        signed: print a plus sign, for differences
    """
    lines = dict(lines or {})
    with sheet(key, _height(estimates, lines)) as drawn:
        axes = drawn.canvas.subplots()
        for row, estimate in enumerate(estimates):
            if np.isfinite(estimate.low) and np.isfinite(estimate.high):
                axes.plot([estimate.low, estimate.high], [row, row], color=estimate.colour, solid_capstyle="butt")
            axes.plot([estimate.value], [row], "s" if estimate.role == "own" else "o", color=estimate.colour, ms=5.5)
            number = decimal(estimate.value, digits, signed=signed)
            axes.annotate(
                number, (1.02, row), xycoords=("axes fraction", "data"), va="center", ha="left", fontsize=9.5,
                fontweight="bold" if estimate.role == "own" else "normal",
            )  # fmt: skip
        _frame(axes, estimates, lines, axis)
    spoken = "; ".join(
        f"{e.label} {decimal(e.value, digits, signed=signed)}"
        + (f" ({interval(e.low, e.high, digits, signed=signed)})" if interval(e.low, e.high) else "")
        for e in estimates
    )
    alt = f"{title}. {spoken}." + "".join(
        f" {name} {decimal(value, digits + int(0 < abs(value) < 0.01))}." for name, value in lines.items()
    )
    return Figure(key, drawn.svg, title, caption, n, alt)


def dots(
    key: str,
    estimates: Sequence[Estimate],
    *,
    title: str,
    axis: str,
    caption: str,
    n: str,
    lines: Mapping[str, float] | None = None,
) -> Figure:
    """One dot for every fold and a bar at their mean, an arm in each row."""
    lines = dict(lines or {})
    with sheet(key, _height(estimates, lines)) as drawn:
        axes = drawn.canvas.subplots()
        for row, estimate in enumerate(estimates):
            folds = np.asarray(estimate.folds, dtype=float)
            folds = folds[np.isfinite(folds)]
            axes.plot(folds, np.full(len(folds), row), "o", color=estimate.colour, alpha=0.6, ms=5, mew=0)
            if len(folds):
                axes.plot([folds.mean()] * 2, [row - 0.3, row + 0.3], color=estimate.colour, lw=2.2)
        _frame(axes, estimates, lines, axis)
    spoken = "; ".join(f"{e.label}: {', '.join(decimal(fold) for fold in e.folds)}" for e in estimates)
    return Figure(key, drawn.svg, title, caption, n, f"{title}. Values of the folds. {spoken}.")


def _label(estimate: Estimate) -> str:
    return textwrap.fill(estimate.label, 20)


def _height(estimates: Sequence[Estimate], lines: Mapping[str, float]) -> float:
    deepest = max((_label(estimate).count("\n") for estimate in estimates), default=0)
    return _FRAME + (25 + 11 * deepest) * len(estimates) + _LINE * (bool(lines) + len(lines) // 3)


def _frame(axes: Axes, estimates: Sequence[Estimate], lines: Mapping[str, float], axis: str) -> None:
    axes.set_yticks(range(len(estimates)), [_label(estimate) for estimate in estimates])
    axes.set_ylim(len(estimates) - 0.4, -0.6)
    axes.set_xlabel(axis)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    for label, estimate in zip(axes.get_yticklabels(), estimates, strict=True):
        label.set_fontweight("bold" if estimate.role == "own" else "normal")
    ends = [*axes.get_xlim(), *lines.values()]
    if lines and max(ends) - min(ends) < 0.02:
        axes.set_xlim(min(ends) - 0.01, max(ends) + 0.01)
    reference_lines(axes, lines)
    axes.spines["bottom"].set_color(RULE)


def reference_lines(axes: Axes, lines: Mapping[str, float]) -> None:
    """Vertical dashed lines with their words above the axes, on as many levels as they need not to touch."""
    for value in lines.values():
        axes.axvline(value, color=QUIET, lw=1.0, ls=(0, (4, 3)), zorder=0.5)
    low, high = axes.get_xlim()
    points = _AXES_WIDTH / max(high - low, 1e-9)
    ends: list[float] = []
    for name, value in sorted(lines.items(), key=lambda line: line[1]):
        left, width = value * points - len(name) * _LETTER / 2, len(name) * _LETTER
        level = next((i for i, end in enumerate(ends) if end < left), len(ends))
        ends[level : level + 1] = [left + width]
        axes.annotate(
            name, (value, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2 + _LINE * level),
            textcoords="offset points", ha="center", va="bottom", fontsize=9, color=QUIET,
        )  # fmt: skip
