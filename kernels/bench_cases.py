"""What `python -m kernels.bench` runs: the specification's cases on a GPU, smaller cases of the same shape on a CPU.

A case makes its inputs once and returns the calls to time: ours first, then the peers that compute the same thing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.attention import attend
from kernels.max_similarity import max_similarity
from kernels.relative_attention import relative_attend, relative_step
from kernels.split_keys import attend_bags, split_attend

Calls = dict[str, Callable[[], Any]]


class Case(NamedTuple):
    """One line of the table."""

    op: str
    name: str
    device: str  # "cpu" or "cuda"
    make: Callable[[], Calls]
    flops: float  # counted once, padding excluded
    bytes: float  # inputs and outputs, read or written once
    repeats: int = 5
    limit: str = ""  # the bar this line answers to


def _random(device: str, *shape: int) -> Tensor:
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)


def _backends(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Calls:
    """SDPA: as dispatched, and on a GPU flash and cuDNN by name."""
    calls: Calls = {"sdpa": partial(F.scaled_dot_product_attention, q, k, v, **options)}
    if q.is_cuda and "attn_mask" not in options:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        def forced(backend: SDPBackend) -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, **options)

        calls |= {
            "sdpa flash": partial(forced, SDPBackend.FLASH_ATTENTION),
            "sdpa cudnn": partial(forced, SDPBackend.CUDNN_ATTENTION),
        }
    return calls


def explicit(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention with its map in memory."""
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v


