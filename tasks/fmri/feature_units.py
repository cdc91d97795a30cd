"""What a model says about the things shown, set beside the brains that saw them: encoding, geometry and Brain-Score.

Each is a control unit of a run, `RUN/controls/NAME/NAME.csv`. The features come from `features` of the config and know
nothing of the brains. Where data do not allow a comparison, its row says why.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from data.brain.brain import Brain, Brains
from data.errors import DataError
from tasks.experiment.folder import write_whole
from tasks.experiment.signatures import ConfigError
from tasks.fmri.brain_score import brain_score
from tasks.fmri.encoding import Spaces, encode
from tasks.fmri.experiment import FmriExperiment
from tasks.fmri.rsa import compare_rdms, geometries, pairs, rdm
from tasks.fmri.unit import experiment_in_process, write_maps

ENCODING, MODEL_RSA, BRAIN_SCORE = "encoding", "model-rsa", "brain-score"
TOGETHER = "together (banded)"
"""The row of all feature spaces at once, each with a penalty of its own."""

NARROW = 5
"""Features of fewer numbers have Euclidean dissimilarities: a correlation over so few is mostly noise."""

_ENCODING = ("subject", "features", "mean", "median", "best", "shuffled", "p95", "significant", "voxels", "n", "note")
_SCORE = (
    "subject", "features", "score", "error", "r", "ceiling", "shuffled", "stimuli", "repeats", "voxels", "note",
)  # fmt: skip
_RSA = (
    "between", "model", "distance", "value", "low", "high", "p", "p95", "ceiling_low", "ceiling_high", "rdms", "note",
)  # fmt: skip


def encoded(folder: Path, config: dict[str, Any]) -> None:
    """How well features predict each voxel on held-out samples: a row per subject and space, and all spaces together.

    Where held-out samples show what also trained, any features that tell the candidates apart predict. So each row has
    the mean correlation of the same features with the candidates shuffled, too.

    `maps.npz` beside the table holds the correlation of every voxel.
    """
    experiment = experiment_in_process(json.dumps(config))
    brains = experiment.brains.load()
    splits = experiment.split.splits(brains)
    spaces = feature_spaces(experiment, brains)
    sets: dict[str, Spaces] = {name: {name: space} for name, space in spaces.items()}
    if len(spaces) > 1:
        sets[TOGETHER] = spaces
    order = np.random.default_rng(0).permutation(len(brains.candidates))
    rows: list[dict[str, Any]] = []
    maps: dict[str, dict[str, np.ndarray]] = {}
    for name, of in sets.items():
        try:
            found = encode(brains, splits, of, permutations=min(200, experiment.controls.permutations))
            floor = encode(brains, splits, {key: space[order] for key, space in of.items()}, permutations=0)
        except (DataError, ConfigError) as why:
            rows.append({"features": name, "note": str(why)})
            continue
        for subject, encoding in found.items():
            r = encoding.r
            rows.append(
                {
                    "subject": subject, "features": name, "mean": np.nanmean(r), "median": np.nanmedian(r),
                    "best": np.nanmax(r), "shuffled": np.nanmean(floor[subject].r), "p95": encoding.p95,
                    "significant": encoding.significant, "voxels": len(r), "n": encoding.n,
                }
            )  # fmt: skip
            maps.setdefault(subject, {})[name] = np.nan_to_num(r)
    write_maps(folder / "maps.npz", maps)
    _write(folder, rows, _ENCODING)


def compared(folder: Path, config: dict[str, Any]) -> None:
    """The geometry of each model of the stimuli against that of subjects, or of the runs of each subject."""
    experiment = experiment_in_process(json.dumps(config))
    brains = experiment.brains.load()
    rows: list[dict[str, Any]] = []
    for name, space in feature_spaces(experiment, brains).items():
        distance = "correlation" if space.shape[1] >= NARROW else "euclidean"
        for between, rdms in geometries(brains).items():
            said = {"between": between, "model": name, "distance": distance, "rdms": len(rdms)}
            try:
                own = rdm(space, "correlation" if distance == "correlation" else "euclidean")
                if np.ptp(pairs(own)) < 1e-9:
                    raise DataError("sets all candidates equally far apart, so it has no geometry to compare")
                found = compare_rdms({name: own}, rdms, draws=experiment.controls.permutations or 1)
                rows.append({**found.iloc[0].to_dict(), **said})
            except DataError as why:
                rows.append(said | {"note": str(why)})
    _write(folder, rows, _RSA)


def scored(folder: Path, config: dict[str, Any]) -> None:
    """Brain-Score of each model of the stimuli in each subject, and its r when the stimuli are shuffled."""
    experiment = experiment_in_process(json.dumps(config))
    brains = experiment.brains.load()
    spaces = feature_spaces(experiment, brains)
    rows = [row for brain in brains.subjects.values() for row in _scores(brain, brains, spaces)]
    _write(folder, rows, _SCORE)


def _scores(brain: Brain, brains: Brains, spaces: Spaces) -> Iterator[dict[str, Any]]:
    responses, seen = assembly(brain, brains)
    objects = dict(zip(brain.table[brains.truth], brain.table["label"], strict=True))
    kinds = [str(objects[brains.candidates[k]]) for k in seen]
    repeats = responses.shape[1] if responses.ndim == 3 else 1
    order = np.random.default_rng(0).permutation(len(seen))
    for name, space in spaces.items():
        said = {
            "subject": brain.subject, "features": name, "stimuli": len(seen), "repeats": repeats,
            "voxels": responses.shape[-1],
        }  # fmt: skip
        try:
            with warnings.catch_warnings():
                # The row's note says it.
                warnings.filterwarnings("ignore", message="brain score: ")
                found = brain_score(space[seen], responses, kinds)
            floor = brain_score(space[seen][order], responses.mean(axis=1) if repeats > 1 else responses, kinds)
        except DataError as why:
            yield said | {"note": str(why)}
            continue
        yield said | {
            "score": found.score, "error": found.error, "r": found.r, "ceiling": found.ceiling, "note": found.note,
            "shuffled": floor.r,
        }  # fmt: skip


def assembly(brain: Brain, brains: Brains) -> tuple[Float[np.ndarray, "k r x"] | Float[np.ndarray, "k x"], list[int]]:
    """A subject's responses to each candidate that it saw, as many repeats of each as the rarest has.

    Returns:
        `[candidates, repeats, voxels]`, or `[candidates, voxels]` where some was seen once, and which candidates.
    """
    rows = brain.table.reset_index().groupby(brains.truth, sort=False).indices
    seen = [k for k, name in enumerate(brains.candidates) if name in rows]
    repeats = min(len(rows[brains.candidates[k]]) for k in seen)
    stack = np.stack([brain.x[rows[brains.candidates[k]][:repeats]] for k in seen]).astype(np.float64)
    return (stack if repeats > 1 else stack[:, 0]), seen


def feature_spaces(experiment: FmriExperiment, brains: Brains) -> dict[str, Float[np.ndarray, "k _"]]:
    """The features of every candidate, one row each."""
    tokens = {name: of.embed(brains, []).tokens for name, of in experiment.features.items()}
    return {name: rows.reshape(len(rows), -1).astype(np.float64) for name, rows in tokens.items()}


def _write(folder: Path, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    table = pd.DataFrame(rows, columns=list(columns))
    write_whole(folder / f"{folder.name}.csv", table.to_csv(index=False))
