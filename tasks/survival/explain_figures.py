"""Figures of one explained patient: contributions, the risk among others, heat maps over the slide, top patches."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from data.slides.feature_files import Bag
from data.slides.opening import open_slide
from data.slides.outlines import patch_geojson
from data.slides.overlay import shrink_to, value_map
from data.slides.tissue import Thumbnail, thumbnail
from encoders.slide import neighbour_distance
from tasks.experiment.report import Figure
from tasks.experiment.report.drawing import WIDTH, sheet
from tasks.experiment.report.numbers import count, decimal
from tasks.experiment.report.palette import BLUE, HEAT, INK, QUIET, RULE, VERMILLION
from tasks.survival.explanation import Attention, Contribution, Explanation

LONGEST = 480
"""Pixels of a thumbnail's longer side: what a page can carry."""


@dataclass(frozen=True)
class View:
    """One slide of a patient, ready to be drawn on.

    Attributes:
        name: of the slide
        patches: which patches of the bag lie on it
        corners: level-0 pixels of their upper left corners, relative to the view, `[p, 2]`
        side: of a patch, level-0 pixels
        thumb: the slide, small; white without a file
        mpp: micrometres per level-0 pixel, None when unknown
        path: of the slide's file; None without one
    """

    name: str
    patches: np.ndarray
    corners: Float[np.ndarray, "p 2"]
    side: float
    thumb: Thumbnail
    mpp: float | None = None
    path: Path | None = None

    def heat(self, values: Float[np.ndarray, " p"]) -> Float[np.ndarray, "i j"]:
        """A value per patch of the bag as a picture as large as the thumbnail; NaN where there is no patch."""
        return value_map(self.corners.astype(int), round(self.side), values[self.patches], self.thumb)


def view_of(bag: Bag, weights: Float[np.ndarray, " p"], slides: Mapping[str, Path]) -> View | None:
    """The slide that was looked at most, over its thumbnail when its file is known; None without coordinates.

    Args:
        bag: of the patient
        weights: attention of each patch
        slides: files by slide name
    """
    if bag.grid is None:
        return None
    of_slide = bag.slide.numpy()
    most = int(np.argmax(np.bincount(of_slide, weights=weights, minlength=len(bag.slides))))
    patches = np.flatnonzero(of_slide == most)
    corners = bag.grid.numpy()[patches].astype(np.float64)
    side, name = side_of(bag, most), bag.slides[most]
    if name not in slides:
        corners = corners - corners.min(axis=0)
        side = side or max(float(corners.max()) / 8, 1.0)
        return View(name, patches, corners, side, _blank(corners.max(axis=0) + side))
    with open_slide(slides[name]) as slide:
        thumb = thumbnail(slide, max(slide.width, slide.height) / LONGEST, LONGEST)
        return View(name, patches, corners, side or 256.0, thumb, slide.resolution.mpp, slides[name])


def side_of(bag: Bag, slide: int) -> float | None:
    """Level-0 pixels a patch of a slide is wide: as its file says, else the distance of neighbours (no overlap)."""
    said = bag.sides[slide] if bag.sides else None
    if said is not None or bag.grid is None:
        return said
    apart = neighbour_distance(bag.grid[bag.slide == slide])
    return apart if apart > 1 else None


def attention_geojson(bag: Bag, attention: Attention, slide: int) -> str:
    """Patches of one slide as QuPath detections: colour and measurement are the mean attention, 1 = every patch alike.

    Args:
        bag: with coordinates
        attention: over its patches
        slide: index into the slides of the bag
    """
    assert bag.grid is not None
    here = np.flatnonzero(bag.slide.numpy() == slide)
    values, side = attention.mean[here], round(side_of(bag, slide) or 256.0)
    shown = mpl.colormaps[HEAT](values / heat_top(values), bytes=True)[:, :3]
    corners = [(int(x), int(y)) for x, y in bag.grid.numpy()[here]]
    return patch_geojson(corners, side, values.tolist(), "attention", [(int(r), int(g), int(b)) for r, g, b in shown])


def heat_top(values: Float[np.ndarray, " p"]) -> float:
    """Where the colours of a map end: the 99th percentile, so that one patch does not darken all others."""
    return max(float(np.quantile(values, 0.99)), 1e-12)


