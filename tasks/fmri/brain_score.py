"""Brain-Score: predict neural responses from a model's layer and correct for their noise (Schrimpf et al. 2018).

Partial least squares with 25 components, 10 random splits by stimulus with 90 % training (stratified by object),
Pearson r per unit on the held-out stimuli, median over units, mean over splits; score = r^2 / ceiling. The ceiling is
the split-half reliability of the responses, already a share of variance, so only r is squared.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from sklearn.cross_decomposition import PLSRegression
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit
from torch import Tensor, nn

from data.errors import DataError

FEWEST = 10
"""Stimuli; with fewer, a tenth held out is none."""


@dataclass(frozen=True)
class BrainScore:
    """What a layer explains of an assembly.

    Args:
        score: r^2 / ceiling; nan when the ceiling is unknown or not positive
        error: standard error of the score over the splits, the ceiling taken as known
        r: uncorrected Pearson r (median over units, mean over splits)
        ceiling: reliability of the mean response (median over units); nan without repeats
        units: mean r of each unit over the splits; nan for a constant unit
        excluded: constant units, left out of every median
        note: what a reader has to know
    """

    score: float
    error: float
    r: float
    ceiling: float
    units: Float[np.ndarray, " m"]
    excluded: int
    note: str


def brain_score(
    features: Float[np.ndarray, "n f"],
    responses: Float[np.ndarray, "_ *r m"],
    objects: Sequence[str] | None = None,
    *,
    components: int = 25,
    splits: int = 10,
    train_share: float = 0.9,
    seed: int = 1,
) -> BrainScore:
    """Score one layer against one assembly.

    Args:
        features: of the layer, a row per stimulus (flattened)
        responses: `[stimuli, units]`, or `[stimuli, repeats, units]`, which gives a ceiling
        objects: category of each stimulus, to stratify the splits; None = no strata
        components: of the regression; fewer when features or training stimuli are fewer
        splits: random splits of the stimuli
        train_share: share of the stimuli that train
        seed: of splits and halves

    Raises:
        DataError: stimuli differ in number, are fewer than ten, or a value is not finite
    """
    if len(features) != len(responses):
        raise DataError(f"{len(features)} stimuli with features and {len(responses)} with responses; align them first")
    if len(features) < FEWEST:
        raise DataError(f"{len(features)} stimuli; Brain-Score needs at least {FEWEST} to hold some out")
    for name, values in (("features", features), ("responses", responses)):
        if not np.isfinite(values).all():
            raise DataError(f"{name} hold NaN or infinite values; leave those stimuli or units out")
    mean = responses.mean(axis=1) if responses.ndim == 3 else responses
    constant = np.ptp(mean, axis=0) == 0
    per_split = []
    for train, test in _divided(len(mean), objects, splits, train_share, seed):
        fitted = PLSRegression(min(components, features.shape[1], len(train) - 1), scale=False)
        predicted = fitted.fit(features[train], mean[train][:, ~constant]).predict(features[test])
        own = np.full(mean.shape[1], np.nan)
        own[~constant] = pearson_of_units(predicted.reshape(len(test), -1), mean[test][:, ~constant])
        per_split.append(own)
    units = np.array(per_split)
    medians = np.array([_median(row) for row in units])
    r, error = float(np.mean(medians)), float(np.std(medians, ddof=1) / np.sqrt(splits)) if splits > 1 else np.nan
    notes = [f"{int(constant.sum())} constant units excluded"] if constant.any() else []
    ceiling = internal_consistency(responses, seed=seed) if responses.ndim == 3 else np.nan
    if np.isnan(ceiling):
        notes.append("no repeats, so no ceiling")
    elif ceiling <= 0:
        notes.append(f"the ceiling is {ceiling:.3f}: responses do not repeat, so there is nothing to explain")
        warnings.warn(f"brain score: {notes[-1]}; the score is nan", stacklevel=2)
    known = ceiling > 0
    return BrainScore(
        score=r**2 / ceiling if known else np.nan,
        error=2 * abs(r) * error / ceiling if known else np.nan,
        r=r,
        ceiling=ceiling,
        units=_mean_of_known(units),
        excluded=int(constant.sum()),
        note="; ".join(notes),
    )


def internal_consistency(responses: Float[np.ndarray, "n r m"], halves: int = 10, seed: int = 1) -> float:
    """Reliability of the mean response: repeats split in half, Pearson r per unit, median, Spearman-Brown, mean.

    Raises:
        DataError: fewer than two repeats
    """
    repeats = responses.shape[1]
    if repeats < 2:
        raise DataError(f"a ceiling needs at least two repeats of every stimulus, found {repeats}")
    draw, found = np.random.default_rng(seed), []
    for _ in range(halves):
        order = draw.permutation(repeats)
        first, second = order[: repeats // 2], order[repeats // 2 : 2 * (repeats // 2)]
        found.append(
            spearman_brown(_median(pearson_of_units(*(responses[:, h].mean(axis=1) for h in (first, second)))))
        )
    return float(np.mean(found))


def spearman_brown(r: float) -> float:
    """Reliability of the whole from the correlation of its halves: 2r / (1 + r)."""
    return 2 * r / (1 + r)


def pearson_of_units(a: Float[np.ndarray, "n m"], b: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " m"]:
    """Pearson r of each column of a with the same column of b; nan where one of them is constant."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    spread = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.divide((a * b).sum(axis=0), spread, out=np.full(a.shape[1], np.nan), where=spread > 0)


def layer_features(model: nn.Module, layer: str, images: Float[Tensor, "n c h w"], batch: int = 64) -> np.ndarray:
    """What a layer says about images, flattened: `[n, f]`.

    Args:
        model: any network; used as it is, in evaluation mode and without gradients
        layer: name of a submodule, as `model.named_modules()` lists it
        images: as the model expects them
        batch: images at a time

    Raises:
        DataError: there is no such layer
    """
    modules = dict(model.named_modules())
    if layer not in modules:
        raise DataError(f"the model has no layer '{layer}'; it has {', '.join(list(modules)[1:9])}, ...")
    caught: list[Tensor] = []

    def keep(_module: nn.Module, _given: object, y: Tensor | tuple[Tensor, ...]) -> None:
        # Transformer layers of some versions return their states as the first of several.
        states = y[0] if isinstance(y, tuple) else y
        caught.append(states.detach().flatten(1).cpu())

    handle = modules[layer].register_forward_hook(keep)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for part in images.split(batch):
                model(part)
    finally:
        handle.remove()
        model.train(training)
    return torch.cat(caught).double().numpy()


def _divided(
    n: int, objects: Sequence[str] | None, splits: int, share: float, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training and held-out stimuli; strata are dropped when an object has a single stimulus or there are too many."""
    held_out = n - int(n * share)
    labels = None if objects is None else np.unique(np.asarray(objects), return_inverse=True)[1]
    strata = labels is not None and np.bincount(labels).min() > 1 and labels.max() < min(held_out, n - held_out)
    kind = StratifiedShuffleSplit if strata else ShuffleSplit
    yield from kind(splits, train_size=share, random_state=seed).split(np.zeros(n), labels if strata else None)


def _median(values: Float[np.ndarray, " m"]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else np.nan


def _mean_of_known(values: Float[np.ndarray, "k m"]) -> Float[np.ndarray, " m"]:
    known = ~np.isnan(values)
    return np.divide(
        np.where(known, values, 0.0).sum(axis=0),
        known.sum(axis=0),
        out=np.full(values.shape[1], np.nan),
        where=known.any(axis=0),
    )
