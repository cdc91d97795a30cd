"""Length generalisation of relative attention: trained on short sequences, measured on sequences four times as long.

Of 16 symbols, x_t = x_{t-13} with probability .9, else any: no model can do better than .565 nats per symbol. One
layer, 4 heads, width 64, trained at length 96 for 400 steps of 16 sequences; distances beyond 63 share a vector.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from tasks.melody.models.decoder import DecoderOptions, Sinusoids
from tasks.melody.models.music_transformer import MusicTransformer

SYMBOLS, BACK, SHARE = 16, 13, 0.9
TRAINED, LENGTHS = 96, (96, 192, 384)
STEPS, BATCH, RATE, REACH = 400, 16, 2e-3, 64
MEASURED = 64


def floor() -> float:
    """Entropy of a symbol given the past, nats."""
    other = (1 - SHARE) / SYMBOLS
    copied = SHARE + other
    return -copied * math.log(copied) - (SYMBOLS - 1) * other * math.log(other)


def sequences(count: int, length: int, generator: torch.Generator) -> Int[Tensor, "b n"]:
    """Sequences in which a symbol mostly repeats the one 13 places before."""
    drawn = torch.randint(SYMBOLS, (count, length), generator=generator)
    copied = torch.rand(count, length, generator=generator) < SHARE
    for at in range(BACK, length):
        drawn[:, at] = torch.where(copied[:, at], drawn[:, at - BACK], drawn[:, at])
    return drawn


def trained(relative: bool, seed: int, steps: int = STEPS) -> MusicTransformer:
    """One model, trained at length 96.

    Args:
        relative: relative attention without sinusoids; False = added sinusoids without a relative term
        seed: of weights and sequences
        steps: of 16 sequences each
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    waves: Sinusoids = "none" if relative else "added"
    size = DecoderOptions(64, 1, 4, 256, reach=REACH if relative else None, sinusoids=waves, dropout=0.0)
    model = MusicTransformer(SYMBOLS, size)
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    for _ in range(steps):
        loss = _nats(model, sequences(BATCH, TRAINED, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def nats(model: MusicTransformer, length: int, seed: int) -> float:
    """Mean nats per symbol from the 14th on, on new sequences."""
    generator = torch.Generator().manual_seed(1_000_003 + seed)
    return float(_nats(model, sequences(MEASURED, length, generator)))


def _nats(model: MusicTransformer, symbols: Int[Tensor, "b n"]) -> Tensor:
    logits = model(symbols[:, :-1])[:, BACK - 1 :]
    return F.cross_entropy(logits.flatten(0, 1), symbols[:, BACK:].flatten())
