"""Small scans for tests: a run written as NIfTI with events, every detail of which a test can spoil."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

SHAPE, FRAMES, TR = (3, 4, 2), 40, 2.0
LABELS = ("a", "b", "a", "b")


def series(seed: int = 0, frames: int = FRAMES) -> np.ndarray:
    """Volumes `[*SHAPE, frames]` around 1000 with noise and a trend."""
    draw = np.random.default_rng(seed)
    return 1000 + np.linspace(0, 20, frames) + 5 * draw.normal(size=(*SHAPE, frames))


def write_image(path: Path, values: np.ndarray, tr: float | None = TR, shift: float = 0.0, unit: str = "sec") -> Path:
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[0, 3] = shift
    image = nibabel.Nifti1Image(values.astype(np.float32), affine)
    if tr is not None:
        image.header.set_xyzt_units("mm", unit)
        image.header.set_zooms((3.0, 3.0, 3.0, tr, 1.0)[: values.ndim])
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def events_table(labels: tuple[str | None, ...] = LABELS, block: float = 10.0) -> pd.DataFrame:
    """Events every 20 s from 4 s on."""
    return pd.DataFrame({"onset": 4.0 + 20.0 * np.arange(len(labels)), "duration": block, "trial_type": labels})


def write_events(path: Path, table: pd.DataFrame | None = None) -> Path:
    (events_table() if table is None else table).to_csv(path, sep="\t", index=False, na_rep="n/a")
    return path


def write_mask(path: Path, shift: float = 0.0, inside: np.ndarray | None = None) -> Path:
    inside = np.ones(SHAPE) if inside is None else inside
    return write_image(path, inside, tr=None, shift=shift)
