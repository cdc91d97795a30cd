"""`fusion bench retrieval`: token-wise scoring beside a per-item loop, and batch encoding beside the bare encoder.

Scoring: 400 x 1,000 pairs of 64 and 32 tokens, 128 wide, both directions, masked. The peer takes one left item at a
time against all right ones, its columns laid out so that both maxima are contiguous reductions. Each case runs in a
process of its own, so that its peak memory is its own; inputs and outputs are in it.
"""

from __future__ import annotations

import multiprocessing
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from data.pairs.items import Side
from encoders.image import VisionTransformer
from encoders.text import TextTransformer
from fusion.tokens import Tokens
from kernels.max_similarity import max_similarity
from tasks.retrieval.feed import Feed, encode
from tasks.retrieval.two_towers import Projection

LEFT, RIGHT, LEFT_TOKENS, RIGHT_TOKENS, WIDTH = 400, 1000, 64, 32, 128
THREADS, REPEATS = 2, 5
ENCODED, BATCH = 512, 256


def run() -> dict[str, Any]:
    """Every case, ours and the peer's in turn; the best of five repeats counts."""
    rows = [_apart(scoring)] + [_apart(encoding, modality) for modality in ("image", "text")]
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    device = f"cpu, {THREADS} threads, {platform.machine()}"
    return {"bench": "retrieval", "device": device, "versions": versions, "rows": rows}


def _apart(case: Callable[..., dict[str, Any]], *arguments: str) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(case, arguments)


def scoring() -> dict[str, Any]:
    """Max similarity of all pairs, both directions."""
    torch.set_num_threads(THREADS)
    draw = torch.Generator().manual_seed(0)
    x, y = (
        torch.nn.functional.normalize(torch.randn(items, n, WIDTH, generator=draw), dim=-1)
        for items, n in ((LEFT, LEFT_TOKENS), (RIGHT, RIGHT_TOKENS))
    )
    x_keep, y_keep = (
        torch.arange(n) < torch.randint(n // 2, n + 1, (items, 1), generator=draw)
        for items, n in ((LEFT, LEFT_TOKENS), (RIGHT, RIGHT_TOKENS))
    )

    def ours() -> tuple[Tensor, Tensor]:
        return max_similarity(x, y, x_keep=x_keep, y_keep=y_keep)

    before = _peak()
    ours()
    peak = _peak() - before
    times, found = _best({"ours": ours, "peer": lambda: item_by_item(x, y, x_keep, y_keep)})
    error = max(float((a - b).abs().max()) for a, b in zip(found["ours"], found["peer"], strict=True))
    (seconds, used), (peer, peer_used) = times["ours"], times["peer"]
    return {
        "case": f"{LEFT:,} x {RIGHT:,} pairs, {LEFT_TOKENS} x {RIGHT_TOKENS} tokens, {WIDTH} wide",
        "ours_s": round(seconds, 3),
        "ours_per_s": round(LEFT * RIGHT / seconds),
        "peer": "one item at a time, contiguous reductions",
        "peer_s": round(peer, 3),
        "ratio": round(seconds / peer, 3),
        "ours_cpu_s": round(used, 3),
        "peer_cpu_s": round(peer_used, 3),
        "extra_mb": round(peak),
        "note": f"largest difference {error:.1e}; extra_mb is what ours took beside its inputs",
    }


def item_by_item(
    x: Float[Tensor, "a n d"], y: Float[Tensor, "b s d"], x_keep: Bool[Tensor, "a n"], y_keep: Bool[Tensor, "b s"]
) -> tuple[Float[Tensor, "a b"], Float[Tensor, "a b"]]:
    """The peer: both score tables, one left item at a time."""
    a, (b, s, d) = len(x), y.shape
    columns = y.permute(2, 1, 0).reshape(d, s * b).contiguous()
    padded = torch.zeros(s, b).masked_fill(~y_keep.T, -torch.inf)
    y_count = y_keep.sum(dim=1)
    x_to_y, y_to_x = torch.empty(a, b), torch.empty(a, b)
    for i in range(a):
        own = x[i][x_keep[i]]
        table = (own @ columns).view(len(own), s, b)
        x_to_y[i] = (table + padded).amax(dim=1).mean(dim=0)
        y_to_x[i] = table.amax(dim=0).masked_fill(~y_keep.T, 0).sum(dim=0) / y_count
    return x_to_y, y_to_x


def encoding(modality: str) -> dict[str, Any]:
    """Batch encoding of a side, loading and joining included, beside encoder and projection alone on the same items."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    if modality == "image":
        images = rng.integers(0, 256, (ENCODED, 3, 64, 64), dtype=np.uint8)
        side = Side("image", [str(row) for row in range(ENCODED)], lambda rows: images[list(rows)])
        encoder: Any = VisionTransformer().eval()
    else:
        words = ["cat", "grinning", "face", "with", "smiling", "eyes", "animal", "red", "heart"]
        texts = [" ".join(rng.choice(words, 12)) for _ in range(ENCODED)]
        side = Side("text", [str(row) for row in range(ENCODED)], lambda rows: [texts[row] for row in rows])
        encoder = TextTransformer().eval()
        encoder.learn(texts)
    projection = Projection(encoder.width, WIDTH).eval()
    feed = Feed(encoder, side, Path("unused"))
    batches = [side.load(range(start, start + BATCH)) for start in range(0, ENCODED, BATCH)]

    @torch.no_grad()
    def bare() -> list[Tokens]:
        return [projection(encoder(raw)).tokens for raw in batches]

    times, _ = _best({"ours": lambda: encode(projection, feed, range(ENCODED), BATCH), "bare": bare})
    (seconds, used), (peer, peer_used) = times["ours"], times["bare"]
    return {
        "case": f"{ENCODED} items of modality {modality}, batches of {BATCH}",
        "ours_s": round(seconds, 3),
        "peer": "encoder and projection alone, items loaded before",
        "peer_s": round(peer, 3),
        "ratio": round(seconds / peer, 3),
        "ours_cpu_s": round(used, 3),
        "peer_cpu_s": round(peer_used, 3),
        "note": f"{ENCODED / seconds:.0f} items a second",
    }


def _best(cases: dict[str, Callable[[], Any]]) -> tuple[dict[str, tuple[float, float]], dict[str, Any]]:
    """Shortest wall seconds and shortest CPU seconds of each case, the cases in turn; and what each returned."""
    best, found = dict.fromkeys(cases, (float("inf"), float("inf"))), {}
    for _ in range(REPEATS):
        for name, case in cases.items():
            start, used = time.perf_counter(), time.process_time()
            found[name] = case()
            wall, used = time.perf_counter() - start, time.process_time() - used
            best[name] = min(best[name][0], wall), min(best[name][1], used)
    return best, found


def _peak() -> float:
    """Highest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
