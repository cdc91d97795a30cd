"""What is removed from a run before anything is learnt: trends, slow drift, confounds. Each run by itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from data.cohort.read import text_table
from data.errors import DataError

_SIX = tuple(f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz")
STRATEGIES: dict[str, tuple[str, ...]] = {
    "motion": _SIX,
    "motion24": tuple(c + end for end in ("", "_derivative1", "_power2", "_derivative1_power2") for c in _SIX),
    "wm_csf": ("white_matter", "csf"),
    "global": ("global_signal",),
    "compcor": (*(f"a_comp_cor_{k:02d}" for k in range(6)), "cosine*"),
    "cosine": ("cosine*",),
    "outliers": ("motion_outlier*", "non_steady_state_outlier*"),
}
"""Columns of fMRIPrep's confounds by strategy; `compcor` brings the cosines its components were computed under."""
_MAY_BE_ABSENT = ("outliers", "cosine")


@dataclass(frozen=True)
class Cleaned:
    """A run ready for averaging.

    Attributes:
        series: frames by voxels, cleaned, and divided by `scale` if that was asked for
        scale: standard deviation of each voxel after cleaning
        usable: False = the voxel is NaN, infinite or constant in this run; its series is 0
    """

    series: Float[np.ndarray, "t x"]
    scale: Float[np.ndarray, " x"]
    usable: Bool[np.ndarray, " x"]


@dataclass(frozen=True)
class Cleaning:
    """How every run is cleaned, by nilearn, all of it in one projection.

    Nothing is fitted across runs: a run that is scored is cleaned with its own volumes, never with its labels.

    Attributes:
        detrend: remove each voxel's linear trend
        standardise: `run` divides each voxel by its standard deviation in the run; `none` keeps the scanner's units
        confounds: strategies (motion, motion24, wm_csf, global, compcor, cosine, outliers) or column names of the
            confounds table; `*` may stand for any characters
        high_pass: remove what is slower than this, in Hz (a cosine set); null = nothing
        smooth: width in mm (FWHM) of a Gaussian over space, before masking; null = none, as patterns are fine-grained
        dummies: volumes at the start of each run that are dropped, taken before the signal is steady; times of events
            stay as they are
    """

    detrend: bool = True
    standardise: Literal["run", "none"] = "run"
    confounds: list[str] = field(default_factory=list)
    high_pass: float | None = None
    smooth: float | None = None
    dummies: int = 0

    def __post_init__(self) -> None:
        if self.standardise not in ("run", "none"):
            raise ValueError(f"cleaning.standardise: expected run or none, found {self.standardise!r}")
        if self.smooth is not None and not 0 < self.smooth < 50:
            raise ValueError(f"cleaning.smooth: expected mm above 0 and below 50, e.g. 4, found {self.smooth:g}")
        if self.dummies < 0:
            raise ValueError(f"cleaning.dummies: expected a number of volumes, 0 or more, found {self.dummies}")
        if self.high_pass is not None and not 0 < self.high_pass < 1:
            raise ValueError(f"cleaning.high_pass: expected Hz between 0 and 1, e.g. 0.008, found {self.high_pass:g}")
        if self.high_pass is not None and {"cosine", "compcor"} & set(self.confounds):
            raise ValueError("cleaning: high_pass and the cosine columns are two high-pass filters; leave one out")

    def apply(
        self, series: Float[np.ndarray, "t x"], tr: float, confounds: Float[np.ndarray, "t c"] | None = None
    ) -> Cleaned:
        """Clean one run.

        Args:
            series: as masked, scanner units
            tr: s between volumes
            confounds: what to project out, see `confounds_of`
        """
        from nilearn.signal import clean

        finite = np.isfinite(series).all(axis=0)
        # Most runs are whole, and a copy of one is what cleaning costs.
        whole = series if finite.all() else np.where(finite, series, 0)
        size = np.abs(whole).max(axis=0)
        cleaned = clean(
            whole,
            detrend=self.detrend,
            standardize=None,
            confounds=confounds,
            filter="cosine" if self.high_pass is not None else False,
            high_pass=self.high_pass,
            t_r=tr,
        )
        scale = cleaned.std(axis=0, ddof=1)
        usable = finite & (scale > 1e-5 * size)
        cleaned[:, ~usable] = 0
        if self.standardise == "run":
            cleaned -= cleaned.mean(axis=0)
            cleaned /= np.where(usable, scale, 1)
        return Cleaned(cleaned.astype(np.float32, copy=False), scale.astype(np.float32), usable)


def read_confounds(path: Path) -> pd.DataFrame:
    """A confounds table: fMRIPrep's tsv, or six columns of motion without a header (OpenfMRI's `bold_moest.txt`).

    Raises:
        DataError: no such file, or not numbers
    """
    if not path.is_file():
        raise DataError(f"{path}: no such confounds file; leave cleaning.confounds empty, or give it")
    if path.suffix == ".tsv":
        table = text_table(path, "tab-separated confounds", sep="\t", na_values=["n/a"], dtype=None)
        text = [c for c in table if not pd.api.types.is_numeric_dtype(table[c])]
        if text:
            raise DataError(f"{path}: column {text[0]} is not all numbers; expected a table of confounds")
        return table
    try:
        numbers = np.loadtxt(path, ndmin=2)
    except ValueError as problem:
        raise DataError(f"{path}: {problem}; expected six motion parameters in each line") from None
    if numbers.shape[1] != len(_SIX):
        raise DataError(f"{path}: {numbers.shape[1]} columns without a header; expected six motion parameters")
    return pd.DataFrame(numbers, columns=["rot_x", "rot_y", "rot_z", "trans_x", "trans_y", "trans_z"])


def confounds_of(
    table: pd.DataFrame, wanted: list[str], frames: int, path: Path
) -> tuple[Float[np.ndarray, "t c"], list[str]]:
    """The confounds a cleaning asks for.

    A gap is allowed in the first volumes only, where derivatives have no past: it becomes the next value.

    Args:
        table: of one run
        wanted: strategies or column names
        frames: volumes of the run
        path: of the table

    Returns:
        the columns, and their names

    Raises:
        DataError: rows do not match the volumes, a column is missing or has gaps, as many confounds as volumes
    """
    if len(table) != frames:
        raise DataError(f"{path}: {len(table)} rows for a run of {frames} volumes; give the confounds of this run")
    names: list[str] = []
    for asked in wanted:
        for pattern in STRATEGIES.get(asked, (asked,)):
            found = [c for c in table.columns if fnmatchcase(c, pattern)]
            if not found and not ("*" in pattern and asked in (*_MAY_BE_ABSENT, "compcor")):
                known = ", ".join(STRATEGIES)
                raise DataError(f"{path}: no column {pattern} (asked for by {asked}); strategies are {known}")
            names += [c for c in found if c not in names]
    chosen = table[names].bfill(limit=2)
    if chosen.isna().any(axis=None):
        gap = chosen.columns[chosen.isna().any()][0]
        raise DataError(f"{path}: column {gap} has gaps after the first volumes; leave it out of cleaning.confounds")
    if len(names) >= frames - 2:
        raise DataError(f"{path}: {len(names)} confounds for {frames} volumes leave nothing; ask for fewer")
    return chosen.to_numpy(dtype=float), names
