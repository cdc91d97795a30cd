"""Who trains and who is scored: published folds, generated ones, and selection inside a training fold."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from data.cohort.read import text_table
from data.errors import DataError

if TYPE_CHECKING:
    from data.cohort.cohort import Cohort


@dataclass(frozen=True)
class Split:
    """Two disjoint sets of patients.

    Raises:
        DataError: a patient is on both sides, twice on one, or a side is empty
    """

    name: str
    train: list[str]
    test: list[str]

    def __post_init__(self) -> None:
        for side, ids in (("train", self.train), ("test", self.test)):
            if not ids:
                raise DataError(f"split {self.name}: the {side} side is empty; it needs at least one patient")
            if len(set(ids)) < len(ids):
                twice = sorted({i for i in ids if ids.count(i) > 1})
                raise DataError(f"split {self.name}: {_some(twice)} more than once in {side}; list each patient once")
        both = sorted(set(self.train) & set(self.test))
        if both:
            raise DataError(
                f"split {self.name}: {len(both)} patients are in train and in test ({_some(both)}); "
                "a score on them would be worthless. Remove them from one side"
            )


def _some(ids: Collection[str], shown: int = 3) -> str:
    listed = list(ids)
    return ", ".join(listed[:shown]) + (", ..." if len(listed) > shown else "")


def published_splits(folder: Path | str) -> list[Split]:
    """Read `splits_0.csv`, `splits_1.csv`, ...: columns train and val (or test), patient ids, ragged.

    Raises:
        DataError: no such file, a column missing, or overlapping sides
    """
    folder = Path(folder)
    numbered = {int(m[1]): p for p in folder.glob("splits_*.csv") if (m := re.fullmatch(r"splits_(\d+)", p.stem))}
    if not numbered:
        raise DataError(f"{folder}: no splits_0.csv, splits_1.csv, ... in this folder; give the folder that holds them")
    splits = []
    for fold, path in sorted(numbered.items()):
        table = text_table(path, "columns train and val with patient ids")
        scored = next((c for c in ("val", "test") if c in table), None)
        if "train" not in table or scored is None:
            raise DataError(f"{path}: columns {list(table.columns)}; expected train and val (or test) with patient ids")
        splits.append(Split(f"fold{fold}", list(table["train"].dropna()), list(table[scored].dropna())))
    return splits


def write_splits(folder: Path | str, splits: Sequence[Split]) -> None:
    """Write `splits_k.csv` in the published layout."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for fold, split in enumerate(splits):
        columns = {"train": pd.Series(split.train, dtype=str), "val": pd.Series(split.test, dtype=str)}
        pd.DataFrame(columns).to_csv(folder / f"splits_{fold}.csv")


def aligned(splits: Sequence[Split], cohort: Cohort) -> list[Split]:
    """The same splits without the patients that the cohort's account says were dropped.

    Raises:
        DataError: a split names a patient that the cohort has never seen
    """
    known = set(cohort.patients.index)
    kept = []
    for split in splits:
        strange = [i for i in (*split.train, *split.test) if i not in known and i not in cohort.dropped]
        if strange:
            raise DataError(
                f"split {split.name}: {len(strange)} patients are not in cohort {cohort.name} ({_some(strange)}); "
                "these splits belong to another table"
            )
        train, test = ([i for i in side if i in known] for side in (split.train, split.test))
        kept.append(Split(split.name, train, test))
    return kept


def _in_strata(patients: pd.DataFrame, seed: int, by: Sequence[str]) -> np.ndarray:
    """Positions of the patients, shuffled and then sorted into strata.

    Whoever deals them out in turn spreads every stratum, and every run of neighbouring strata (all events, all
    patients), with counts that differ by at most one.
    """
    order = np.random.default_rng(seed).permutation(len(patients))
    keys = [pd.factorize(patients[column].astype(object).where(patients[column].notna(), "?"))[0] for column in by]
    return order[np.lexsort([key[order] for key in reversed(keys)])] if keys else order


def stratified_splits(
    cohort: Cohort, folds: int = 5, seed: int = 0, by: Sequence[str] = ("event", "site")
) -> list[Split]:
    """Folds in which events, and within them tissue source sites, are spread evenly.

    Args:
        cohort: whose patients are dealt out
        folds: number of folds, at least 2
        seed: of the shuffle
        by: patient columns to spread evenly, most important first; a column the cohort lacks is skipped

    Raises:
        DataError: fewer events than folds, so that some fold could not be scored
    """
    if folds < 2:
        raise ValueError(f"folds={folds}: at least 2 are needed to hold patients out")
    if not cohort.has_outcomes:
        raise DataError(
            f"cohort {cohort.name}: no outcomes, so it cannot be split for training; it can only be predicted"
        )
    events = int(cohort.patients["event"].sum())
    if events < 2:
        raise DataError(
            f"cohort {cohort.name}: {events} of {len(cohort.patients)} patients had the event, so no fold can be both "
            "trained and scored; check which column says who died (schema.event or schema.censorship)"
        )
    if events < folds:
        raise DataError(
            f"cohort {cohort.name}: {events} events cannot be spread over {folds} folds, and a fold without events "
            f"cannot be scored. Use folds={events} or fewer"
        )
    fold = np.empty(len(cohort.patients), dtype=int)
    fold[_in_strata(cohort.patients, seed, [c for c in by if c in cohort.patients])] = np.arange(len(fold)) % folds
    ids = cohort.patients.index.to_numpy()
    return [Split(f"fold{k}", list(ids[fold != k]), list(ids[fold == k])) for k in range(folds)]


def nested_split(split: Split, cohort: Cohort, share: float = 0.2, seed: int = 0) -> Split:
    """Hold out a share of the *training* patients of a split, for selection that never sees its test side.

    Args:
        split: the outer split
        cohort: for the strata (event, site)
        share: of the training patients to hold out, between 0 and 1
        seed: of the shuffle

    Returns:
        a split whose two sides together are `split.train`
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share}: must be between 0 and 1")
    patients = cohort.patients.loc[split.train]
    turn = np.floor(np.arange(len(patients) + 1) * share)
    held = np.empty(len(patients), dtype=bool)
    held[_in_strata(patients, seed, [c for c in ("event", "site") if c in patients])] = np.diff(turn) > 0
    ids = np.asarray(split.train, dtype=object)
    return Split(f"{split.name}-nested", list(ids[~held]), list(ids[held]))
