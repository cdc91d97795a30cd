"""The piano roll of a melody: rows of bars, a box per phrase, structural notes marked."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Patch, Rectangle

from data.errors import DataError
from data.music.key import TONICS
from data.music.melody import TICKS, Melody, bar_ticks
from tasks.experiment.report import Figure
from tasks.experiment.report.drawing import STYLE, WIDTH, sheet
from tasks.experiment.report.palette import AMBER, BLUE, PAPER, QUIET, RULE, VERMILLION

Skeleton = Bool[np.ndarray, " n"] | Melody | None
ENDINGS = (".png", ".svg")
_ROW, _HEAD = 118.0, 34.0
"""Points of a row, and of what stands above them."""
_MOST_ROWS = 60


def write_roll(path: Path, melody: Melody, skeleton: Skeleton = None, bars: int = 8) -> None:
    """Write a picture, PNG or SVG by its ending.

    Args:
        path: of the picture
        melody: what is drawn
        skeleton: which of its notes are structural, or notes of their own, drawn as outlines
        bars: in a row

    Raises:
        DataError: another ending, or the folder is not there or not writable
    """
    if path.suffix.lower() not in ENDINGS:
        raise DataError(f"{path}: a picture ends in {' or '.join(ENDINGS)}; rename it")
    style = {**STYLE, "savefig.facecolor": PAPER, "svg.hashsalt": "roll"}
    with mpl.rc_context(style), _any_script():
        canvas = Canvas(figsize=(760 / 72, _height(melody, bars) / 72), layout="constrained")
        FigureCanvasAgg(canvas)
        _draw(canvas, melody, skeleton, bars)
        try:
            metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
            canvas.savefig(path, dpi=144, format=path.suffix[1:].lower(), metadata=metadata)
        except OSError as problem:
            raise DataError(f"{path}: {problem.strerror or problem}; name another place") from None


def roll_figure(key: str, title: str, melody: Melody, skeleton: Skeleton = None, bars: int = 4) -> Figure:
    """The same as a figure of a report.

    Args:
        key: of the figure, unique within the page
        title: of the figure
        melody: what is drawn
        skeleton: see `write_roll`
        bars: in a row
    """
    with _any_script(), sheet(key, _height(melody, bars), WIDTH) as drawn:
        _draw(drawn.canvas, melody, skeleton, bars)
    marked = 0 if skeleton is None else len(skeleton) if isinstance(skeleton, Melody) else int(skeleton.sum())
    n = f"{len(melody)} notes, {marked} of the skeleton"
    phrases = "unknown phrases" if melody.phrase is None else f"{int(melody.phrase[-1]) + 1} phrases"
    lowest, highest = (f"{TONICS[pitch % 12]}{pitch // 12 - 1}" for pitch in (melody.pitch.min(), melody.pitch.max()))
    alt = f"{_heading(melody)}: {n}, {phrases}, from {lowest} to {highest}."
    caption = "Time runs along the bars, numbered below, and goes on in the next row; a box is a phrase."
    return Figure(key, drawn.svg, title, caption, n, alt)


@contextmanager
def _any_script() -> Iterator[None]:
    """Titles may be in any script: a sign that the font lacks is a box in a PNG, and nobody has to be told."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def _rows(melody: Melody, bars: int) -> list[tuple[int, int]]:
    """First and last tick of each row."""
    begins = melody.bars[melody.bar_of[0] :][::bars].tolist()
    if len(begins) > _MOST_ROWS:
        raise DataError(f"melody {melody.name}: {len(begins)} rows of {bars} bars, over {_MOST_ROWS}; cut it")
    usual = bars * (bar_ticks(melody.metre) if melody.metre else 4 * TICKS)
    ends = [*begins[1:], max(melody.end, begins[-1] + usual if len(begins) > 1 else 0)]
    return list(zip(begins, ends, strict=True))


def _height(melody: Melody, bars: int) -> float:
    return _HEAD + _ROW * len(_rows(melody, bars))


