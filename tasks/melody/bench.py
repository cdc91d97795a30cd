"""`fusion bench melody`: decoding with a cache beside the whole forward for every symbol and beside Hugging Face.

Music Transformer, 5 layers of width 256, one sequence, random weights, float32. The peer is `generate` of transformers'
GPT-2 of equal layers, width and heads with its own cache, built from a config. Times are CPU seconds of one thread,
the cases in turn, the best of seven (of two for the whole forward, which takes twenty times as long): what others do on
the machine counts little.
"""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from tasks.melody.chorale_tokens import SYMBOLS
from tasks.melody.models.decoder import DecoderOptions
from tasks.melody.models.music_transformer import MusicTransformer

LENGTHS = (256, 512)
REPEATS, WHOLE_REPEATS = 7, 2
SIZE = DecoderOptions(width=256, layers=5, heads=8, feed_forward=1024, reach=256)


def run() -> dict[str, Any]:
    """Two rows of each length: ours beside the whole forward, ours beside the peer; ratio below 1 = ours is faster."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [row for length in LENGTHS for row in decoding(length)]
    finally:
        torch.set_num_threads(threads)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "transformers": _transformers()}
    return {
        "bench": "melody",
        "device": f"cpu, 1 thread, {platform.machine()}",
        "versions": versions,
        "rows": rows,
    }


def decoding(length: int, size: DecoderOptions = SIZE, repeats: int = REPEATS) -> list[dict[str, Any]]:
    """Seconds for one sequence, three ways.

    Args:
        length: symbols to add to a first one
        size: of our model
        repeats: of each case; the best counts
    """
    torch.manual_seed(0)
    ours = MusicTransformer(SYMBOLS, size).eval()
    first = torch.zeros(1, 1, dtype=torch.long)
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours.sample(first, length, generator=torch.Generator().manual_seed(1)),
        "whole": lambda: sample_without_cache(ours, first, length, torch.Generator().manual_seed(1)),
    }
    peer = gpt2(size, length)
    if peer is not None:
        ways["peer"] = lambda: peer(first)
    found, seconds = _best(ways, repeats)
    same = "the same symbols" if torch.equal(found["ours"], found["whole"]) else "OTHER SYMBOLS"
    if peer is None:
        same += "; transformers is not installed: no peer (pip install 'multimodal-fusion[transformers]')"
    peers = {"whole": ("the whole forward for every symbol", same)}
    if peer is not None:
        peers["peer"] = (f"transformers generate, GPT-2, {peer.millions} M weights", "random weights of its own")
    return [
        {
            "case": f"{length} symbols, {size.layers} layers of {size.width}, {_millions(ours)} M weights",
            "ours_s": round(seconds["ours"], 4),
            "peer": name,
            "peer_s": round(seconds[way], 4),
            "ratio": round(seconds["ours"] / seconds[way], 4),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "times_faster": round(seconds[way] / seconds["ours"], 2),
            "symbols_per_s": round(length / seconds["ours"]),
            "note": note,
        }
        for way, (name, note) in peers.items()
    ]


@torch.inference_mode()
def sample_without_cache(
    model: MusicTransformer, primer: Int[Tensor, "b n"], length: int, generator: torch.Generator
) -> Int[Tensor, "b m"]:
    """What `MusicTransformer.sample` saves: the whole forward for every symbol."""
    symbols = primer
    for _ in range(length):
        share = model(symbols)[:, -1].softmax(dim=-1)
        symbols = torch.cat([symbols, torch.multinomial(share, 1, generator=generator)], dim=1)
    return symbols


class _Peer:
    """GPT-2 with its own sampling loop."""

    def __init__(self, model: Any, length: int):
        self.model, self.length, self.millions = model, length, _millions(model)

    def __call__(self, first: Int[Tensor, "b n"]) -> Int[Tensor, "b m"]:
        torch.manual_seed(1)
        drawn: Tensor = self.model.generate(
            first,
            attention_mask=torch.ones_like(first),
            do_sample=True,
            top_k=0,
            max_new_tokens=self.length,
        )
        return drawn


def gpt2(size: DecoderOptions, length: int) -> _Peer | None:
    """The peer with random weights, nothing downloaded; None where transformers is not installed."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        return None
    config = GPT2Config(
        vocab_size=SYMBOLS,
        n_positions=length + 1,
        n_embd=size.width,
        n_layer=size.layers,
        n_head=size.heads,
        n_inner=size.feed_forward,
        bos_token_id=None,
        eos_token_id=None,
    )
    return _Peer(GPT2LMHeadModel(config).eval(), length)


def _best(ways: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, Any], dict[str, float]]:
    """What each way returns, and its shortest time in CPU seconds."""
    found, best = {}, dict.fromkeys(ways, float("inf"))
    for turn in range(repeats):
        for name, way in ways.items():
            if name == "whole" and turn >= WHOLE_REPEATS:
                continue
            start = time.process_time()
            found[name] = way()
            best[name] = min(best[name], time.process_time() - start)
    return found, best


def _millions(model: torch.nn.Module) -> float:
    return round(sum(p.numel() for p in model.parameters()) / 1e6, 2)


def _transformers() -> str:
    try:
        import transformers
    except ImportError:
        return "not installed"
    return str(transformers.__version__)
