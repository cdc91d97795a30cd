"""`fusion bench retrieval-index`: recall and latency of every backend on real captions, and a million vectors in 8 GB.

Small: all emoji captions as all-MiniLM-L6-v2 token vectors, asked with up to four tokens of every fourth caption. It is
an easy case, as the queries are tokens of the collection. Large: 1,000,000 vectors of width 128 and 2,000,000 token
vectors of 62,500 items, drawn around shared centres; each case in a process of its own, with its peak memory.
"""

from __future__ import annotations

import multiprocessing
import platform
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.errors import DataError
from tasks.retrieval.faiss_backends import FaissOptions
from tasks.retrieval.index import BACKENDS, Backend, Index, Settings
from tasks.retrieval.index_folder import load, save
from tasks.retrieval.late_interaction import Query
from tasks.retrieval.scores import Score

WIDTH, VECTORS, TOKENS, PER_ITEM = 128, 1_000_000, 2_000_000, 32
CENTRES, SPREAD = 20_000, 0.5
K, ASKED, ASKED_TOKENS = 10, 64, 8
PEER = "exact search over everything"


def run() -> dict[str, Any]:
    """Every case, each in a process of its own."""
    rows = []
    for backend in BACKENDS:
        rows.append(_apart(captions, backend))
    for backend in BACKENDS:
        rows.append(_apart(large, "global", backend))
    for backend in ("exact", "ivfpq"):
        rows.append(_apart(large, "tokens", backend))
    device = f"cpu, {torch.get_num_threads()} threads, {platform.machine()}"
    return {"bench": "retrieval-index", "device": device, "rows": rows}


def _apart(case: Any, *arguments: str) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        row: dict[str, Any] = pool.apply(case, arguments)
    return row


def captions(backend: Backend) -> dict[str, Any]:
    """Late interaction over the tokens of real captions: build, recall@10 against exact search, time of a query."""
    from data.pairs.emoji import EmojiPack
    from encoders.text import PretrainedText

    case = f"emoji captions, MiniLM tokens, {backend}"
    try:
        texts = EmojiPack.read("retrieval/emoji").table
        texts = texts[texts["skin_tone"].isna()]["caption"].tolist()
        encoder = PretrainedText(tokens=32)
    except (DataError, ImportError) as error:
        return {"case": case, "note": f"left out: {error}"}
    with torch.no_grad():
        batches = [encoder(texts[start : start + 64]) for start in range(0, len(texts), 64)]
    tokens = [x[keep].numpy() for batch in batches for x, keep in zip(batch.x, batch.keep, strict=True)]
    rng = np.random.default_rng(0)
    asked = [own[np.sort(rng.permutation(len(own))[:4])] for own in tokens[::4]]
    options = FaissOptions(lists=128, code_bytes=48)
    return _measured(case, tokens, asked, Settings("minilm", encoder.width, "tokens", backend=backend, faiss=options))


def large(score: Score, backend: Backend) -> dict[str, Any]:
    """A large collection: build, save, load and search."""
    settings = Settings("bench", WIDTH, score, backend=backend, precision="float16")
    rng = np.random.default_rng(0)
    centres = _units(rng.standard_normal((CENTRES, WIDTH), dtype=np.float32))
    if score == "global":
        items = [_near(centres, rng, VECTORS)[:, None]]
        case = f"{VECTORS:,} vectors of width {WIDTH}, {backend}"
        asked = [vector[None] for vector in _near(centres, rng, ASKED)]
    else:
        items = [_near(centres, rng, TOKENS).reshape(-1, PER_ITEM, WIDTH)]
        case = f"{TOKENS:,} token vectors, {PER_ITEM} an item, {backend}"
        asked = [_near(centres, rng, ASKED_TOKENS) for _ in range(ASKED)]
    return _measured(case, items.pop(), asked, settings)


def _near(centres: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
    found = np.empty((n, WIDTH), np.float16)
    for start in range(0, n, 100_000):
        part = found[start : start + 100_000]
        noise = rng.standard_normal(part.shape, dtype=np.float32) * (SPREAD / WIDTH**0.5)
        part[:] = _units(centres[rng.integers(0, len(centres), len(part))] + noise)
    return found


def _units(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))


def _measured(case: str, tokens: Any, asked: list[np.ndarray], settings: Settings) -> dict[str, Any]:
    """Build, save, load and search; recall is counted against exact search over the same stored vectors."""
    start = time.perf_counter()
    index = Index(settings)
    for first in range(0, len(tokens), 50_000):
        some = tokens[first : first + 50_000]
        means = np.stack([own.astype(np.float32).mean(axis=0) for own in some])
        own = list(some) if settings.with_tokens else None
        index.add([str(first + row) for row in range(len(some))], means, own)
    added = time.perf_counter()
    index.build()
    built = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        save(index, Path(folder) / "idx")
        saved = time.perf_counter()
        index = load(Path(folder) / "idx")
        loaded = time.perf_counter()
        queries = [_query(own) for own in asked]
        index.search(queries[:1], K, settings.encoder)
        began = time.perf_counter()
        found = [index.search([query], K, settings.encoder)[0] for query in queries]
        searched = time.perf_counter()
        exact = Index(Settings(settings.encoder, settings.width, settings.score), index.items)
        oracle = exact.search(queries, K, settings.encoder)
    shared = [len({h.id for h in a} & {h.id for h in b}) / len(b) for a, b in zip(found, oracle, strict=True)]
    return {
        "case": case,
        "add_s": round(added - start, 2),
        "build_s": round(built - added, 2),
        "save_s": round(saved - built, 2),
        "load_s": round(loaded - saved, 2),
        "ms_per_query": round(1000 * (searched - began) / len(queries), 3),
        "recall_at_10": round(float(np.mean(shared)), 4),
        "peer": PEER,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "note": f"{len(queries)} queries, one at a time",
    }


def _query(tokens: np.ndarray) -> Query:
    own = _units(tokens.astype(np.float32))
    return Query(torch.from_numpy(_units(own.mean(axis=0))), torch.from_numpy(own))
