"""An index: stored items, the score they are ranked by, the encoder they came from, and how they are found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch

from data.errors import DataError
from tasks.retrieval.exact_search import Found, Progress, nearest
from tasks.retrieval.faiss_backends import FaissOptions, FaissRows
from tasks.retrieval.late_interaction import Query, best_of_candidates, nearest_items
from tasks.retrieval.scores import Score
from tasks.retrieval.stored_items import Precision, StoredItems

Backend = Literal["exact", "flat", "ivfpq", "hnsw"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


class Hit(NamedTuple):
    """One answer."""

    id: str
    score: float


@dataclass(frozen=True)
class Settings:
    """What an index is, whatever it holds.

    Attributes:
        encoder: hash of the towers that made its vectors; a query of other towers is refused
        width: of the shared space
        score: global, tokens or both
        weight: share of the global score in `both`
        backend: exact scores everything; flat, ivfpq and hnsw let FAISS name candidates and score those exactly
        precision: of what is stored
        token_candidates: token vectors named per token of the query, whose owners become candidates
        vector_candidates: items named per query by their global vectors
        faiss: settings of the FAISS structures
        origin: where the items came from, for people and for `retrieval search`
    """

    encoder: str
    width: int
    score: Score = "global"
    weight: float = 0.5
    backend: Backend = "exact"
    precision: Precision = "float32"
    token_candidates: int = 128
    vector_candidates: int = 128
    faiss: FaissOptions = field(default_factory=FaissOptions)
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def with_tokens(self) -> bool:
        return self.score != "global"


class Index:
    """Items that can be searched, added to, removed, updated; `tasks.retrieval.index_folder` saves and loads it.

    Args:
        settings: what it is
        items: what it holds; None = nothing yet
        about: per id what is said of the item: its file or text, its licence, who made it
    """

    def __init__(
        self, settings: Settings, items: StoredItems | None = None, about: dict[str, dict[str, str]] | None = None
    ):
        self.settings = settings
        self.items = items or StoredItems(settings.width, settings.with_tokens, settings.precision)
        self.about = about or {}
        self.structures: dict[str, FaissRows] = {}

    def __len__(self) -> int:
        return len(self.items)

    def add(
        self,
        ids: Sequence[str],
        vectors: np.ndarray,
        tokens: Sequence[np.ndarray] | None = None,
        about: Sequence[dict[str, str]] | None = None,
    ) -> None:
        """Add items, all of them or none; see `StoredItems.add`."""
        self.items.add(ids, vectors, tokens)
        self._written(ids, about)

    def update(
        self,
        ids: Sequence[str],
        vectors: np.ndarray,
        tokens: Sequence[np.ndarray] | None = None,
        about: Sequence[dict[str, str]] | None = None,
    ) -> None:
        """Replace items, all of them or none; see `StoredItems.update`."""
        self.items.update(ids, vectors, tokens)
        self._written(ids, about)

    def remove(self, ids: Iterable[str]) -> None:
        """Take items out, all of them or none; see `StoredItems.remove`."""
        ids = list(ids)
        self.items.remove(ids)
        for item in ids:
            self.about.pop(item, None)

    def build(self, progress: Progress | None = None) -> None:
        """Drop what was removed and make the FAISS structures anew; nothing else is needed for the backend exact."""
        self.items.compact()
        self.structures = {}
        if self.settings.backend == "exact" or not len(self.items):
            return
        for part, vectors in self._parts().items():
            rows = FaissRows(self.settings.backend, self.settings.width, self.settings.faiss)
            rows.build(vectors, progress)
            self.structures[part] = rows

    def search(
        self,
        queries: Sequence[Query],
        k: int,
        encoder: str,
        *,
        memory_mb: float = 256.0,
        progress: Progress | None = None,
    ) -> list[list[Hit]]:
        """The k best items of every query, best first; all of them when the index holds fewer.

        Args:
            queries: who asks, from the towers that made the index
            k: how many, at least 1
            encoder: hash of those towers
            memory_mb: bound on what an exact search allocates
            progress: called now and then by an exact search

        Raises:
            DataError: another encoder, k below 1, a query that is no direction, an empty index, or too little memory
        """
        self._check(queries, k, encoder)
        if self.settings.backend == "exact":
            found = self._exact(queries, k, memory_mb, progress)
        else:
            found = self._by_candidates(queries, k)
        names = self.items.row_ids
        return [
            [Hit(names[row], score) for score, row in zip(one.score.tolist(), one.row.tolist(), strict=True)]
            for one in found
        ]

    def _exact(self, queries: Sequence[Query], k: int, memory_mb: float, progress: Progress | None) -> list[Found]:
        if self.settings.score == "global":
            asking = torch.stack([query.vector for query in queries])
            all_found = nearest(
                asking, self.items.vectors, k, alive=self.items.alive, memory_mb=memory_mb, progress=progress
            )
            return [Found(score, row) for score, row in zip(*all_found, strict=True)]
        return nearest_items(
            queries, self.items, k, self.settings.score, self.settings.weight,
            memory_mb=memory_mb, progress=progress,
        )  # fmt: skip

    def _by_candidates(self, queries: Sequence[Query], k: int) -> list[Found]:
        """FAISS names rows, by their vectors, their tokens or both; their scores are exact."""
        if not self.structures:
            self.build()
        self.follow()
        settings, items = self.settings, self.items
        alive, owner = items.alive, items.owner if "tokens" in self.structures else np.empty(0, np.int64)
        found = []
        for query in queries:
            named = []
            if "vectors" in self.structures:
                wanted = max(settings.vector_candidates, 4 * k)
                named.append(self.structures["vectors"].find(query.vector[None].numpy(), wanted, alive))
            if "tokens" in self.structures:
                near = self.structures["tokens"].find(query.tokens.numpy(), settings.token_candidates, alive[owner])
                named.append(owner[near[near >= 0]])
            rows = np.concatenate([part.ravel() for part in named])
            found.append(best_of_candidates(query, items, rows[rows >= 0], k, settings.score, settings.weight))
        return found

    def follow(self) -> None:
        """Append to the FAISS structures what was added since they were made."""
        for part, structure in self.structures.items():
            structure.add(self._parts()[part][len(structure) :])

    def _parts(self) -> dict[str, np.ndarray]:
        """What FAISS structures stand over: item vectors, token vectors or both."""
        parts = {"vectors": self.items.vectors, "tokens": self.items.tokens}
        wanted = {"global": ("vectors",), "tokens": ("tokens",), "both": ("vectors", "tokens")}[self.settings.score]
        return {part: parts[part] for part in wanted}

    def _written(self, ids: Sequence[str], about: Sequence[dict[str, str]] | None) -> None:
        for item, said in zip(ids, about or [{}] * len(ids), strict=True):
            self.about[item] = said

    def _check(self, queries: Sequence[Query], k: int, encoder: str) -> None:
        if encoder != self.settings.encoder:
            raise DataError(
                f"this index was made by encoder {self.settings.encoder}, the query comes from {encoder}; search with "
                "the run that made the index, or index the items again"
            )
        if k < 1:
            raise DataError(f"k={k}: expected at least 1")
        if not len(self.items):
            raise DataError("the index is empty; add items first")
        for at, query in enumerate(queries):
            held = query.tokens if self.settings.with_tokens else query.vector[None]
            if not len(held):
                raise DataError(f"query {at}: it keeps no token, so nothing can be compared with it")
            if not torch.isfinite(held).all() or not torch.isfinite(query.vector).all():
                raise DataError(f"query {at}: its vector holds NaN or infinity; look at what it was made from")
            if query.vector.shape[-1] != self.settings.width:
                raise DataError(
                    f"query {at}: {query.vector.shape[-1]} wide, the index holds vectors of width {self.settings.width}"
                )
