"""Figures of a brain decoder: who is confused with whom, classes and subjects apart, and timing."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from tasks.experiment.compare import Interval
from tasks.experiment.report import Figure
from tasks.experiment.report.drawing import sheet
from tasks.experiment.report.estimates import reference_lines
from tasks.experiment.report.numbers import count, decimal
from tasks.experiment.report.palette import BLUE, INK, PAPER, QUIET, RULE, VERMILLION

MOST_CLASSES = 24
"""A confusion matrix with more classes than this cannot be read in a page."""

_DASH = (0, (4, 3))


def confusion(counts: Int[np.ndarray, "k k"], names: Sequence[str], arm: str, n: str) -> Figure:
    """Of the samples of each class, the share that was taken for each class.

    Args:
        counts: row = the truth, column = what was decoded
        names: of the classes
        arm: which decoder
        n: samples, in words
    """
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(names)
    with sheet("confusion", 96 + 26 * size if size <= 12 else 110 + 15 * size) as drawn:
        axes = drawn.canvas.subplots()
        for row in range(size):
            for column in range(size):
                value = float(share[row, column])
                axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=BLUE, alpha=value, lw=0))
                if value >= 0.005 and size <= 12:
                    axes.text(
                        column, row, f"{value:.2f}".removeprefix("0"), ha="center", va="center", fontsize=9.5,
                        color=PAPER if value > 0.55 else INK,
                    )  # fmt: skip
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xlabel="Decoded as", ylabel="Shown")
        short = [textwrap.shorten(name, 16, placeholder="…") for name in names]
        axes.set_xticks(range(size), short, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(size), short)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for edge in range(size + 1):
            axes.axhline(edge - 0.5, color=RULE, lw=0.6)
            axes.axvline(edge - 0.5, color=RULE, lw=0.6)
    worst = _worst_confusion(share, names)
    spoken = "; ".join(f"{name} {decimal(float(share[i, i]), 2)}" for i, name in enumerate(names))
    return Figure(
        "confusion", drawn.svg, f"Who is taken for whom by {arm}",
        f"Share of each row's samples; the diagonal is right. {worst}", n, f"Right per class: {spoken}. {worst}",
    )  # fmt: skip


def by_group(
    key: str, groups: Sequence[str], arms: Mapping[str, Sequence[Interval]], *, title: str, axis: str, caption: str,
    n: str, lines: Mapping[str, float],
) -> Figure:  # fmt: skip
    """A number per class or per subject, for our own arm (first, emphasised) and at most one other.

    Args:
        key: name of the figure
        groups: rows, from top to bottom
        arms: name -> one interval per row
        title: a few words
        axis: label of the horizontal axis
        caption: what the intervals are
        n: samples, in words
        lines: words -> value of a vertical line
    """
    with sheet(key, 78 + 24 * len(groups) + 14 * len(arms)) as drawn:
        axes = drawn.canvas.subplots()
        for place, (arm, values) in enumerate(arms.items()):
            colour, marker = (BLUE, "s") if place == 0 else (QUIET, "o")
            offset = 0.0 if len(arms) == 1 else (-0.14, 0.14)[place]
            for row, value in enumerate(values):
                if np.isfinite(value.low) and np.isfinite(value.high):
                    axes.plot([value.low, value.high], [row + offset] * 2, color=colour, solid_capstyle="butt", lw=1.4)
            points = [value.value for value in values]
            axes.plot(points, np.arange(len(groups)) + offset, marker, color=colour, ms=5, label=arm, ls="none")
        _rows(axes, groups)
        axes.set_xlabel(axis)
        reference_lines(axes, lines)
        if len(arms) > 1:
            drawn.canvas.legend(loc="outside lower left", ncols=2)
    spoken = "; ".join(
        f"{arm}: " + ", ".join(f"{g} {decimal(v.value, 2)}" for g, v in zip(groups, values, strict=True))
        for arm, values in arms.items()
    )
    return Figure(key, drawn.svg, title, caption, n, f"{title}. {spoken}.")


def evoked(table: pd.DataFrame) -> Figure:
    """The response to all events alike, and where the stated lag puts the window that is decoded.

    Args:
        table: subject, seconds (from the labelled onset), mean (in units of the peak), error (over runs), lag,
            duration, events; a curve per subject
    """
    lag, duration = float(table["lag"].iloc[0]), float(table["duration"].median())
    subjects = list(dict.fromkeys(table["subject"]))
    mean = table.groupby("seconds", sort=True)["mean"].mean()
    with sheet("evoked", 230) as drawn:
        axes = drawn.canvas.subplots()
        axes.axhline(0, color=RULE, lw=1.0)
        axes.axvspan(lag, lag + duration, color=BLUE, alpha=0.10, lw=0)
        if len(subjects) == 1:
            error = table["error"].to_numpy(dtype=float)
            low, high = (table["mean"] - error, table["mean"] + error)
            axes.fill_between(table["seconds"], low, high, color=BLUE, alpha=0.25, lw=0)
        else:
            for _, of in table.groupby("subject"):
                axes.plot(of["seconds"], of["mean"], color=BLUE, lw=0.9, alpha=0.4)
        axes.plot(mean.index, mean, color=BLUE, marker="o", ms=3.5, lw=2.0)
        axes.axvline(0, color=QUIET, lw=1.0, ls=_DASH)
        axes.axvline(lag, color=VERMILLION, lw=1.4)
        _over(axes, f"stated lag {lag:g} s", lag, VERMILLION)
        axes.set(xlabel="Seconds from the labelled onset", ylabel="Response (share of its peak)")
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
    peak = float(mean.index[int(np.argmax(mean))])
    curves = "the band is the standard error over runs" if len(subjects) == 1 else "thin lines are subjects"
    caption = (
        f"Response to every event, blind to class; {curves}. The shaded {duration:g} s after the stated lag are what "
        "is decoded. A lag is right when that window covers the response, whatever is decoded from it."
    )
    n = f"{count(int(table.groupby('subject')['events'].first().sum()), 'event')}, {count(len(subjects), 'subject')}"
    return Figure(
        "evoked", drawn.svg, "Is the stated lag right?", caption, n,
        f"Response over time, highest {peak:g} s after the labelled onset; stated lag {lag:g} s.",
    )  # fmt: skip


def picture_rows(
    shown: Float[np.ndarray, "n i j 3"], made: Float[np.ndarray, "n i j 3"], names: Sequence[str]
) -> Figure:
    """What was shown above what was made of the brain, column by column.

    Args:
        shown, made: pictures from 0 to 1
        names: of the columns
    """
    canvas = Canvas(figsize=(1.15 * len(names) + 0.6, 2.9))
    axes = canvas.subplots(2, len(names), squeeze=False)
    for row, (words, pictures) in enumerate((("shown", shown), ("decoded", made))):
        for column, (name, picture) in enumerate(zip(names, pictures, strict=True)):
            axes[row, column].imshow(picture, interpolation="nearest")
            axes[row, column].set(xticks=[], yticks=[])
            axes[row, column].spines[:].set_visible(False)
            if row == 0:
                axes[row, column].set_title(textwrap.shorten(name, 14, placeholder="…"), fontsize=9)
        axes[row, 0].set_ylabel(words, fontsize=9)
    out = io.BytesIO()
    canvas.savefig(out, format="png", dpi=110, facecolor="white", bbox_inches="tight", metadata={"Software": None})
    n = count(len(names), "sample")
    return Figure(
        "reconstructed", out.getvalue(), "What was shown, and what was decoded",
        "The first held-out sample of each candidate in the first fold, not the best ones.", n,
        f"Pictures of {', '.join(names)}, each above its reconstruction.", wide=len(names) > 4,
    )  # fmt: skip


def lag_sweep(
    lags: Sequence[float], values: Sequence[Interval], lag: float, arm: str, n: str, lines: Mapping[str, float]
) -> Figure:
    """Accuracy of one baseline when the labels are moved, with the stated lag marked.

    Args:
        lags: seconds
        values: accuracy at each
        lag: the stated one
        arm: which baseline
        n: samples, in words
        lines: words -> value of a horizontal line
    """
    with sheet("lag-sweep", 220) as drawn:
        axes = drawn.canvas.subplots()
        low, high = ([getattr(value, end) for value in values] for end in ("low", "high"))
        axes.fill_between(lags, low, high, color=BLUE, alpha=0.18, lw=0)
        axes.plot(lags, [value.value for value in values], color=BLUE, marker="o", ms=4)
        for name, value in lines.items():
            axes.axhline(value, color=QUIET, lw=1.0, ls=_DASH)
            axes.annotate(name, (1.01, value), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=QUIET)
        axes.axvline(lag, color=VERMILLION, lw=1.4)
        _over(axes, f"stated lag {lag:g} s", lag, VERMILLION)
        axes.set(xlabel="Lag in seconds", ylabel="Accuracy", ylim=(0, 1))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
    best = lags[int(np.argmax([value.value for value in values]))]
    caption = (
        f"{arm} on the same folds with every label moved by the lag; 95 % intervals. The lag of this run was stated "
        f"beforehand; picking the best one here ({best:g} s) would look at the samples it is scored on."
    )
    spoken = "; ".join(f"{at:g} s {decimal(value.value, 2)}" for at, value in zip(lags, values, strict=True))
    return Figure("lag-sweep", drawn.svg, "Accuracy at other lags", caption, n, f"Accuracy by lag: {spoken}.")


def _worst_confusion(share: Float[np.ndarray, "k k"], names: Sequence[str]) -> str:
    wrong = share - np.diag(np.diag(share))
    if not wrong.any():
        return "Nothing is confused."
    row, column = divmod(int(np.argmax(wrong)), len(names))
    return f"Most often {names[row]} is taken for {names[column]} ({decimal(float(wrong[row, column]), 2)})."


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [textwrap.shorten(name, 22, placeholder="…") for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _over(axes: Axes, words: str, at: float, colour: str) -> None:
    axes.annotate(
        words, (at, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
        ha="center", va="bottom", fontsize=9.5, color=colour,
    )  # fmt: skip
