"""Pairs: items of one modality, items of another, who belongs to whom, and which of them are asked and searched."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Bool

from data.errors import DataError

RawBatch: TypeAlias = np.ndarray | list[Any]
"""What an encoder takes: images uint8 `[b, 3, y, x]`, vectors float `[b, w]`, a list of str, or a list of arrays, one
per item: token vectors `[n, w]`, patch features `[p, c]`, notes `[n, 3]` (pitch, start and length in quarters)."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Side:
    """One modality of a collection.

    Attributes:
        name: the modality: image, text, melody, genes, slide, fmri, vectors
        ids: one per item, unique
        loader: rows -> what an encoder of this modality takes
        files: the user's file that each item is read from; empty = they come from elsewhere
    """

    name: str
    ids: list[str]
    loader: Callable[[Sequence[int]], RawBatch] = field(repr=False)
    files: Sequence[Path] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if len(set(self.ids)) != len(self.ids):
            twice = pd.Series(self.ids)
            first = twice[twice.duplicated()].iloc[0]
            raise DataError(f"{self.name}: id {first!r} stands twice; give every item an id of its own")

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, rows: Sequence[int]) -> RawBatch:
        """The items of these rows, in this order."""
        return self.loader(rows)

    def take(self, rows: Sequence[int]) -> Side:
        """A side of these rows alone."""
        kept = list(rows)
        files = [self.files[row] for row in kept] if self.files else ()
        return Side(self.name, [self.ids[row] for row in kept], lambda at: self.load([kept[row] for row in at]), files)


@dataclass(frozen=True)
class Gallery:
    """Who is asked and who is searched, in both directions.

    Attributes:
        name: what tables call it
        split: val or test
        left_queries, right_queries: rows that ask
        left_gallery, right_gallery: rows that are searched (left queries search the right gallery)
    """

    name: str
    split: str
    left_queries: list[int]
    right_queries: list[int]
    left_gallery: list[int]
    right_gallery: list[int]


@dataclass(frozen=True)
class Pairs:
    """Two modalities and who belongs to whom.

    Attributes:
        name: what reports call the collection
        left, right: the items
        matches: per left row the right rows that belong to it, at least one
        table: one row per left item, indexed by its id: split (train, val, test), licence, attribution, and attributes
            (a missing value is None)
        right_table: the same of the right items; only split is always there
        galleries: what is asked and searched, validation and test
        attributes: columns of `table` that conditions and probes may ask for
        account: what was read, left out and why, one line each
    """

    name: str
    left: Side
    right: Side
    matches: list[tuple[int, ...]]
    table: pd.DataFrame
    right_table: pd.DataFrame
    galleries: list[Gallery]
    attributes: tuple[str, ...] = ()
    account: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(self.matches) != len(self.left):
            raise ValueError(f"Pairs: {len(self.matches)} rows of matches for {len(self.left)} left items")
        for table, side in ((self.table, self.left), (self.right_table, self.right)):
            if list(table.index) != side.ids:
                raise ValueError(f"Pairs: the table of {side.name} is not in the order of its ids")

    def rows(self, split: str) -> tuple[list[int], list[int]]:
        """Left and right rows of a split (train, val or test)."""
        found = [np.flatnonzero((table["split"] == split).to_numpy()) for table in (self.table, self.right_table)]
        return found[0].tolist(), found[1].tolist()

    @cached_property
    def partners(self) -> list[tuple[int, ...]]:
        """Per right row the left rows that belong to it."""
        found: list[list[int]] = [[] for _ in range(len(self.right))]
        for left, rights in enumerate(self.matches):
            for right in rights:
                found[right].append(left)
        return [tuple(rows) for rows in found]

    def relevance(self, left: Sequence[int], right: Sequence[int]) -> Bool[np.ndarray, "n m"]:
        """Which of these left rows belong to which of these right rows."""
        column = {row: at for at, row in enumerate(right)}
        belongs = np.zeros((len(left), len(column)), bool)
        for at, row in enumerate(left):
            for partner in self.matches[row]:
                if partner in column:
                    belongs[at, column[partner]] = True
        return belongs

    def attribution(self, rows: Iterable[int] | None = None) -> list[str]:
        """Who made these left items and on what terms, each line once; all of them when no rows are given."""
        table = self.table if rows is None else self.table.iloc[list(rows)]
        said = table[["attribution", "licence"]].dropna(how="all").drop_duplicates()
        return [
            f"{who} ({terms})" if terms and who else str(who or terms) for who, terms in said.itertuples(index=False)
        ]


class PairSource(ABC):
    """Where pairs come from; what a config names under `pairs`."""

    _pairs: Pairs | None = None

    def load(self) -> Pairs:
        """Read, check and align everything. Reads at most once; later calls return the same pairs.

        Raises:
            DataError: nothing of it can be used
        """
        if self._pairs is None:
            self._pairs = self._read()
        return self._pairs

    @abstractmethod
    def _read(self) -> Pairs:
        """Read everything."""


def split_of(key: str, shares: tuple[float, float] = (0.15, 0.15)) -> str:
    """Train, val or test from a hash of the key: the same on every machine, whatever else is in the collection.

    Args:
        key: of the item, or of the family that must not be torn apart
        shares: of validation and of test
    """
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    if place < shares[1]:
        return "test"
    return "val" if place < sum(shares) else "train"


def galleries_of_splits(table: pd.DataFrame, right_table: pd.DataFrame) -> list[Gallery]:
    """One gallery for validation, one for test, and the test queries among all items of the collection."""
    found = []
    for split in ("val", "test"):
        left, right = (np.flatnonzero((t["split"] == split).to_numpy()).tolist() for t in (table, right_table))
        if left and right:
            found.append(Gallery(split, split, left, right, left, right))
    if found and found[-1].split == "test" and len(found[-1].left_gallery) < len(table):
        test = found[-1]
        everybody = list(range(len(table))), list(range(len(right_table)))
        found.append(Gallery("test, full gallery", "test", test.left_queries, test.right_queries, *everybody))
    return found