def skew(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """Music Transformer's published form: Q E^T, one zero column, reshape, drop a row."""
    n = q.shape[2]
    by_distance = F.pad(q @ table.flip(1).mT, (1, 0))
    relative = by_distance.reshape(*q.shape[:2], n + 1, n)[:, :, 1:]
    causal = torch.ones(n, n, dtype=torch.bool, device=q.device).tril()
    scores = ((q @ k.mT + relative) * q.shape[-1] ** -0.5).masked_fill(~causal, -torch.inf)
    return scores.softmax(-1) @ v


def per_item_loop(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """One left item against all right items at a time, both maxima from its table."""
    (a, n, d), (b, s, _) = x.shape, y.shape
    rows, columns = x.new_empty(a, b), x.new_empty(a, b)
    flat = y.reshape(b * s, d).T
    for i in range(a):
        scores = (x[i] @ flat).view(n, b, s)
        rows[i] = scores.amax(2).mean(0)
        columns[i] = scores.amax(0).mean(1)
    return rows, columns


def einsum_blocks(x: Tensor, y: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """The plain table in blocks of left items."""
    rows, columns = [], []
    for part in x.split(block):
        scores = torch.einsum("itd,jud->ijtu", part, y)
        rows.append(scores.amax(3).mean(2))
        columns.append(scores.amax(2).mean(2))
    return torch.cat(rows), torch.cat(columns)


def _attend(device: str, b: int, h: int, n: int, s: int, d: int) -> Calls:
    q, k, v = _random(device, b, h, n, d), _random(device, b, h, s, d), _random(device, b, h, s, d)
    return {"ours": partial(attend, q, k, v), **_backends(q, k, v)}


def _attend_lengths(device: str, b: int, h: int, n: int, s: int, d: int) -> Calls:
    q, k, v = _random(device, b, h, n, d), _random(device, b, h, s, d), _random(device, b, h, s, d)
    lengths = torch.linspace(s / 4, s, b, device=device).long()
    keep = torch.arange(s, device=device) < lengths[:, None]
    return {
        "ours": partial(attend, q, k, v, lengths=lengths),
        "sdpa mask": partial(F.scaled_dot_product_attention, q, k, v, attn_mask=keep[:, None, None]),
    }


def _attend_statistics(device: str, b: int, h: int, n: int, d: int) -> Calls:
    q, k, v = (_random(device, b, h, n, d) for _ in range(3))

    def whole_map() -> tuple[Tensor, ...]:
        p = (q @ k.mT * d**-0.5).softmax(-1)
        return p @ v, p.sum(-2), -torch.special.xlogy(p, p).sum(-1)

    return {"ours": partial(attend, q, k, v, want=frozenset({"mass", "entropy"})), "explicit": whole_map}


def _box_bias(device: str, b: int, h: int, n: int, side: int, d: int) -> Calls:
    from kernels.bias import AxisFactored

    q, k, v = _random(device, b, h, n, d), _random(device, b, h, side**2, d), _random(device, b, h, side**2, d)
    x, y = _random(device, b, h, n, side), _random(device, b, h, n, side)
    dense = (y[..., :, None] + x[..., None, :]).flatten(-2)
    return {
        "ours": partial(attend, q, k, v, bias=AxisFactored(x, y)),
        "sdpa dense bias": partial(F.scaled_dot_product_attention, q, k, v, attn_mask=dense),
    }


def _few_queries(device: str, n: int, s: int, d: int) -> Calls:
    q, k, v = _random(device, 1, 1, n, d), _random(device, 1, 1, s, d), _random(device, 1, 1, s, d)
    return {"ours": partial(split_attend, q, k, v), "explicit": partial(explicit, q, k, v), **_backends(q, k, v)}


def _bags(device: str, sizes: tuple[int, ...], n: int, d: int) -> Calls:
    offsets = torch.tensor([0, *sizes], device=device).cumsum(0)
    k, v = _random(device, sum(sizes), 1, d), _random(device, sum(sizes), 1, d)
    q = _random(device, 1, 1, n, d).expand(len(sizes), -1, -1, -1)
    keep = torch.arange(max(sizes), device=device) < offsets.diff()[:, None]
    padded_k, padded_v = (k.new_zeros(len(sizes), 1, max(sizes), d) for _ in range(2))
    for bag, (start, size) in enumerate(zip(offsets.tolist(), sizes, strict=False)):
        for target, source in ((padded_k, k), (padded_v, v)):
            target[bag, 0, :size] = source[start : start + size, 0]
    mask = keep[:, None, None]
    return {
        "ours": partial(attend_bags, q, k, v, offsets),
        "sdpa padded": partial(F.scaled_dot_product_attention, q, padded_k, padded_v, attn_mask=mask),
        "explicit padded": partial(explicit, q, padded_k, padded_v, mask),
    }


def _relative(device: str, b: int, h: int, n: int, d: int, backward: bool = False) -> Calls:
    q, k, v = (_random(device, b, h, n, d) for _ in range(3))
    table = _random(device, h, n, d)

    def trained(call: Callable[[], Tensor]) -> None:
        torch.autograd.grad(call().sum(), leaves)

    if backward:
        leaves = [x.requires_grad_() for x in (q, k, v, table)]
        return {
            "ours": partial(trained, lambda: relative_attend(q, k, v, table).out),
            "skew": partial(trained, lambda: skew(q, k, v, table)),
        }
    calls: Calls = {"ours": partial(relative_attend, q, k, v, table), "skew": partial(skew, q, k, v, table)}
    if device == "cuda":
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        flex = torch.compile(flex_attention)
        causal = create_block_mask(lambda b, h, i, j: i >= j, None, None, n, n, device=device)

        def with_table() -> Tensor:
            by_distance = q @ table.mT
            score = lambda s, b, h, i, j: s + by_distance[b, h, i, i - j] * d**-0.5  # noqa: E731
            return flex(q, k, v, score_mod=score, block_mask=causal)

        calls["flex, Q E^T table"] = with_table
    return calls


def _step(device: str, b: int, h: int, s: int, d: int) -> Calls:
    q, k, v = (_random(device, b, h, s, d) for _ in range(3))
    table = _random(device, h, s, d)
    filled = torch.full((b,), s, device=device)
    return {
        "ours": partial(relative_step, q[:, :, -1:], k, v, table, filled),
        "whole forward": partial(relative_attend, q, k, v, table),
    }


def _similarity(device: str, a: int, n: int, s: int, d: int, backward: bool = False) -> Calls:
    x, y = F.normalize(_random(device, a, n, d), dim=-1), F.normalize(_random(device, a, s, d), dim=-1)
    if backward:
        x, y = x.requires_grad_(), y.requires_grad_()

        def trained(call: Callable[[], tuple[Tensor, Tensor]]) -> None:
            rows, columns = call()
            torch.autograd.grad(rows.square().sum() + columns.square().sum(), (x, y))

        return {
            "ours": partial(trained, partial(max_similarity, x, y)),
            "einsum": partial(trained, partial(einsum_blocks, x, y, a)),
        }
    calls: Calls = {"ours": partial(max_similarity, x, y)}
    if device == "cuda":
        return calls | ({"einsum": partial(einsum_blocks, x, y, a)} if a <= 256 else {})
    return calls | {"per-item loop": partial(per_item_loop, x, y)}


def _case(
    op: str, name: str, device: str, make: Callable[..., Calls], *arguments: Any, flops: float, numbers: float,
    repeats: int = 5, limit: str = "",
) -> Case:  # fmt: skip
    width = 2 if device == "cuda" else 4
    return Case(op, name, device, partial(make, device, *arguments), flops, numbers * width, repeats, limit)


SLIDES = (2_000, 3_000, 5_000, 8_000, 12_000, 20_000, 35_000, 50_000)

CASES: tuple[Case, ...] = (
    _case("attend", "dense 512^2 H8 D64 B4", "cpu", _attend, 4, 8, 512, 512, 64,
          flops=4 * 4 * 8 * 512**2 * 64, numbers=4 * 4 * 8 * 512 * 64, repeats=15, limit="at most 1.05 of SDPA"),
    _case("attend", "331 x 4096 H4 D64 B2, key lengths", "cpu", _attend_lengths, 2, 4, 331, 4096, 64,
          flops=4 * 4 * 331 * 5120 * 64, numbers=2 * 4 * 5120 * 64),
    _case("split_keys", "6 x 50,000 D256", "cpu", _few_queries, 6, 50_000, 256,
          flops=4 * 6 * 50_000 * 256, numbers=2 * 50_000 * 256),
    _case("split_keys", "8 bags of 2k-50k, 6 queries, D256", "cpu", _bags, SLIDES, 6, 256,
          flops=4 * 6 * sum(SLIDES) * 256, numbers=2 * sum(SLIDES) * 256),
    _case("relative_attention", "L1024 H8 D64 B1", "cpu", _relative, 1, 8, 1024, 64,
          flops=3 * 8 * 1024**2 * 64, numbers=5 * 8 * 1024 * 64),
    _case("relative_attention", "L1024 H8 D64 B1, forward + backward", "cpu", _relative, 1, 8, 1024, 64, True,
          flops=10.5 * 8 * 1024**2 * 64, numbers=9 * 8 * 1024 * 64),
    _case("relative_attention", "decode step at 512 H8 D64 B1", "cpu", _step, 1, 8, 512, 64,
          flops=6 * 8 * 512 * 64, numbers=3 * 8 * 512 * 64),
    _case("max_similarity", "1,000 x 1,000 items, 64 x 32 tokens, D128", "cpu", _similarity, 1000, 64, 32, 128,
          flops=2 * 1e6 * 64 * 32 * 128, numbers=1000 * 96 * 128 + 2e6, repeats=1,
          limit="at most 256 MB, at least as fast as the loop"),
    _case("max_similarity", "128 x 128 items, 64 x 32 tokens, D128, forward + backward", "cpu", _similarity,
          128, 64, 32, 128, True, flops=6 * 128**2 * 64 * 32 * 128, numbers=2 * 128 * 96 * 128, repeats=3),
    _case("split_keys", "6 x 50,000 D256", "cuda", _few_queries, 6, 50_000, 256,
          flops=0.31e9, numbers=25.5e6, limit="35 us"),
    _case("split_keys", "8 bags of 2k-50k, 6 queries, D256", "cuda", _bags, SLIDES, 6, 256,
          flops=4 * 6 * sum(SLIDES) * 256, numbers=2 * sum(SLIDES) * 256, limit="2.2 x floor"),
    _case("attend", "331 x 4096 H8 D64 B8, key lengths", "cuda", _attend_lengths, 8, 8, 331, 4096, 64,
          flops=22e9 * 5 / 8, numbers=36.5e6, limit="90 us"),
    _case("attend", "77 x 257 H12 D64 B64, key lengths", "cuda", _attend_lengths, 64, 12, 77, 257, 64,
          flops=3.9e9 * 5 / 8, numbers=33e6, limit="60 us"),
    _case("attend", "dense 4096^2 H32 D64 B4", "cuda", _attend, 4, 32, 4096, 4096, 64,
          flops=550e9, numbers=134e6, limit="dispatched to SDPA"),
    _case("attend", "dense 4096^2 H32 D64 B4 + mass + entropy", "cuda", _attend_statistics, 4, 32, 4096, 64,
          flops=825e9, numbers=150e6, limit="2.3 ms"),
    _case("attend", "BoxRPB 300 x 128^2 H8 D32 B2", "cuda", _box_bias, 2, 8, 300, 128, 32,
          flops=10e9, numbers=18.3e6, limit="50 us"),
    _case("relative_attention", "L2048 H8 D64 B16", "cuda", _relative, 16, 8, 2048, 64,
          flops=103e9, numbers=67e6, limit="450 us"),
    _case("relative_attention", "L2048 H8 D64 B16, forward + backward", "cuda", _relative, 16, 8, 2048, 64, True,
          flops=103e9 * 3.5, numbers=150e6, limit="3.5 x forward more"),
    _case("relative_attention", "decode step at 2048 H8 D64 B16", "cuda", _step, 16, 8, 2048, 64,
          flops=6 * 128 * 2048 * 64, numbers=2 * 128 * 2048 * 64),
    _case("max_similarity", "256 x 256 items, 196 x 32 tokens, D256", "cuda", _similarity, 256, 196, 32, 256,
          flops=210e9, numbers=15e6, limit="600 us"),
    _case("max_similarity", "256 x 256 items, 196 x 32 tokens, D256, forward + backward", "cuda", _similarity,
          256, 196, 32, 256, True, flops=630e9, numbers=60e6, limit="2.2 ms, 40 MB"),
    _case("max_similarity", "1,024 x 1,024 items, 196 x 32 tokens, D256", "cuda", _similarity, 1024, 196, 32, 256,
          flops=3.4e12, numbers=60e6, limit="9 ms"),
)  # fmt: skip
