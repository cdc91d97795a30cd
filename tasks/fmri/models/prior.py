"""A small diffusion prior: from brain tokens to target tokens, by denoising (STTM, arXiv 2403.06361; MindEye's prior).

The network predicts the clean tokens from noisy ones; in training a random 60 to 65 % of the brain tokens is hidden,
and for one sample in five all of them, so that sampling can be guided by the difference.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fusion.block import Block, FeedForward
from fusion.operators.dense import Dense
from fusion.tokens import Tokens


class Decoding(nn.Module):
    """One decoder layer: queries read themselves, then the memory, then pass a feed-forward layer."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.own = Block(width, Dense(width, heads), dropout=dropout)
        self.memory = Block(width, Dense(width, heads), FeedForward(width, hidden, dropout), dropout=dropout)

    def forward(self, queries: Tokens, memory: Tokens) -> Tokens:
        return self.memory(self.own(queries), memory)


class DiffusionPrior(nn.Module):
    """Transformer decoder over [time token, noisy target tokens + position], memory = brain tokens + position.

    Args:
        tokens: target tokens, as many as brain tokens
        width: of a target token
        inner: width of the transformer (paper: the tokens' own, 768)
        layers: decoder layers (paper: 6)
        heads: attention heads (paper: 12)
        steps: of the diffusion (paper: 100)
        hidden_from, hidden_to: least and greatest part of the brain tokens that is hidden in training
        unconditional: probability that all brain tokens of a sample are hidden
        dropout: in the layers
    """

    def __init__(
        self,
        tokens: int,
        width: int,
        *,
        inner: int = 64,
        layers: int = 2,
        heads: int = 4,
        steps: int = 100,
        hidden_from: float = 0.60,
        hidden_to: float = 0.65,
        unconditional: float = 0.2,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.steps, self.unconditional = steps, unconditional
        self.hidden_from, self.hidden_to = hidden_from, hidden_to
        self.to_query, self.to_memory = nn.Linear(width, inner), nn.Linear(width, inner)
        self.position = nn.Parameter(torch.randn(tokens, inner) / inner**0.5)
        self.memory_position = nn.Parameter(torch.randn(tokens, inner) / inner**0.5)
        self.time = nn.Sequential(nn.Linear(inner, inner), nn.GELU(), nn.Linear(inner, inner))
        self.layers = nn.ModuleList(Decoding(inner, heads, 4 * inner, dropout) for _ in range(layers))
        self.out = nn.Sequential(nn.LayerNorm(inner), nn.Linear(inner, width))
        self.register_buffer("kept_signal", _cosine_schedule(steps), persistent=False)

    def forward(
        self,
        noisy: Float[Tensor, "b t e"],
        step: Int[Tensor, " b"],
        brain: Float[Tensor, "b t e"],
        keep: Tensor | None = None,
    ) -> Float[Tensor, "b t e"]:
        """The clean tokens, as far as they can be told.

        Args:
            noisy: target tokens at diffusion step `step`
            step: 0 = nearly clean
            brain: brain tokens
            keep: which brain tokens may be read, bool `[b, t]`; None = all. A row of False is unconditional
        """
        x = self.to_query(noisy) + self.position
        time = self.time(_waves(step, x.shape[-1]).to(x.dtype))[:, None]
        memory = self.to_memory(brain) + self.memory_position
        source = Tokens.full(memory) if keep is None else Tokens(memory, keep)
        queries = Tokens.full(torch.cat([time, x], dim=1))
        for layer in self.layers:
            queries = layer(queries, source)
        return self.out(queries.x[:, 1:])

    def loss(self, brain: Float[Tensor, "b t e"], target: Float[Tensor, "b t e"]) -> Float[Tensor, ""]:
        """Mean squared error of the clean tokens at a random step, with part of the memory hidden."""
        b, t = brain.shape[:2]
        step = torch.randint(self.steps, (b,), device=brain.device)
        noisy = self._noised(target, torch.randn_like(target), step)
        share = self.hidden_from + (self.hidden_to - self.hidden_from) * float(torch.rand(()))
        # At least one token stays, or a target of one token would never be conditioned on.
        hidden = min(round(share * t), t - 1)
        order = torch.rand(b, t, device=brain.device).argsort(dim=1)
        keep = (order >= hidden) & (torch.rand(b, 1, device=brain.device) >= self.unconditional)
        return F.mse_loss(self(noisy, step, brain, keep), target)

    @torch.no_grad()
    def sample(self, brain: Float[Tensor, "b t e"], *, seed: int = 0, guidance: float = 1.0) -> Float[Tensor, "b t e"]:
        """Target tokens drawn for brain tokens.

        Args:
            brain: brain tokens
            seed: of the noise
            guidance: 1 = as conditioned; above, further away from the unconditional guess
        """
        generator = torch.Generator(device="cpu").manual_seed(seed)

        def noise() -> Tensor:
            return torch.randn(brain.shape, generator=generator).to(brain)

        x = noise()
        nothing = torch.zeros(brain.shape[:2], dtype=torch.bool, device=brain.device)
        signal = self.kept_signal
        assert isinstance(signal, Tensor)
        for at in reversed(range(self.steps)):
            step = torch.full((len(brain),), at, device=brain.device)
            clean = self(x, step, brain)
            if guidance != 1.0:
                free = self(x, step, brain, nothing)
                clean = free + guidance * (clean - free)
            if at == 0:
                return clean
            now, before = signal[at], signal[at - 1]
            beta = 1 - now / before
            mean = (before.sqrt() * beta * clean + (now / before).sqrt() * (1 - before) * x) / (1 - now)
            x = mean + (beta * (1 - before) / (1 - now)).sqrt() * noise()
        raise AssertionError("a diffusion has at least one step")

    def _noised(self, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        signal = self.kept_signal
        assert isinstance(signal, Tensor)
        kept = signal[step].view(-1, 1, 1)
        return kept.sqrt() * clean + (1 - kept).sqrt() * noise


def _cosine_schedule(steps: int) -> Float[Tensor, " t"]:
    """Signal variance left after each step (Nichol and Dhariwal 2021, arXiv 2102.09672, eq 17)."""
    at = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    left = torch.cos((at + 0.008) / 1.008 * math.pi / 2) ** 2
    return (left[1:] / left[0]).clamp(min=1e-5).float()


def _waves(step: Int[Tensor, " b"], width: int) -> Float[Tensor, "b w"]:
    """Sines and cosines of a step."""
    half = width // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=step.device) / half)
    angles = step[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    return F.pad(waves, (0, width - 2 * half))
