"""Representational dissimilarity matrices (RDMs): read, checked, averaged, and laid out as points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from data.array_files import read_npy, read_npz
from data.cohort.read import text_table
from data.errors import DataError


@dataclass(frozen=True)
class Dissimilarities:
    """An RDM per person over the same conditions.

    Attributes:
        people: labels
        conditions: names, in the order of rows and columns
        values: symmetric, 0 on the diagonal

    Raises:
        DataError: not square and symmetric, NaN, or names that do not fit
    """

    people: list[str]
    conditions: list[str]
    values: Float[np.ndarray, "n i i"]

    def __post_init__(self) -> None:
        people, conditions = self.values.shape[:2]
        if (len(self.people), len(self.conditions)) != (people, conditions):
            raise DataError(
                f"RDMs of {people} people and {conditions} conditions, but {len(self.people)} and "
                f"{len(self.conditions)} names; name each person and condition"
            )
        for person, rdm in zip(self.people, self.values, strict=True):
            if not np.isfinite(rdm).all():
                raise DataError(f"RDM of {person}: NaN or infinite; leave the person or the condition out")
            if not np.allclose(rdm, rdm.T, atol=1e-6 * np.abs(rdm).max()):
                raise DataError(f"RDM of {person}: not symmetric; a dissimilarity has no direction")
            if np.abs(np.diag(rdm)).max() > 1e-6 * max(np.abs(rdm).max(), 1e-12):
                raise DataError(f"RDM of {person}: not 0 on the diagonal; is it a similarity? Give 1 - similarity")

    @property
    def pairs(self) -> Float[np.ndarray, "n j"]:
        """Each person's dissimilarities, upper triangle row by row."""
        return self.values[:, *np.triu_indices(len(self.conditions), k=1)]

    def without(self, person: str) -> Dissimilarities:
        """Everybody else."""
        keep = [k for k, name in enumerate(self.people) if name != person]
        return Dissimilarities([self.people[k] for k in keep], self.conditions, self.values[keep])

    def mean(self) -> Float[np.ndarray, "i i"]:
        """The average RDM of all people."""
        return self.values.mean(axis=0)


def read_rdms(path: Path, key: str | None = None, conditions: list[str] | None = None) -> Dissimilarities:
    """RDMs of several people.

    Args:
        path: `.npz` with one array people x n x n (the 92-image data of Net2Brain), `.npy`, or `.mat` with rsatoolbox's
            struct `RDMs` (people x sessions; sessions are averaged)
        key: of the array in an npz with several
        conditions: names; None = `000`, `001`, ...

    Raises:
        DataError: not readable, or not RDMs
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file of dissimilarities")
    try:
        values = _from_mat(path) if path.suffix == ".mat" else _from_numpy(path, key)
    except (OSError, ValueError, KeyError, EOFError) as problem:
        if isinstance(problem, DataError):
            raise
        raise DataError(f"{path}: cannot be read ({problem}); expected .npz, .npy or .mat with RDMs") from None
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or values.shape[1] != values.shape[2]:
        raise DataError(f"{path}: shape {values.shape}; expected people x conditions x conditions")
    people = [f"{k + 1:02d}" for k in range(len(values))]
    names = conditions or [f"{k:03d}" for k in range(values.shape[1])]
    try:
        return Dissimilarities(people, names, np.asarray(values, dtype=float))
    except (ValueError, TypeError) as problem:
        raise DataError(f"{path}: {problem}") from None


def _from_numpy(path: Path, key: str | None) -> np.ndarray:
    if path.suffix == ".npy":
        return read_npy(path)
    content = read_npz(path)
    if key is None and len(content) != 1:
        raise DataError(f"{path}: arrays {', '.join(content)}; say which one (key)")
    if key is not None and key not in content:
        raise DataError(f"{path}: no array {key}; there are {', '.join(content)}")
    return content[key or next(iter(content))]


def _from_mat(path: Path) -> np.ndarray:
    from scipy.io import loadmat

    sessions = loadmat(path)["RDMs"]["RDM"]
    return np.stack([np.mean(np.stack(list(person)), axis=0) for person in sessions.reshape(-1, sessions.shape[-1])])


def read_conditions(path: Path, column: str = "category") -> pd.DataFrame:
    """A row per condition: name, made of its place and class, and all columns of the table.

    Args:
        path: TSV with a row per condition, in the order of the RDMs
        column: of the class

    Raises:
        DataError: no such file or column
    """
    if not path.is_file():
        raise DataError(f"{path}: no such table of conditions")
    table = text_table(path, f"a row per condition with a column {column}", sep="\t", dtype=None)
    if column not in table:
        raise DataError(f"{path}: no column {column}; there are {', '.join(table.columns)}")
    table.insert(0, "name", [f"{k:03d} {kind}" for k, kind in enumerate(table[column])])
    return table


def classical_scaling(rdm: Float[np.ndarray, "i i"], dims: int) -> Float[np.ndarray, "i e"]:
    """Points whose squared distances are the dissimilarities as nearly as can be (Torgerson 1952), largest axis first.

    1 - correlation is half the squared distance of standardised patterns, so the values are centred as they are. Axes
    of negative eigenvalue, which no points can have, are 0. The largest entry of each axis is positive.

    Args:
        rdm: symmetric, 0 on the diagonal
        dims: how many axes
    """
    n = len(rdm)
    if not 0 < dims <= n:
        raise ValueError(f"dims={dims}: between 1 and the {n} conditions")
    centre = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * centre @ rdm @ centre)
    top = np.argsort(values)[::-1][:dims]
    points = vectors[:, top] * np.sqrt(np.maximum(values[top], 0))
    towards = np.sign(points[np.abs(points).argmax(axis=0), np.arange(dims)])
    return points * np.where(towards == 0, 1, towards)
