"""Dropout whose mask depends on (seed, b, h, i, j) alone, so that any tiling drops the same weights.

Philox4x32-10 (Salmon et al. 2011): key = the 64-bit seed, counter = (j // 4, i, h, b), word j % 4 of the result.
A weight is dropped when the word's upper 24 bits are below `threshold`. The kernels compute the same numbers.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def threshold(probability: float) -> int:
    """The 24-bit integer below which a word means "drop"."""
    return round(probability * 2**24)


def philox(seed: Int[Tensor, " 1"], *counter: Int[Tensor, "*any"]) -> tuple[Int[Tensor, "*any"], ...]:
    """Four 32-bit words per counter, as int64."""
    c0, c1, c2, c3 = counter
    k0, k1 = seed & _LOW, (seed >> 32) & _LOW
    for _ in range(_ROUNDS):
        a, b = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((b >> 32) & _LOW) ^ c1 ^ k0, b & _LOW, ((a >> 32) & _LOW) ^ c3 ^ k1, a & _LOW
        k0, k1 = (k0 + _STEPS[0]) & _LOW, (k1 + _STEPS[1]) & _LOW
    return c0, c1, c2, c3


def survivors(
    seed: Int[Tensor, " 1"], probability: float, batch: int, heads: int, start: int, stop: int, keys: int
) -> Bool[Tensor, "b h rows s"]:
    """Which weights of queries `start..stop-1` survive."""
    device = seed.device
    quads = torch.arange((keys + 3) // 4, device=device)
    i = torch.arange(start, stop, device=device)[:, None]
    h = torch.arange(heads, device=device)[:, None, None]
    b = torch.arange(batch, device=device)[:, None, None, None]
    words = torch.stack(torch.broadcast_tensors(*philox(seed, quads, i, h, b)), dim=-1)
    return (words.flatten(-2)[..., :keys] >> 8) >= threshold(probability)