def contribution_bars(explanation: Explanation) -> Figure:
    """What each input adds to the risk."""
    known = [c for c in explanation.contributions if np.isfinite(c.change)]
    with sheet("contributions", 66 + 30 * max(len(known), 1)) as drawn:
        axes = drawn.canvas.subplots()
        axes.barh([c.name for c in known], [c.change for c in known], height=0.55, color=[_colour(c) for c in known])
        axes.axvline(0, color=QUIET, lw=1)
        for row, c in enumerate(known):
            axes.annotate(
                decimal(c.change, signed=True),
                (1.02, row),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=9.5,
            )
        axes.invert_yaxis()
        axes.set_xlabel("Change of the risk (right: raises it)")
        axes.spines["left"].set_visible(False)
        axes.spines["bottom"].set_color(RULE)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.15)
        axes.locator_params(axis="x", nbins=5)
    caption = (
        "Risk with the input minus risk without it, everything else unchanged. The changes need not add up: what two "
        "inputs say together is lost with either."
    )
    alt = "Contributions: " + "; ".join(f"{c.name} {decimal(c.change, signed=True)}" for c in known) + "."
    return Figure("contributions", drawn.svg, "What each input adds to the risk", caption, "1 patient", alt)


def among_others(explanation: Explanation) -> Figure:
    """The patient's risk among the patients scored by the same model."""
    others = np.sort(explanation.others[np.isfinite(explanation.others)])
    with sheet("among-others", 150) as drawn:
        axes = drawn.canvas.subplots()
        axes.hist(others, bins=min(24, max(4, len(others) // 4)), color=QUIET, alpha=0.45, lw=0)
        axes.axvline(explanation.risk, color=VERMILLION, lw=2.2)
        axes.annotate(
            "this patient", (explanation.risk, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2),
            textcoords="offset points", ha="center", va="bottom", fontsize=9.5, color=VERMILLION,
        )  # fmt: skip
        axes.set_xlabel("Predicted risk (right: worse)")
        axes.set_ylabel("Patients")
        axes.locator_params(axis="both", nbins=5)
    alt = f"Histogram of risks; this patient's is above {explanation.share_below:.0%} of them."
    caption = f"Risks of the patients scored by {explanation.unit}; higher than {explanation.share_below:.0%} of them."
    return Figure("among-others", drawn.svg, "This risk among others", caption, count(len(others), "patient"), alt)


def heat_map(view: View, attention: Attention) -> Figure:
    """Mean attention of all readers over the slide."""
    rows, columns = view.thumb.pixels.shape[:2]
    with sheet("attention", min(WIDTH * rows / columns, 420) + 50) as drawn:
        axes = drawn.canvas.subplots()
        picture = _paint(axes, view, attention.mean, over_thumbnail=True)
        bar = drawn.canvas.colorbar(picture, ax=axes, location="bottom", shrink=0.8, aspect=35, pad=0.02)
        bar.set_label("Attention (1 = every patch alike)")
        bar.outline.set_visible(False)  # type: ignore[operator]
        _scale_bar(axes, view)
    who = "gene groups" if len(attention.readers) > 1 else "the pooling"
    ground = "thumbnail of the slide" if view.path else "coordinates of the patches (its file was not given)"
    caption = f"Mean attention of {who} ({attention.site}) over the {ground}, slide {view.name}."
    alt = f"Heat map of attention over slide {view.name}; {attention.mean.max():.1f} times the mean at most."
    return Figure("attention", drawn.svg, "Mean attention", caption, count(len(view.patches), "patch", "patches"), alt)


def heat_maps_by_group(view: View, attention: Attention, most: int = 6) -> Figure | None:
    """One small map for each gene group, the most concentrated ones when there are many; None for a single reader."""
    if len(attention.readers) < 2:
        return None
    chosen = sorted(np.argsort(-attention.focus, kind="stable")[:most].tolist())
    rows = -(-len(chosen) // 3)
    tall = min(max(view.thumb.pixels.shape[0] / view.thumb.pixels.shape[1], 0.35), 1.6)
    with sheet("attention-by-group", rows * (112 * tall + 44)) as drawn:
        panels = drawn.canvas.subplots(rows, 3, squeeze=False).ravel()
        for axes, reader in zip(panels, chosen, strict=False):
            _paint(axes, view, attention.weights[reader] * attention.weights.shape[1], over_thumbnail=False)
            axes.set_title(_two_lines(attention.readers[reader]), fontsize=9.5, fontweight="normal")
        for axes in panels[len(chosen) :]:
            axes.set_axis_off()
    named = [attention.readers[reader] for reader in chosen]
    which = (
        ""
        if len(named) == len(attention.readers)
        else f" The {len(named)} most concentrated of {len(attention.readers)}."
    )
    caption = f"Attention of single gene groups over slide {view.name}, each on its own scale.{which}"
    alt = "Heat maps of attention by gene group: " + ", ".join(
        f"{attention.readers[i]} (focus {attention.focus[i]:.2f})" for i in chosen
    )
    n = count(len(view.patches), "patch", "patches")
    return Figure("attention-by-group", drawn.svg, "Where each gene group looks", caption, n, alt)


def patch_gallery(view: View, attention: Attention, which: Literal["top", "bottom"], most: int = 6) -> Figure | None:
    """The patches looked at most or least, as they look on the slide; None without a slide file."""
    on_view = set(view.patches.tolist())
    order = attention.order if which == "top" else attention.order[::-1]
    chosen = [patch for patch in order if patch in on_view][:most]
    if view.path is None or not chosen:
        return None
    where = {patch: view.corners[place] for place, patch in enumerate(view.patches.tolist())}
    with open_slide(view.path) as slide:
        level = max((i for i, level in enumerate(slide.levels) if view.side / level.down >= 96), default=0)
        down = slide.levels[level].down
        size = max(1, round(view.side / down))
        crops = [slide.read(level, round(where[p][0] / down), round(where[p][1] / down), size, size) for p in chosen]
    with sheet(f"{which}-patches", 270) as drawn:
        panels = drawn.canvas.subplots(2, 3).ravel()
        for axes, patch, crop in zip(panels, chosen, crops, strict=False):
            axes.imshow(shrink_to(crop, 128), interpolation="none")
            axes.set_title(f"{times(attention.mean[patch])} ×", fontsize=9.5, loc="center")
        for axes in panels:
            axes.set_axis_off()
    side = f"{view.side * view.mpp:.0f} µm" if view.mpp else f"{view.side:.0f} level-0 pixels"
    amount = "most" if which == "top" else "least"
    caption = f"The patches with {amount} attention; each is {side} wide, × = times the mean attention."
    alt = f"{which.capitalize()} patches at " + "; ".join(f"{where[p][0]:.0f}, {where[p][1]:.0f}" for p in chosen)
    n = count(len(chosen), "patch", "patches")
    return Figure(f"{which}-patches", drawn.svg, f"The patches looked at {amount}", caption, n, alt)


def times(share: float) -> str:
    """Attention relative to the mean with a digit that tells: 12.3, 0.84, 0.002."""
    return f"{share:.1f}" if share >= 9.95 else f"{share:.2g}"


def _paint(axes: Axes, view: View, values: Float[np.ndarray, " p"], over_thumbnail: bool) -> AxesImage:
    """The map on the view's own pixels, saturated at its 99th percentile."""
    heat = view.heat(values)
    if over_thumbnail and view.path is not None:
        axes.imshow(view.thumb.pixels, interpolation="none")
    seen_through = 0.62 if over_thumbnail and view.path is not None else 1.0
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(RULE)
    return axes.imshow(
        np.ma.masked_invalid(heat),
        cmap=HEAT,
        vmin=0,
        vmax=heat_top(values[view.patches]),
        alpha=seen_through,
        interpolation="none",
    )


def _scale_bar(axes: Axes, view: View) -> None:
    """A quarter of the width at most, in millimetres or, without a resolution, in level-0 pixels."""
    width = view.thumb.pixels.shape[1] * view.thumb.down_x / 4
    unit, words = (1000 / view.mpp, "mm") if view.mpp else (1.0, "level-0 pixels")
    steps = [step * 10.0**power for power in range(-2, 7) for step in (1, 2, 5)]
    length = max((step for step in steps if step * unit <= width), default=steps[0])
    axes.set_autoscale_on(False)
    below = view.thumb.pixels.shape[0] + 0.025 * max(view.thumb.pixels.shape[:2])
    end = length * unit / view.thumb.down_x
    axes.plot([0, end], [below] * 2, color=INK, lw=2, clip_on=False, solid_capstyle="butt")
    axes.text(end + 6, below, f"{length:g} {words}", fontsize=9, va="center")


def _colour(contribution: Contribution) -> str:
    return VERMILLION if contribution.change > 0 else BLUE


def _two_lines(name: str) -> str:
    """A gene set's name as words: `HALLMARK_DNA_REPAIR` -> `Hallmark dna repair`."""
    words = name.replace("_", " ").capitalize() if re.fullmatch(r"[A-Z0-9_]+", name) else name
    return "\n".join(textwrap.wrap(words, 19, max_lines=2, placeholder="…"))


def _blank(extent: Float[np.ndarray, " 2"]) -> Thumbnail:
    down = max(float(extent.max()) / LONGEST, 1e-9)
    columns, rows = (max(1, round(float(side) / down)) for side in extent)
    return Thumbnail(np.full((rows, columns, 3), 255, dtype=np.uint8), down, down)
