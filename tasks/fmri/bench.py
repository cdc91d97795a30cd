"""`fusion bench fmri`: ridge for many voxels, reading a run, and the permutation null, each beside a peer in one run.

Everything runs on one thread; a row holds the best processor seconds of a few repeats, ours and the peer's in turn, and
says how far the two results differ.
"""

from __future__ import annotations

import importlib.metadata
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from data.brain.brain import Brain, Brains, sample_table
from data.brain.clean import Cleaning
from data.brain.images import masked, open_bold
from data.brain.splits import LeaveRunsOut
from tasks.experiment.signatures import ConfigError
from tasks.fmri.baselines import Ridge, Standard
from tasks.fmri.permutation import permuted_within_runs, ridge_null
from tasks.fmri.ridge import ridge_cv, ridge_weights

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-1, 5, 10))
REPEATS = 3


def best_of(repeats: int, **calls: Callable[[], Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Least processor seconds of each call, taken in turn, and what each returned; the first round only warms up."""
    seconds, results = dict.fromkeys(calls, float("inf")), {}
    for round_ in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            results[name] = call()
            if round_:
                seconds[name] = min(seconds[name], time.process_time() - start)
    return seconds, results


def row(case: str, peer: str, seconds: dict[str, float], note: str) -> dict[str, Any]:
    """A line of the table; ratio below 1 = ours is faster."""
    return {
        "case": case,
        "ours_s": round(seconds["ours"], 4),
        "peer": peer,
        "peer_s": round(seconds["peer"], 4),
        "ratio": round(seconds["ours"] / seconds["peer"], 4),
        "note": note,
    }


def bench_ridge(
    voxels: int = 10_000, samples: int = 800, features: int = 500, repeats: int = REPEATS
) -> dict[str, Any]:
    """Ridge with a penalty per voxel chosen on the same five folds, beside himalaya's RidgeCV."""
    try:
        from himalaya.ridge import RidgeCV
    except ImportError:
        raise ConfigError(
            "bench fmri: the peer himalaya is not installed; pip install 'multimodal-fusion[banded]'"
        ) from None
    from sklearn.model_selection import PredefinedSplit

    draw = np.random.default_rng(0)
    x = draw.standard_normal((samples, features), dtype=np.float32)
    y = x @ draw.standard_normal((features, voxels), dtype=np.float32) * 0.05
    y += draw.standard_normal(y.shape, dtype=np.float32)
    fold = np.arange(samples) * 5 // samples
    seconds, fitted = best_of(
        repeats,
        ours=lambda: ridge_cv(x, y, ALPHAS, fold),
        peer=lambda: RidgeCV(np.array(ALPHAS), cv=PredefinedSplit(fold), fit_intercept=True).fit(x, y),
    )
    apart = np.abs(fitted["ours"].weights - fitted["peer"].coef_).max()
    note = f"same folds and {len(ALPHAS)} penalties, float32; largest difference of a weight {apart:.1e}"
    return row(f"ridge, {samples} x {features} to {voxels:,} voxels", "himalaya RidgeCV", seconds, note)


def bench_reading(shape: tuple[int, ...] = (48, 48, 24, 150), repeats: int = REPEATS) -> dict[str, Any]:
    """Mask and clean a run (linear trend, unit variance, high-pass), beside nilearn's NiftiMasker."""
    from nilearn.maskers import NiftiMasker

    draw = np.random.default_rng(0)
    inside = np.zeros(shape[:3], dtype=bool)
    inside[8:-8, 8:-8, 4:-4] = True
    with tempfile.TemporaryDirectory() as folder:
        path, affine = Path(folder) / "run.nii", np.diag([3.0, 3.0, 3.0, 1.0])
        image = nibabel.Nifti1Image((draw.standard_normal(shape) * 30 + 900).astype(np.int16), affine)
        image.header.set_zooms((3.0, 3.0, 3.0, 2.0))
        image.to_filename(path)
        mask = nibabel.Nifti1Image(inside.astype(np.uint8), affine)
        cleaning = Cleaning(high_pass=0.008)
        masker = NiftiMasker(
            mask,
            detrend=True,
            standardize="zscore_sample",
            high_pass=0.008,
            t_r=2.0,
            dtype="float32",
            clean_args={"filter": "cosine"},
        )
        seconds, read = best_of(
            repeats,
            ours=lambda: cleaning.apply(masked(open_bold(path), path, inside), 2.0).series,
            peer=lambda: masker.fit_transform(str(path)),
        )
    apart = np.abs(read["ours"] - read["peer"]).max()
    note = f"{int(inside.sum()):,} voxels, {shape[3]} volumes, high-pass .008 Hz; largest difference {apart:.1e}"
    return row("mask and clean a run", "nilearn NiftiMasker", seconds, note)


def bench_permutation(permutations: int = 1000, refits: int = 25) -> dict[str, Any]:
    """The null of ridge with every permutation at once, beside one fit per permutation and fold."""
    brains = _blocks()
    splits = LeaveRunsOut().splits(brains)
    alpha = Ridge().alpha
    start = time.process_time()
    null = ridge_null(brains, splits, alpha, permutations)
    ours = time.process_time() - start
    start = time.process_time()
    refitted = _refitted(brains, alpha, refits, permutations)
    peer = (time.process_time() - start) / refits * permutations
    apart = np.abs(refitted - null.drawn[:refits]).max()
    note = (
        f"{len(brains.table)} samples, {brains.subjects['01'].x.shape[1]} voxels, {len(splits)} folds; peer timed on "
        f"{refits} permutations, voxels standardised once per fold; largest difference of an accuracy {apart:.1e}"
    )
    return row(f"ridge null, {permutations:,} permutations", "fitting again", {"ours": ours, "peer": peer}, note)


def _refitted(brains: Brains, alpha: float, refits: int, permutations: int) -> np.ndarray:
    """Accuracies of the first permutations: nothing but the solve and the prediction is done again."""
    table, x = brains.table, brains.subjects["01"].x
    truth = pd.Categorical(table["label"], brains.candidates).codes.astype(int)
    order = permuted_within_runs(table, permutations)[:refits]
    hits = np.zeros(refits)
    for split in LeaveRunsOut().splits(brains):
        train, test = (table.index.get_indexer(side) for side in (split.train, split.test))
        standard = Standard(x[train])
        seen, asked = standard(x[train]), standard(x[test])
        for b, labels in enumerate(truth[order]):
            target = np.eye(len(brains.candidates))[labels[train]]
            mean = target.mean(axis=0)
            guess = (asked @ ridge_weights(seen, target - mean, alpha) + mean).argmax(axis=1)
            hits[b] += (guess == labels[test]).sum()
    return hits / len(table)


def _blocks(runs: int = 12, classes: int = 8, voxels: int = 530) -> Brains:
    """One subject of the size of the block-design sample: each run shows each class once."""
    draw = np.random.default_rng(0)
    names = [f"class{k}" for k in range(classes)]
    labels = [str(name) for _ in range(runs) for name in draw.permutation(names)]
    patterns = draw.standard_normal((classes, voxels))[[names.index(name) for name in labels]]
    x = patterns * 0.3 + draw.standard_normal((runs * classes, voxels))
    table = sample_table("01", [f"{k // classes + 1:02d}" for k in range(len(labels))], [0.0] * len(labels), labels)
    return Brains("bench", {"01": Brain("01", x.astype(np.float32), table)}, [], names)


def run() -> dict[str, Any]:
    """Every case, on one thread."""
    with threadpool_limits(1):
        rows = [bench_ridge(), bench_reading(), bench_permutation()]
    versions = {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in ("numpy", "scipy", "himalaya", "nilearn")
    }
    return {"bench": "fmri", "device": f"cpu, 1 thread, {platform.machine()}", "versions": versions, "rows": rows}
