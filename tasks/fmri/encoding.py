"""The other direction: predict every voxel from features of what was shown, and say how well on held-out runs.

One space of features is ridge regression; several are banded ridge, where each space has its own penalty (himalaya,
extra `banded`). Penalties are chosen per voxel on whole runs held out of the training samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from sklearn.model_selection import PredefinedSplit

from data.brain.brain import Brains
from data.brain.split import Split
from data.errors import DataError
from tasks.experiment.signatures import ConfigError
from tasks.fmri.baselines import Standard
from tasks.fmri.brain_score import pearson_of_units
from tasks.fmri.permutation import permuted_within_runs
from tasks.fmri.ridge import ridge_cv

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-1, 5, 13))
Spaces = Mapping[str, Float[np.ndarray, "k _"]]


@dataclass(frozen=True)
class Encoding:
    """How well voxels of one subject are predicted.

    Args:
        r: Pearson r of predicted and measured values on held-out samples, mean over folds; nan for a constant voxel
        p95: the r that the best of all voxels reaches in 5 % of permutations within runs (family-wise threshold)
        n: held-out samples
    """

    r: Float[np.ndarray, " x"]
    p95: float
    n: int

    @property
    def significant(self) -> int:
        """Voxels above the family-wise threshold."""
        return int((self.r > self.p95).sum())


def encode(
    brains: Brains,
    splits: Sequence[Split],
    spaces: Spaces,
    *,
    alphas: Sequence[float] = ALPHAS,
    permutations: int = 200,
    seed: int = 0,
) -> dict[str, Encoding]:
    """Predict the voxels of every subject from features of the candidates.

    Correlations are within folds, averaged over them. Over all folds at once, features that say nothing would correlate
    negatively: what a training side has too much of, the held-out side has too little of.

    Args:
        brains: what was measured
        splits: folds; every fold is fitted per subject
        spaces: features, one row per candidate; two or more spaces make it banded
        alphas: penalties to choose from
        permutations: for the threshold
        seed: of permutations and of the search of banded ridge

    Raises:
        DataError: a space does not have one row per candidate
        ConfigError: several spaces without himalaya
    """
    for name, rows in spaces.items():
        if len(rows) != len(brains.candidates):
            raise DataError(f"features {name}: {len(rows)} rows for {len(brains.candidates)} candidates; one row each")
    column = {name: k for k, name in enumerate(brains.candidates)}
    predicted: dict[str, list[np.ndarray]] = {}
    measured: dict[str, list[np.ndarray]] = {}
    asked: dict[str, list[str]] = {}
    for split in splits:
        train, test = brains.rows(split.train), brains.rows(split.test)
        for subject, (x, table) in test.items():
            if subject not in train:
                raise DataError(
                    f"split {split.name}: subject {subject} has no training sample; encoding is per subject"
                )
            seen, seen_table = train[subject]
            rows, rows_test = (t[brains.truth].map(column).to_numpy() for t in (seen_table, table))
            standard, bands = Standard(seen), [(space, Standard(space[rows])) for space in spaces.values()]
            ready = [own(space[rows]) for space, own in bands]
            model = fit_voxels(ready, standard(seen), alphas, seen_table["run"], seed)
            told = model([own(space[rows_test]) for space, own in bands])
            predicted.setdefault(subject, []).append(_within_fold(told))
            measured.setdefault(subject, []).append(_within_fold(standard(x)))
            asked.setdefault(subject, []).extend(table.index)
    return {
        subject: _judged(
            np.concatenate(predicted[subject]),
            np.concatenate(measured[subject]),
            brains.table.loc[asked[subject]],
            permutations,
            seed,
        )
        for subject in predicted
    }


def fit_voxels(
    bands: Sequence[Float[np.ndarray, "n _"]],
    y: Float[np.ndarray, "n x"],
    alphas: Sequence[float] = ALPHAS,
    runs: Sequence[str] | pd.Series | None = None,
    seed: int = 0,
) -> Any:
    """Ridge (one band) or banded ridge (several) with penalties per voxel.

    Folds are whole runs, at most five. One band: exact, in closed form. Several: random search over the bands' shares
    (himalaya).

    Args:
        bands: feature spaces of the training samples, standardised
        y: voxels of the training samples, standardised
        alphas: penalties to choose from
        runs: the run of each sample, for the folds; None = neighbouring samples make a fold
        seed: of the search

    Returns:
        A function from bands of new samples to predictions.
    """
    fold = _run_folds(runs, len(y))
    if len(bands) == 1:
        fitted = ridge_cv(bands[0], y, alphas, fold)
        return lambda new: fitted.predict(new[0])
    try:
        from himalaya.ridge import GroupRidgeCV
    except ImportError:
        raise ConfigError(
            f"{len(bands)} feature spaces need banded ridge; install the extra: pip install 'multimodal-fusion[banded]'"
        ) from None
    banded = GroupRidgeCV(
        groups="input",
        cv=PredefinedSplit(fold),
        fit_intercept=True,
        random_state=seed,
        solver_params={"alphas": np.asarray(alphas), "n_iter": 20, "progress_bar": False, "warn": False},
    ).fit([np.asarray(band, dtype=np.float64) for band in bands], np.asarray(y, dtype=np.float64))
    return lambda new: np.asarray(banded.predict([np.asarray(band, dtype=np.float64) for band in new]))


def _run_folds(runs: Sequence[str] | pd.Series | None, n: int) -> Int[np.ndarray, " n"]:
    of = np.arange(n) if runs is None else pd.factorize(np.asarray(runs))[0]
    if of.max() == 0:
        raise DataError("encoding chooses its penalties on held-out runs and found one run only; give more runs")
    return of * min(5, of.max() + 1) // (of.max() + 1)


def _judged(
    predicted: Float[np.ndarray, "n x"],
    measured: Float[np.ndarray, "n x"],
    table: pd.DataFrame,
    permutations: int,
    seed: int,
) -> Encoding:
    """Correlation over all held-out samples, and the best voxel's under labels permuted within runs."""
    a, b = _standard(predicted), _standard(measured)
    r = pearson_of_units(predicted, measured)
    best = [float((a[order] * b).mean(axis=0).max()) for order in permuted_within_runs(table, permutations, seed)]
    return Encoding(r, float(np.quantile(best, 0.95)) if best else np.nan, len(predicted))


def _within_fold(values: Float[np.ndarray, "n x"]) -> Float[np.ndarray, "n x"]:
    """Standardised over the samples of a fold, so that a pooled correlation is the mean of those of the folds.

    Fewer than three samples have no correlation of their own and stay as they are.
    """
    return _standard(values) if len(values) > 2 else values


def _standard(values: Float[np.ndarray, "n x"]) -> Float[np.ndarray, "n x"]:
    centred = values - values.mean(axis=0)
    deviation = centred.std(axis=0)
    return centred / np.where(deviation > 0, deviation, 1.0)
