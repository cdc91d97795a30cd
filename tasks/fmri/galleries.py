"""Retrieval of a run in both directions: every hit in every gallery, and their means over subjects, classes or all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from data.errors import DataError
from tasks.experiment.compare import percentile_interval, resample
from tasks.fmri.metrics import retrieved
from tasks.fmri.results import Results
from tasks.fmri.unit import read_scores

MANY_SUBJECTS = 5
"""From so many subjects on, intervals resample subjects: what holds for these people must hold for others."""

COLUMNS = ("sample", "subject", "label", "gallery", "direction", "k", "value", "chance", "n")


def gallery_hits(results: Results, arm: str) -> pd.DataFrame:
    """Every sample of an arm in its gallery, the mean over seeds: another seed adds nothing an interval could draw.

    A gallery is what a subject was tested on in a fold, or in each run of a fold where a candidate comes back within
    the fold.

    Returns:
        Rows of `COLUMNS`; none where a candidate comes back even within a run, so that no gallery is square.
    """
    nothing = pd.DataFrame(columns=list(COLUMNS))
    own = results.predictions[results.predictions["arm"] == arm]
    parts = []
    for (_, number), fold in own.groupby(["seed", "fold"], sort=True):
        repeated = fold.duplicated(["subject", "truth"]).any()
        for of, part in fold.groupby(["subject", "run"]) if repeated else [("", fold)]:
            try:
                found = retrieved(read_scores(part, results.candidates), part.set_index("sample"), "truth")
            except DataError:
                return nothing
            parts.append(found[found["n"] > 1].assign(gallery=f"{number}/{'/'.join(of)}"))
    every = pd.concat(parts)
    if every.empty:
        return nothing
    labels = own.drop_duplicates("sample").set_index("sample")["label"]
    every = every.assign(label=labels.loc[every["sample"]].to_numpy())
    keys = [name for name in COLUMNS if name not in ("value", "chance", "n")]
    return every.groupby(keys, sort=False)[["value", "chance", "n"]].mean().reset_index()


def retrieval_rows(hits: pd.DataFrame, draws: int) -> Iterator[dict[str, Any]]:
    """A row per direction and k, in the columns of `metrics.summary`; none where a guess is always among the best k.

    The interval draws subjects where there are many, else galleries, and there is none over one, which resampling only
    gives back.

    Args:
        hits: of `gallery_hits`, all or some of them
        draws: resamples
    """
    for (direction, k), rows in hits.groupby(["direction", "k"], sort=False):
        if (rows["chance"] >= 1).all():
            continue
        galleries = rows["subject"] + "/" + rows["gallery"]
        by_subject = rows["subject"].nunique() >= MANY_SUBJECTS
        of, names = pd.factorize(rows["subject"] if by_subject else galleries)
        sums, sizes = np.bincount(of, rows["value"].to_numpy(dtype=float)), np.bincount(of)
        low = high = np.nan
        if len(names) > 1:
            counts = resample(len(names), draws)
            drawn = percentile_interval((counts @ sums) / (counts @ sizes))
            low, high = drawn.low, drawn.high
        size = rows.groupby(galleries)["n"].first()
        where = f"{len(size)} galler{'y' if len(size) == 1 else 'ies'} of {size.mean():.3g} candidates"
        yield {
            "metric": f"{direction}_top{k}", "value": float(sums.sum() / sizes.sum()), "low": low, "high": high,
            "chance": float(rows["chance"].mean()), "n": len(rows), "units": len(names),
            "note": f"over {len(names)} subjects, {where}" if by_subject else f"over {where}",
        }  # fmt: skip
