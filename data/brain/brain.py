"""Brains: samples by voxels of each subject, what was shown, in which run, and an account of what was left out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from data.errors import DataError

COLUMNS = ("subject", "run", "position", "onset", "label", "stimulus")


@dataclass(frozen=True)
class VoxelSpace:
    """How the columns of a voxel matrix go back to a volume.

    Attributes:
        mask: True = this voxel is a column; columns follow the mask in C order, as nilearn's maskers do
        affine: voxel indices to millimetres
    """

    mask: Bool[np.ndarray, "i j k"]
    affine: Float[np.ndarray, "4 4"]

    def volume(self, values: Float[np.ndarray, " x"]) -> Float[np.ndarray, "i j k"]:
        """A volume that holds one value per voxel, and 0 outside the mask.

        Raises:
            ValueError: as many values as the mask has voxels are needed
        """
        if len(values) != self.mask.sum():
            raise ValueError(f"{len(values)} values for a mask of {int(self.mask.sum())} voxels")
        filled = np.zeros(self.mask.shape, dtype=values.dtype)
        filled[self.mask] = values
        return filled


@dataclass(frozen=True)
class Brain:
    """One subject.

    Attributes:
        subject: label, without `sub-`
        x: float32, a row per sample (a volume, a block mean or a beta), a column per voxel
        table: a row per sample, indexed by sample id `<subject>/<run>/<position>`. Columns: subject, run (text),
            position (order of the sample within its run, from 0), onset (s from the start of the run; NaN = unknown),
            label (the class), stimulus (what exactly was shown; the label where nothing finer is known)
        space: where the voxels are; None when the data do not say

    Raises:
        DataError: rows and samples differ, a column missing, an id twice, values that are not finite
    """

    subject: str
    x: Float[np.ndarray, "n x"]
    table: pd.DataFrame
    space: VoxelSpace | None = None

    def __post_init__(self) -> None:
        who = f"subject {self.subject}"
        missing = [column for column in COLUMNS if column not in self.table]
        if missing:
            raise DataError(f"{who}: sample table without {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
        if len(self.x) != len(self.table):
            raise DataError(f"{who}: {len(self.x)} rows of voxels for {len(self.table)} samples; one each is needed")
        if not self.table.index.is_unique:
            twice = self.table.index[self.table.index.duplicated()][0]
            raise DataError(f"{who}: sample {twice} occurs more than once; give each its own run and position")
        strange = [i for i in self.table.index if not str(i).startswith(f"{self.subject}/")]
        if strange:
            raise DataError(f"{who}: sample {strange[0]}; an id is <subject>/<run>/<position>")
        if not np.isfinite(self.x).all():
            bad = int((~np.isfinite(self.x)).any(axis=0).sum())
            raise DataError(f"{who}: {bad} voxels hold NaN or infinite values; drop or fill them first")
        if self.space is not None and self.space.mask.sum() != self.x.shape[1]:
            raise DataError(f"{who}: {self.x.shape[1]} columns for a mask of {int(self.space.mask.sum())} voxels")

    @property
    def runs(self) -> list[str]:
        """Its runs, in the order in which they come."""
        return list(dict.fromkeys(self.table["run"]))

    def only(self, ids: Sequence[str]) -> Brain:
        """The same subject with these samples, in this order."""
        return replace(self, x=self.x[self.table.index.get_indexer(list(ids))], table=self.table.loc[list(ids)])


def sample_table(
    subject: str,
    run: Iterable[str],
    onset: Iterable[float],
    label: Iterable[str],
    stimulus: Iterable[str] | None = None,
) -> pd.DataFrame:
    """The table of a `Brain`; positions count the samples of each run in the order given.

    Args:
        subject: its label
        run, onset, label: one per sample
        stimulus: one per sample; None = the label
    """
    table = pd.DataFrame(
        {
            "subject": subject,
            "run": pd.Series(list(run), dtype=object),
            "onset": np.asarray(list(onset), dtype=float),
            "label": pd.Series(list(label), dtype=object),
            "stimulus": pd.Series(list(label if stimulus is None else stimulus), dtype=object),
        }
    )
    table.insert(2, "position", table.groupby("run").cumcount().astype(int))
    ids = [f"{subject}/{r}/{p}" for r, p in zip(table["run"], table["position"], strict=True)]
    return table.set_index(pd.Index(ids, name="sample", dtype=object))


@dataclass(frozen=True)
class Brains:
    """What a source loads.

    Attributes:
        name: what reports call it
        subjects: by label
        account: what was read, dropped and why, a sentence each
        candidates: the gallery a sample is matched with, sorted: all labels (classification) or stimuli (retrieval)
        truth: the column of `table` that names the right candidate, label or stimulus
        targets: an embedding per candidate, when the data bring one
        ceiling: the accuracy or top-1 that nobody is expected to exceed, when it is known

    Raises:
        DataError: no subject, a sample whose truth is not a candidate, targets that do not fit the candidates
    """

    name: str
    subjects: dict[str, Brain]
    account: list[str]
    candidates: list[str]
    truth: str = "label"
    targets: Float[np.ndarray, "k e"] | None = None
    ceiling: float | None = None

    def __post_init__(self) -> None:
        if not self.subjects:
            raise DataError(f"{self.name}: no subject is left; " + ("; ".join(self.account) or "the source is empty"))
        if self.truth not in ("label", "stimulus"):
            raise DataError(f"{self.name}: truth={self.truth!r}; expected label or stimulus")
        if len(set(self.candidates)) < len(self.candidates):
            raise DataError(f"{self.name}: a candidate is named more than once; name each once")
        for label, brain in self.subjects.items():
            if label != brain.subject:
                raise DataError(f"{self.name}: subject {brain.subject} is filed as {label}; use one label")
            strange = sorted(set(brain.table[self.truth]) - set(self.candidates))
            if strange:
                raise DataError(f"{self.name}: {self.truth} {strange[0]} of subject {label} is no candidate; list it")
        if self.targets is not None and len(self.targets) != len(self.candidates):
            raise DataError(
                f"{self.name}: {len(self.targets)} target embeddings for {len(self.candidates)} candidates; one each"
            )

    @cached_property
    def table(self) -> pd.DataFrame:
        """The samples of all subjects, one after the other."""
        return pd.concat([brain.table for brain in self.subjects.values()])

    @property
    def chance(self) -> float:
        """Accuracy or top-1 of a guess among the candidates."""
        return 1 / len(self.candidates)

    def rows(self, ids: Sequence[str]) -> dict[str, tuple[Float[np.ndarray, "_ _"], pd.DataFrame]]:
        """Voxels and table of the given samples, per subject that has any, in the order given.

        Raises:
            DataError: a sample that is not here
        """
        return {subject: (brain.x, brain.table) for subject, brain in self._selected(ids).items()}

    def only(self, ids: Sequence[str]) -> Brains:
        """The same data with these samples alone; the gallery stays whole."""
        return replace(self, subjects=self._selected(ids))

    def note(self, sentence: str) -> None:
        """Add a sentence to the account, once."""
        if sentence not in self.account:
            self.account.append(sentence)

    def _selected(self, ids: Sequence[str]) -> dict[str, Brain]:
        of: dict[str, list[str]] = {}
        for i in ids:
            of.setdefault(i.partition("/")[0], []).append(i)
        for subject, wanted in of.items():
            known = self.subjects[subject].table.index if subject in self.subjects else ()
            strange = set(wanted).difference(known)
            if strange:
                raise DataError(f"{self.name}: no sample {min(strange)}; these samples belong to other data")
        return {subject: self.subjects[subject].only(of[subject]) for subject in self.subjects if subject in of}


class BrainSource(ABC):
    """Where brains come from; what a config names under `brains`."""

    _brains: Brains | None = None

    @abstractmethod
    def read(self) -> Brains:
        """Read, check and align everything."""

    def load(self) -> Brains:
        """What `read` gives; it is read at most once."""
        if self._brains is None:
            self._brains = self.read()
        return self._brains
