"""`fmri rsa RDMS`: dissimilarities that somebody has computed already, of several people over the same conditions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from data.brain.dissimilarity import Dissimilarities, read_rdms
from data.errors import DataError
from tasks.experiment.console import say
from tasks.fmri.rsa import between_people, category_model, compare_rdms, identification, noise_ceiling, rdm


def compare_files(
    brains: Path, models: Sequence[Path], key: str | None = None, draws: int = 1000
) -> dict[str, list[dict[str, Any]]]:
    """Noise ceiling, agreement and identification of people's dissimilarities, and models beside them.

    Args:
        brains: of people, see `read_rdms`
        models: a table (tsv or csv) with a row per condition in the order of the dissimilarities, each column a model:
            text is a category, numbers are a position, and one that numbers the rows is left out; or dissimilarities
            (npy, npz, mat), averaged over people
        key: of the array in an npz with several
        draws: permutations of the conditions, and resamples of people

    Returns:
        Rows of `people` and of `models`.

    Raises:
        DataError: a file cannot be read, or a model has other conditions
    """
    measured = read_rdms(brains, key)
    rdms = measured.values
    rows: dict[str, list[dict[str, Any]]] = {"people": _people(measured)}
    found = {name: model for path in models for name, model in _models(path, rdms.shape[1]).items()}
    if found:
        if len(rdms) < 2:
            raise DataError(f"{brains}: dissimilarities of one person have no noise ceiling; give those of several")
        rows["models"] = compare_rdms(found, rdms, draws=draws).to_dict("records")
    return rows


def _people(measured: Dissimilarities) -> list[dict[str, Any]]:
    """What people say about one another."""
    rdms, conditions = measured.values, len(measured.conditions)
    if len(rdms) < 2:
        return [{"what": "conditions", "value": conditions, "chance": np.nan}]
    ceiling, found = noise_ceiling(rdms), identification(rdms)
    alike = between_people(rdms)[np.triu_indices(len(rdms), 1)]
    return [
        {"what": "noise ceiling, lower end", "value": ceiling.low, "chance": 0.0},
        {"what": "noise ceiling, upper end", "value": ceiling.high, "chance": 0.0},
        {"what": "two people, mean", "value": float(alike.mean()), "chance": 0.0},
        {"what": "identification from the others, top-1", "value": found["top1"].mean(), "chance": 1 / conditions},
        {"what": "identification from the others, top-5", "value": found["top5"].mean(), "chance": 5 / conditions},
    ]


def _models(path: Path, conditions: int) -> dict[str, Float[np.ndarray, "n n"]]:
    """The models of a file by name."""
    if path.suffix not in (".tsv", ".csv"):
        model = read_rdms(path).mean()
        if len(model) != conditions:
            raise DataError(f"{path}: {len(model)} conditions, the people's dissimilarities have {conditions}")
        return {path.stem: model}
    if not path.is_file():
        raise DataError(f"{path}: no such table of conditions")
    table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")
    if len(table) != conditions:
        raise DataError(f"{path}: {len(table)} rows for {conditions} conditions; give one each, in the same order")
    found = {}
    for name, column in table.items():
        if column.isna().any():
            raise DataError(f"{path}: column {name} has an empty cell; fill it, or leave the column out")
        if pd.api.types.is_numeric_dtype(column):
            if (column.diff().dropna() == 1).all():
                # It numbers the rows; rows in the order of their kinds would make it look like a model.
                say(f"{path}: column {name} numbers the rows and is left out", "fmri")
                continue
            model = rdm(column.to_numpy(dtype=float)[:, None], "euclidean")
        else:
            model = category_model([str(value) for value in column])
        off = model[np.triu_indices(conditions, 1)]
        if np.ptp(off) > 0:
            found[str(name)] = model
        else:
            say(f"{path}: column {name} sets all conditions equally far apart, so it is no model; left out", "fmri")
    if not found:
        raise DataError(f"{path}: no column is a model of the conditions; give categories, or numbers such as a rating")
    return found
