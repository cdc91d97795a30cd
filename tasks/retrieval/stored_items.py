"""Items of an index: ids, one unit vector each and, for late interaction, the unit vectors of their tokens.

Rows are only ever appended. A removed item leaves a dead row behind, an updated one a dead row and a new one; `compact`
drops the dead. A structure built over the rows, such as a FAISS index, therefore stays true while items come and go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from data.errors import DataError

Precision = Literal["float32", "float16"]


class Growing:
    """An array that grows along its first axis at amortised cost; a memory-mapped start is copied on the first add."""

    def __init__(self, start: np.ndarray):
        self._room, self._size = start, len(start)

    @property
    def array(self) -> np.ndarray:
        return self._room[: self._size]

    def append(self, more: np.ndarray) -> None:
        size = self._size + len(more)
        if size > len(self._room):
            bigger = np.empty((max(size, self._size * 3 // 2), *self._room.shape[1:]), self._room.dtype)
            bigger[: self._size] = self.array
            self._room = bigger
        self._room[self._size : size] = more
        self._size = size


class StoredItems:
    """Ids with their vectors.

    Args:
        width: of vectors and tokens
        with_tokens: whether items bring token vectors
        precision: what is kept, in memory and on disk; scores are always float32
    """

    def __init__(self, width: int, with_tokens: bool, precision: Precision = "float32"):
        self.width, self.with_tokens, self.precision = width, with_tokens, precision
        self._ids: list[str] = []
        self._row: dict[str, int] = {}
        self._vectors = Growing(np.empty((0, width), precision))
        self._tokens = Growing(np.empty((0, width), precision))
        self._alive = Growing(np.empty(0, bool))
        self._starts, self._lengths = Growing(np.empty(0, np.int64)), Growing(np.empty(0, np.int64))

    @classmethod
    def restored(
        cls, ids: list[str], vectors: np.ndarray, alive: np.ndarray, tokens: np.ndarray | None, lengths: np.ndarray
    ) -> StoredItems:
        """Items as they were written, dead rows included; tokens stand in the order of their rows.

        Raises:
            DataError: the arrays do not belong together
        """
        if not len(ids) == len(vectors) == len(alive) == len(lengths) or (
            tokens is not None and int(lengths.sum()) != len(tokens)
        ):
            held = 0 if tokens is None else len(tokens)
            raise DataError(
                f"{len(ids)} ids, {len(vectors)} vectors, {len(alive)} states, {len(lengths)} lengths of {held} tokens "
                "do not belong together"
            )
        precision: Precision = "float16" if vectors.dtype == np.float16 else "float32"
        items = cls(vectors.shape[1], tokens is not None, precision)
        items._ids, items._row = ids, {item: row for row, item in enumerate(ids) if alive[row]}
        items._vectors, items._alive, items._lengths = Growing(vectors), Growing(alive), Growing(lengths)
        items._starts = Growing(lengths.cumsum() - lengths)
        if tokens is not None:
            items._tokens = Growing(tokens)
        return items

    def __len__(self) -> int:
        return len(self._row)

    def __contains__(self, item: object) -> bool:
        return item in self._row

    @property
    def ids(self) -> list[str]:
        """Living items in the order of their last write."""
        return [item for row, item in enumerate(self._ids) if self.alive[row]]

    @property
    def row_ids(self) -> list[str]:
        """The id of every row, dead ones included."""
        return self._ids

    @property
    def alive(self) -> Bool[np.ndarray, " n"]:
        return self._alive.array

    @property
    def vectors(self) -> Float[np.ndarray, "n d"]:
        return self._vectors.array

    @property
    def tokens(self) -> Float[np.ndarray, "m d"]:
        return self._tokens.array

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every row."""
        return self._lengths.array

    @property
    def owner(self) -> np.ndarray:
        """The row of every token."""
        return np.repeat(np.arange(len(self._ids)), self.lengths)

    @property
    def dead_share(self) -> float:
        return 1 - len(self._row) / max(len(self._ids), 1)

    def add(self, ids: Sequence[str], vectors: np.ndarray, tokens: Sequence[np.ndarray] | None = None) -> None:
        """Append items, all of them or none; vectors and tokens are brought to unit length.

        Args:
            ids: new ones
            vectors: `[n, width]`
            tokens: per item `[t, width]` with t at least 1

        Raises:
            DataError: an id that is there already or stands twice, a vector that is no direction, a wrong width
        """
        seen: set[str] = set()
        for item in ids:
            if item in self._row:
                raise DataError(f"{item}: already in the index; update it, or give it another id")
            if item in seen:
                raise DataError(f"{item}: stands twice among the new items; give every item an id of its own")
            seen.add(item)
        units, flat, lengths = self._checked(ids, vectors, tokens)
        rows = range(len(self._ids), len(self._ids) + len(ids))
        self._starts.append(len(self.tokens) + lengths.cumsum() - lengths)
        self._lengths.append(lengths)
        self._vectors.append(units)
        self._tokens.append(flat)
        self._alive.append(np.ones(len(ids), bool))
        self._ids.extend(ids)
        self._row.update(zip(ids, rows, strict=True))

    def remove(self, ids: Iterable[str]) -> None:
        """Take items out, all of them or none.

        Raises:
            DataError: an id that is not there
        """
        rows = self.rows(dict.fromkeys(ids))
        self.alive[rows] = False
        for row in rows:
            del self._row[self._ids[row]]

    def update(self, ids: Sequence[str], vectors: np.ndarray, tokens: Sequence[np.ndarray] | None = None) -> None:
        """Replace what items hold, all of them or none; they then count as the latest written.

        Raises:
            DataError: an id that is not there or stands twice, or a vector that is no direction
        """
        if len(set(ids)) != len(ids):
            twice = next(item for at, item in enumerate(ids) if item in ids[:at])
            raise DataError(f"{twice}: stands twice among the items to update; give it once")
        self.rows(ids)
        self._checked(ids, vectors, tokens)
        self.remove(ids)
        self.add(ids, vectors, tokens)

    def rows(self, ids: Iterable[str]) -> list[int]:
        """The living row of every id.

        Raises:
            DataError: an id that is not there
        """
        found = []
        for item in ids:
            if item not in self._row:
                raise DataError(f"{item}: not in the index, which holds {len(self)} items")
            found.append(self._row[item])
        return found

    def vectors_of(self, rows: np.ndarray) -> Float[np.ndarray, "n d"]:
        """Vectors of some rows as float32."""
        return self.vectors[rows].astype(np.float32)

    def tokens_of(self, rows: np.ndarray) -> tuple[Float[np.ndarray, "m d"], Int[np.ndarray, " n"]]:
        """Token vectors of some rows, one after another, as float32, and where each row's begin."""
        lengths, starts = self.lengths[rows], self._starts.array[rows]
        begins = lengths.cumsum() - lengths
        total = int(lengths.sum())
        if len(rows) and starts[-1] + lengths[-1] - starts[0] == total and (np.diff(rows) > 0).all():
            return self.tokens[starts[0] : starts[0] + total].astype(np.float32, copy=False), begins
        at = np.repeat(starts - begins, lengths) + np.arange(total)
        return self.tokens[at].astype(np.float32), begins

    def compact(self) -> None:
        """Drop dead rows and their tokens; the order of the living stays."""
        if len(self._row) == len(self._ids):
            return
        alive = self.alive.copy()
        tokens = self.tokens[np.repeat(alive, self.lengths)] if self.with_tokens else None
        lengths = self.lengths[alive]
        kept = StoredItems.restored(self.ids, self.vectors[alive], np.ones(len(self), bool), tokens, lengths)
        self.__dict__.update(kept.__dict__)

    def _checked(
        self, ids: Sequence[str], vectors: np.ndarray, tokens: Sequence[np.ndarray] | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unit vectors, all unit tokens one after another, and how many each item has."""
        if vectors.shape != (len(ids), self.width):
            raise DataError(
                f"{len(ids)} ids and vectors of shape {vectors.shape}; expected {(len(ids), self.width)}, one row an id"
            )
        units = self._units(vectors, ids)
        if not self.with_tokens:
            if tokens is not None:
                raise DataError("this index keeps no tokens; make one with score tokens or both")
            return units, np.empty((0, self.width), self.precision), np.zeros(len(ids), np.int64)
        if tokens is None or len(tokens) != len(ids):
            raise DataError(
                f"{len(ids)} ids with tokens of {0 if tokens is None else len(tokens)} items; give one each"
            )
        for item, own in zip(ids, tokens, strict=True):
            if own.ndim != 2 or own.shape[1] != self.width or not len(own):
                raise DataError(f"{item}: tokens of shape {own.shape}; expected [at least 1, {self.width}]")
        lengths = np.array([len(own) for own in tokens], np.int64)
        if not len(ids):
            return units, np.empty((0, self.width), self.precision), lengths
        names = np.repeat(np.arange(len(ids)), lengths)
        return units, self._units(np.concatenate(list(tokens)), ids, names), lengths

    def _units(self, x: np.ndarray, ids: Sequence[str], names: np.ndarray | None = None) -> np.ndarray:
        x = np.asarray(x, np.float32)
        length = np.linalg.norm(x, axis=1, keepdims=True)
        wrong = ~np.isfinite(length[:, 0]) | (length[:, 0] == 0)
        if wrong.any():
            at = int(wrong.argmax())
            item = ids[at if names is None else int(names[at])]
            raise DataError(
                f"{item}: its vector is zero or holds NaN or infinity, so it has no direction; leave it out"
            )
        return (x / length).astype(self.precision)
