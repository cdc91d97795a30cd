"""Voxel weights where they are in the head: slices, a glass brain and an interactive view, through nilearn."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from data.brain.brain import VoxelSpace
from tasks.experiment.folder import write_whole
from tasks.experiment.report import Figure
from tasks.experiment.report.numbers import count
from tasks.experiment.report.palette import HEAT
from tasks.fmri.derivatives import Weights, image

MOST_SLICES = 12
"""Maps drawn as slices in one figure; the derivatives hold all of them."""

_DPI = 110
_OUTLINE = (
    "The outline is the MNI brain, and the affine of the data puts the voxels where they are drawn; for data in "
    "another space the outline is a scale, not an anatomy."
)


def strength(maps: Mapping[str, Float[np.ndarray, " x"]]) -> Float[np.ndarray, " x"]:
    """Root mean square over maps: which voxels are used at all, whatever for."""
    return np.sqrt(np.mean([np.square(values, dtype=float) for values in maps.values()], axis=0))


def slices(weights: Weights) -> Figure:
    """The slice through the largest weight of each map, side by side, on one scale."""
    return _slices(
        weights, f"weights-{_safe(weights.subject)}-{_safe(weights.arm)}",
        f"Weights of {weights.arm}, subject {weights.subject}",
        "Axial slice through the largest weight of each map, all on one scale, averaged over folds.",
        "A weight says what the decoder uses, not where a class is represented.",
    )  # fmt: skip


def correlations(maps: Weights) -> Figure:
    """Where features of what was shown predict the brain: the slice through the best voxel for each."""
    return _slices(
        maps, f"encoding-{_safe(maps.subject)}", f"Where features predict the brain, subject {maps.subject}",
        "Correlation of predicted and measured responses on held-out samples, in the axial slice through the best "
        "voxel of each, all on one scale.",
        "",
    )  # fmt: skip


def _slices(weights: Weights, key: str, title: str, caption: str, caution: str) -> Figure:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure as Canvas
    from nilearn import plotting

    space, maps = weights.space, weights.maps
    shown = dict(list(maps.items())[:MOST_SLICES])
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    highest = float(max(np.abs(values).max() for values in shown.values())) or 1.0
    lowest = -highest if min(values.min() for values in shown.values()) < 0 else 0.0
    colours = "RdBu_r" if lowest else HEAT
    canvas = Canvas(figsize=(2.5 * columns + 0.6, 2.2 * rows))
    with _quiet():
        for place, (name, values) in enumerate(shown.items()):
            axes = canvas.add_subplot(rows, columns, place + 1)
            axes.set_axis_off()
            axes.set_title(name, fontsize=10, loc="left")
            volume = image(space, values)
            at = float(millimetres(space, int(np.argmax(np.abs(values))))[2])
            plotting.plot_stat_map(
                volume, bg_img=None, display_mode="z", cut_coords=[at], colorbar=False, axes=axes, figure=canvas,
                vmin=lowest, vmax=highest, cmap=colours, draw_cross=False,
            )  # fmt: skip
        scale = canvas.add_axes((0.93, 0.25, 0.03 / columns, 0.5))
        canvas.colorbar(ScalarMappable(Normalize(lowest, highest), colours), cax=scale)
    more = f" {len(maps) - len(shown)} more are in the derivatives." if len(maps) > len(shown) else ""
    voxels = count(int(space.mask.sum()), "voxel")
    words = " ".join(filter(None, [caption, f"L and R as in the head.{more}", caution]))
    spoken = f"{title}: {', '.join(shown)} in {voxels}."
    return Figure(key, _png(canvas), title, words, voxels, spoken, wide=columns > 2)


def glass(weights: Weights) -> Figure:
    """How strongly each voxel is used, over all maps, seen through the head."""
    from nilearn import plotting

    subject, arm, space, maps = weights.subject, weights.arm, weights.space, weights.maps
    with _quiet():
        display = plotting.plot_glass_brain(
            image(space, strength(maps)), display_mode="lyrz", colorbar=True, plot_abs=True, threshold=0
        )
        canvas = display.frame_axes.figure
        content = _png(canvas)
        display.close()
    voxels = count(int(space.mask.sum()), "voxel")
    return Figure(
        f"glass-{_safe(subject)}-{_safe(arm)}", content, f"Which voxels {arm} uses, subject {subject}",
        f"Root mean square of the weights over {count(len(maps), 'map')}, highest along the line of sight. {_OUTLINE}",
        voxels, f"Glass brain of subject {subject}: strength of use of {voxels}.", wide=True,
    )  # fmt: skip


def interactive(path: Path, weights: Weights) -> Path:
    """Write a page in which one walks through the strength map; it holds scripts, so it stands beside the report."""
    from nilearn import plotting

    with _quiet():
        view = plotting.view_img(
            image(weights.space, strength(weights.maps)), bg_img=None, threshold=None, symmetric_cmap=False,
            cmap=HEAT, title=f"{weights.arm}, subject {weights.subject}",
        )  # fmt: skip
        content = view.get_standalone()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    return path


def millimetres(space: VoxelSpace, column: int) -> Float[np.ndarray, " 3"]:
    """Where a column of the voxel matrix is."""
    place = np.argwhere(space.mask)[column]
    return np.asarray(space.affine, dtype=float)[:3] @ np.append(place, 1.0)


def _png(canvas: Any) -> bytes:
    out = io.BytesIO()
    canvas.savefig(out, format="png", dpi=_DPI, facecolor="white", bbox_inches="tight", metadata={"Software": None})
    return out.getvalue()


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "x"


@contextmanager
def _quiet() -> Iterator[None]:
    """nilearn draws with pyplot and warns of its own arithmetic on single slices; neither concerns the reader."""
    import matplotlib as mpl

    backend = mpl.get_backend()
    mpl.use("agg", force=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            mpl.use(backend, force=True)