def _draw(canvas: Canvas, melody: Melody, skeleton: Skeleton, bars: int) -> None:
    rows = _rows(melody, bars)
    width = max(end - begin for begin, end in rows)
    others = skeleton.pitch if isinstance(skeleton, Melody) else melody.pitch[:0]
    low, high = (int(bound(np.r_[melody.pitch, others])) for bound in (np.min, np.max))
    plots = canvas.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axes, (begin, end) in zip(plots, rows, strict=True):
        axes.set(xlim=(begin - 2, begin + width + 2), ylim=(low - 2.5, high + 4.5))
        _paper(axes, melody, begin, end, low, high)
        _boxes(axes, melody, begin, end, low, high)
        _notes(axes, melody, skeleton, begin, end)
    plots[0].set_title(_heading(melody))
    handles = [Patch(facecolor=BLUE, alpha=0.45, label="note")]
    if isinstance(skeleton, Melody):
        handles.append(Patch(facecolor="none", edgecolor=VERMILLION, label="skeleton"))
    elif skeleton is not None:
        handles.append(Patch(facecolor=VERMILLION, label="skeleton note"))
    if melody.phrase is not None:
        handles.append(Patch(facecolor=AMBER, alpha=0.16, label="phrase"))
    canvas.legend(handles=handles, loc="outside upper right", ncols=3)


def _heading(melody: Melody) -> str:
    title = melody.about.get("title", melody.name)
    said = ["".join(sign for sign in title if sign.isprintable())[:60]]
    if melody.key is not None:
        said.append(str(melody.key))
    if melody.metre is not None:
        said.append(f"{melody.metre[0]}/{melody.metre[1]}")
    return ", ".join(said).replace("$", r"\$")


def _paper(axes: Axes, melody: Melody, begin: int, end: int, low: int, high: int) -> None:
    """Lines of the tonic (else of C) and of the bars."""
    home = 0 if melody.key is None else melody.key.tonic
    named = [pitch for pitch in range(low - 2, high + 3) if pitch % 12 == home] or [low]
    for pitch in named:
        axes.axhline(pitch, color=RULE, lw=0.8, zorder=0)
    axes.set_yticks(named, [f"{TONICS[pitch % 12]}{pitch // 12 - 1}" for pitch in named])
    inside = [(number, int(bar)) for number, bar in enumerate(melody.bars, 1) if begin <= bar < end]
    for _, bar in inside:
        axes.axvline(bar, color=RULE, lw=0.8, zorder=0)
    axes.set_xticks([bar for _, bar in inside], [str(number) for number, _ in inside])
    axes.tick_params(length=0, labelcolor=QUIET)
    axes.spines[:].set_visible(False)


def _boxes(axes: Axes, melody: Melody, begin: int, end: int, low: int, high: int) -> None:
    if melody.phrase is None:
        return
    for phrase in range(int(melody.phrase[-1]) + 1):
        inside = np.flatnonzero(melody.phrase == phrase)
        first, last = int(melody.onset[inside[0]]), int(melody.onset[inside[-1]] + melody.duration[inside[-1]])
        left, right = max(first, begin), min(last, end)
        if left >= right:
            continue
        box = Rectangle((left, low - 2), right - left, high - low + 6, facecolor=AMBER, lw=0, zorder=0.5)
        box.set_alpha(0.22 if phrase % 2 else 0.1)
        axes.add_patch(box)
        number = str(phrase + 1) if left == first else f"({phrase + 1})"
        axes.text(left + 1, high + 3.6, number, va="top", ha="left", color=QUIET, fontsize=9)


def _notes(axes: Axes, melody: Melody, skeleton: Skeleton, begin: int, end: int) -> None:
    marked = np.zeros(len(melody), bool) if skeleton is None or isinstance(skeleton, Melody) else skeleton
    for at in np.flatnonzero((melody.onset < end) & (melody.onset + melody.duration > begin)):
        left = max(int(melody.onset[at]), begin)
        right = min(int(melody.onset[at] + melody.duration[at]), end)
        note = Rectangle((left + 0.4, melody.pitch[at] - 0.45), right - left - 0.8, 0.9, lw=0, zorder=2)
        note.set(facecolor=VERMILLION if marked[at] else BLUE, alpha=1.0 if marked[at] else 0.45)
        axes.add_patch(note)
    if isinstance(skeleton, Melody):
        for onset, long, pitch in zip(skeleton.onset, skeleton.duration, skeleton.pitch, strict=True):
            if begin <= onset < end:
                outline = Rectangle((onset, pitch - 0.6), min(long, end - onset), 1.2, fill=False, zorder=3)
                outline.set(edgecolor=VERMILLION, linewidth=1.2)
                axes.add_patch(outline)
