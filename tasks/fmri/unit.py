"""One decoder on one fold with one seed: fit on the training samples, score the others, write both down."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.array_files import read_npz
from data.brain.brain import Brains
from data.brain.split import Split
from data.errors import DataError
from tasks.experiment.folder import write_whole
from tasks.fmri.decoder import Decoder, Scores
from tasks.fmri.experiment import FmriExperiment, experiment_of
from tasks.fmri.reconstructed import FILE, write_reconstructed

WHO = ("sample", "subject", "run", "position", "onset", "label", "stimulus", "truth", "cuts_runs")
"""Columns of predictions.csv before those of the candidates."""


@lru_cache(maxsize=2)
def experiment_in_process(config: str) -> FmriExperiment:
    """The experiment of a config as JSON; a process that runs several units reads its brains once."""
    return experiment_of(json.loads(config))


def run(folder: Path, config: dict[str, Any], arm: str, fold: int, seed: int) -> dict[str, Any]:
    """Fit and score.

    Args:
        folder: of this unit
        config: the resolved config
        arm: one of `FmriExperiment.decoders`
        fold: index of the split
        seed: of everything random

    Returns:
        facts for `done.json`
    """
    experiment = experiment_in_process(json.dumps(config))
    brains = experiment.brains.load()
    splits = experiment.split.splits(brains)
    if not 0 <= fold < len(splits):
        raise DataError(f"fold {fold}: {brains.name} has folds 0 to {len(splits) - 1}")
    split = splits[fold]
    decoder, scores, brains, split = fitted(experiment, arm, brains, split, seed, folder)
    write_scores(folder / "predictions.csv", scores, brains, split.cuts_runs)
    write_maps(folder / "maps.npz", decoder.maps(brains))
    if made := decoder.reconstructions(brains, split.test):
        write_reconstructed(folder / FILE, list(split.test), made)
    return {"split": split.name, "cuts_runs": split.cuts_runs, "train": len(split.train), "test": len(split.test)}


def fitted(
    experiment: FmriExperiment, arm: str, brains: Brains, split: Split, seed: int, folder: Path | None
) -> tuple[Decoder, Scores, Brains, Split]:
    """An arm fitted on one side of a split and its scores on the other.

    Returns:
        the decoder, its scores, and brains and split as the decoder saw them, repeats averaged if that was asked for
    """
    brains, split = prepared(brains, split, experiment.repeats)
    decoder = copy.deepcopy(experiment.decoders[arm])
    decoder.fit(brains, split.train, seed=seed, folder=folder)
    return decoder, decoder.scores(brains, split.test), brains, split


def prepared(brains: Brains, split: Split, repeats: str) -> tuple[Brains, Split]:
    """Brains and split with the repeats of a stimulus averaged within each side, or as they are."""
    if repeats == "keep":
        return brains, split
    from data.brain.units import average_repeats

    return average_repeats(brains, split)


def write_scores(path: Path, scores: Scores, brains: Brains, cuts_runs: bool) -> None:
    """One row per sample: who it is, the truth, whether the split cut runs, and a score for each candidate.

    Raises:
        DataError: a candidate has the name of one of the other columns
    """
    if taken := sorted(set(WHO) & set(scores.candidates)):
        raise DataError(f"{brains.name}: a candidate is called '{taken[0]}', as is a column of every result; rename it")
    table = brains.table.loc[scores.ids]
    who = table[["subject", "run", "position", "onset", "label", "stimulus"]].reset_index(names="sample")
    who = who.assign(truth=table[brains.truth].to_numpy(), cuts_runs=cuts_runs)
    columns = pd.DataFrame(scores.matrix, columns=list(scores.candidates))
    write_whole(path, pd.concat([who, columns], axis=1).to_csv(index=False))


def read_scores(table: pd.DataFrame, candidates: Sequence[str]) -> Scores:
    """The scores of rows of predictions.csv."""
    return Scores(table["sample"].tolist(), table[list(candidates)].to_numpy(dtype=float), list(candidates))


def write_maps(path: Path, maps: dict[str, dict[str, np.ndarray]]) -> None:
    """Voxel weights as `<subject>/<name>` in one file; nothing when the decoder has none."""
    flat = {f"{subject}/{name}": values for subject, of in maps.items() for name, values in of.items()}
    if flat:
        content = io.BytesIO()
        np.savez_compressed(content, **flat)  # type: ignore[arg-type]
        write_whole(path, content.getvalue())


def read_maps(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """What `write_maps` wrote: subject -> name -> one value per voxel; empty without a file."""
    maps: dict[str, dict[str, np.ndarray]] = {}
    if path.is_file():
        for key, values in read_npz(path).items():
            subject, _, name = key.partition("/")
            maps.setdefault(subject, {})[name] = values
    return maps
