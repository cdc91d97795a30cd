"""FAISS as a finder of candidates (extra `faiss`): flat, IVF-PQ and HNSW behind one small interface.

Stored vectors have unit length, so the nearest by distance are the nearest by cosine. FAISS only names rows; their
scores are computed exactly from the stored vectors afterwards.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import gcd, sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from data.errors import DataError
from tasks.experiment.folder import RunError
from tasks.retrieval.exact_search import Progress

Kind = Literal["flat", "ivfpq", "hnsw"]
CENTROIDS = 256
"""Of a product quantiser with 8 bits; as many vectors are needed to find them."""

SLICE = 20_000


@dataclass(frozen=True)
class FaissOptions:
    """Settings of the structures; the defaults are those the benches are measured with.

    Attributes:
        links: HNSW: neighbours of a node
        build_width: HNSW: candidates while building
        search_width: HNSW: candidates while searching
        lists: IVF: lists; 0 = 4 times the square root of the number of vectors, at most 2,048
        probes: IVF: lists read by a query
        code_bytes: PQ: bytes a vector is kept in; 0 = an eighth of the width
        training: IVF-PQ: vectors per list to train on, at most
    """

    links: int = 32
    build_width: int = 80
    search_width: int = 128
    lists: int = 0
    probes: int = 32
    code_bytes: int = 0
    training: int = 64


def faiss_module() -> Any:
    """FAISS itself.

    Raises:
        RunError: it is not installed
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import faiss
    except ImportError:
        raise RunError(
            "FAISS is not installed; install the extra with `pip install 'multimodal-fusion[faiss]'`, or use the "
            "backend exact"
        ) from None
    return faiss


class FaissRows:
    """Rows of a growing array, found by nearness.

    Args:
        kind: flat (exact), ivfpq (small) or hnsw (fast)
        width: of the vectors
        options: of the structures
    """

    def __init__(self, kind: Kind, width: int, options: FaissOptions = FaissOptions()):
        self.kind, self.width, self.options = kind, width, options
        self._faiss = faiss_module()
        self._index: Any = None

    @classmethod
    def read(cls, path: Path, kind: Kind, options: FaissOptions = FaissOptions()) -> FaissRows:
        """A structure that was written.

        Raises:
            DataError: the file is not one
        """
        faiss = faiss_module()
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise DataError(
                f"{path}: not readable by FAISS ({str(error).splitlines()[-1]}); build the index again"
            ) from None
        rows = cls(kind, index.d, options)
        rows._index = index
        rows._set_search()
        return rows

    def write(self, path: Path) -> None:
        self._faiss.write_index(self._index, str(path))

    def __len__(self) -> int:
        return 0 if self._index is None else int(self._index.ntotal)

    def build(self, vectors: np.ndarray, progress: Progress | None = None) -> None:
        """Make the structure over these rows, `[n, width]`, in place of whatever was there.

        Raises:
            DataError: too few vectors to train on
        """
        faiss, options = self._faiss, self.options
        if self.kind == "flat":
            self._index = faiss.IndexFlatL2(self.width)
        elif self.kind == "hnsw":
            self._index = faiss.IndexHNSWFlat(self.width, options.links)
            self._index.hnsw.efConstruction = options.build_width
        else:
            self._index = self._trained(vectors)
        self._set_search()
        self.add(vectors, progress)

    def add(self, vectors: np.ndarray, progress: Progress | None = None) -> None:
        """Append rows."""
        for start in range(0, len(vectors), SLICE):
            part = np.ascontiguousarray(vectors[start : start + SLICE], dtype=np.float32)
            self._index.add(part)
            if progress is not None:
                progress(start + len(part), len(vectors))

    def find(
        self, queries: Float[np.ndarray, "q d"], k: int, alive: Bool[np.ndarray, " n"] | None = None
    ) -> Int[np.ndarray, "q k"]:
        """Rows near every query, nearest first; -1 where fewer were found.

        Args:
            queries: float32
            k: rows per query
            alive: rows that may be named; None = all
        """
        parameters = None if alive is None or alive.all() else self._parameters(alive)
        k = max(1, min(k, len(self)))
        _, rows = self._index.search(np.ascontiguousarray(queries, np.float32), k, params=parameters)
        return np.asarray(rows)

    def _parameters(self, alive: np.ndarray) -> Any:
        faiss, options = self._faiss, self.options
        selector = faiss.IDSelectorBitmap(np.packbits(alive, bitorder="little"))
        if self.kind == "hnsw":
            return faiss.SearchParametersHNSW(sel=selector, efSearch=options.search_width)
        if self.kind == "ivfpq":
            return faiss.SearchParametersIVF(sel=selector, nprobe=min(options.probes, self._index.nlist))
        return faiss.SearchParameters(sel=selector)

    def _set_search(self) -> None:
        if self.kind == "hnsw":
            self._index.hnsw.efSearch = self.options.search_width
        elif self.kind == "ivfpq":
            self._index.nprobe = min(self.options.probes, self._index.nlist)

    def _trained(self, vectors: np.ndarray) -> Any:
        n, options = len(vectors), self.options
        if n < CENTROIDS:
            raise DataError(f"ivfpq needs at least {CENTROIDS} vectors to train on, found {n}; use hnsw, flat or exact")
        lists = options.lists or min(2048, round(4 * sqrt(n)))
        lists = max(1, min(lists, n // 32))
        code_bytes = options.code_bytes or gcd(self.width, max(1, self.width // 8))
        if self.width % code_bytes:
            raise DataError(f"code_bytes={code_bytes} does not divide the width {self.width} of the vectors")
        quantiser = self._faiss.IndexFlatL2(self.width)
        index = self._faiss.IndexIVFPQ(quantiser, self.width, lists, code_bytes, 8)
        for clustering in (index.cp, index.pq.cp):
            clustering.min_points_per_centroid = 1
            clustering.seed = 1
        wanted = min(n, max(options.training * lists, 40 * CENTROIDS))
        sample = np.sort(np.random.default_rng(0).permutation(n)[:wanted])
        index.train(np.ascontiguousarray(vectors[sample], dtype=np.float32))
        return index
