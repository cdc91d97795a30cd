"""Which token matched which: words over the patches of a picture, or a table of cosines for any two modalities."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from tasks.experiment.report import Figure
from tasks.experiment.report.drawing import sheet
from tasks.experiment.report.numbers import count, decimal
from tasks.experiment.report.palette import HEAT, INK, OVER, QUIET, SERIES, UNDER
from tasks.retrieval.seen_items import Seen

MOST_WORDS, MOST_CELLS = 24, 64
LINE = 13.0
"""Points: height of one word."""


def cosines(a: Seen, b: Seen) -> Float[np.ndarray, "n m"]:
    """Cosine of every token of one item with every token of the other."""
    return a.x @ b.x.T


def pair_picture(key: str, asking: Seen, found: Seen, title: str) -> Figure:
    """The alignment of a query with one answer.

    Args:
        key: name of the figure
        asking: the query; each of its tokens takes its best partner in the answer
        found: the answer
        title: a few words
    """
    if {asking.modality, found.modality} == {"image", "text"}:
        picture, words = (asking, found) if asking.modality == "image" else (found, asking)
        if picture.grid is not None:
            return words_on_patches(key, picture, words, title)
    return cosine_table(key, asking, found, title)


def words_on_patches(key: str, picture: Seen, words: Seen, title: str) -> Figure:
    """A picture, the word that each patch is nearest to, and for each word its best patch (FILIP, section 3.3).

    Every patch carries the number of its word; the five words with most patches have a colour as well.
    """
    assert picture.grid is not None
    table = cosines(picture, words)
    best = table.argmax(axis=1)
    order = np.argsort(-np.bincount(best, minlength=len(words.labels)), kind="stable")
    colour = {int(word): SERIES[at] for at, word in enumerate(order[: len(SERIES)]) if (best == word).any()}
    shown = _shown_words(table.max(axis=0))
    with sheet(key, 217.0 + LINE * len(shown)) as drawn:
        halves: Any = drawn.canvas.subfigures(2, 1, height_ratios=[165.0, 52.0 + LINE * len(shown)])
        top, below = halves
        plain, coloured = top.subplots(1, 2)
        for axes in (plain, coloured):
            axes.imshow(picture.raw.transpose(1, 2, 0), interpolation="nearest")
            axes.set_axis_off()
        plain.set_title("the picture", fontweight="normal")
        coloured.set_title("nearest word of each patch", fontweight="normal")
        _patches(coloured, picture.grid, best, colour, picture.raw.shape[1:])
        _word_bars(below.subplots(), table.max(axis=0), words.labels, shown, colour)
    patches = [f"“{words.labels[word]}” {count(int((best == word).sum()), 'patch', 'patches')}" for word in colour]
    caption = (
        f"“{words.raw}”. Right: each patch with the number of the word it is nearest to; the words with most patches "
        "have a colour. Below: cosine of each word with its nearest patch."
    )
    if len(shown) < len(words.labels):
        caption += f" The {len(shown)} best of {len(words.labels)} words are listed."
    n = f"{count(len(best), 'patch', 'patches')}, {count(len(words.labels), 'word piece')}"
    return Figure(key, drawn.svg, title, caption, n, f"{title}. Nearest word of the patches: {'; '.join(patches)}.")


def _patches(
    axes: Axes,
    grid: Float[np.ndarray, "n 2"],
    best: Int[np.ndarray, " n"],
    colour: dict[int, str],
    size: tuple[int, ...],
) -> None:
    columns, rows = (int(grid[:, axis].max()) + 1 for axis in (0, 1))
    height, width = size[0] / rows, size[1] / columns
    for (column, row), word in zip(grid, best, strict=True):
        x, y = column * width - 0.5, row * height - 0.5
        axes.add_patch(
            Rectangle((x, y), width, height, facecolor=colour.get(int(word), UNDER), alpha=0.55, edgecolor="none")
        )
        if len(best) <= MOST_CELLS:
            number = str(int(word) + 1)
            axes.text(
                x + width / 2, y + height / 2, number, ha="center", va="center", fontsize=9.5, color=OVER
            ).set_path_effects([withStroke(linewidth=1.8, foreground=UNDER, alpha=0.7)])


def _shown_words(strength: Float[np.ndarray, " m"]) -> list[int]:
    """All words, or the strongest of many, in the order of the text."""
    return sorted(np.argsort(-strength, kind="stable")[:MOST_WORDS].tolist())


def _word_bars(
    axes: Axes, strength: Float[np.ndarray, " m"], labels: list[str], shown: list[int], colour: dict[int, str]
) -> None:
    at = np.arange(len(shown))
    axes.barh(at, strength[shown], color=[colour.get(word, QUIET) for word in shown], height=0.7)
    axes.set_yticks(at, [f"{word + 1} {labels[word].strip() or '␣'}" for word in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("Cosine with the nearest patch")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(min(0.0, float(strength[shown].min())), max(1.0, float(strength[shown].max())))


def cosine_table(key: str, asking: Seen, found: Seen, title: str) -> Figure:
    """Cosines of the tokens of two items as a map; a dot marks the best partner of each token that asks."""
    table = cosines(asking, found)
    rows = _shown_words(table.max(axis=1))
    best = table.argmax(axis=1)
    columns = sorted({int(best[row]) for row in rows} | set(_shown_words(table.max(axis=0))[: MOST_WORDS // 2]))
    part = table[np.ix_(rows, columns)]
    names = [_name(found.labels, column) for column in columns]
    deepest = max(len(name) for name in names)
    with sheet(key, 90.0 + LINE * len(rows) + 5.0 * deepest) as drawn:
        axes = drawn.canvas.subplots()
        image = axes.imshow(part, cmap=HEAT, aspect="auto", vmin=-0.2, vmax=1.0)
        axes.plot(
            [columns.index(int(best[row])) for row in rows], np.arange(len(rows)), "o", color="#ffffff", ms=4, mec=INK
        )
        axes.set_yticks(range(len(rows)), [_name(asking.labels, row) for row in rows])
        axes.set_xticks(range(len(columns)), names, rotation=90)
        axes.set_ylabel(f"asks: {textwrap.shorten(asking.id, 24)}")
        axes.set_xlabel(f"answers: {textwrap.shorten(found.id, 30)}")
        drawn.canvas.colorbar(image, label="Cosine", fraction=0.05)
    spoken = "; ".join(f"{asking.labels[row]}: {found.labels[int(best[row])]}" for row in rows[:8])
    caption = f"{asking.title} asks {found.title}. A dot marks the best partner of each token that asks."
    n = f"{count(len(asking.labels), 'token')} ask {count(len(found.labels), 'token')}"
    score = decimal(float(table.max(axis=1).mean()))
    return Figure(key, drawn.svg, title, caption, n, f"{title}. Mean best cosine {score}. Best partners: {spoken}.")


def _name(labels: list[str], at: int) -> str:
    return textwrap.shorten(labels[at].strip() or "␣", 16, placeholder="…")
