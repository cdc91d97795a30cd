"""STTM's low-level pipeline (arXiv 2403.06361, its code): voxels -> an image latent, guided by the high-level trunk."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from encoders.brain import Layer, ResidualTrunk, SubjectAdapters


class LowLevel(nn.Module):
    """Own adapters, shared residual blocks (SiLU), x + g, x + Block(x), linear, group norm, upsampling to a latent.

    g is the high-level trunk's output; without it a learned null vector stands in. In training the brain's own vector
    is replaced by another learned null with probability `blind` per batch, so that the path also works from g alone.

    # Paper: the loss on the latents is not stated. Here: mean absolute error.

    Args:
        voxels: subject -> how many
        guide: width of the high-level trunk's output
        channels: of the latent (paper: 4)
        side: of the latent, a multiple of 4 (paper: 64)
        width: of the shared space (paper: 4096)
        blocks: shared residual blocks (paper: 4)
        inner: channels of the small map that is upsampled (paper: 64); a multiple of 4
        blind: probability of replacing the brain's vector
        adapter_dropout: after an adapter's first layer
        dropout: everywhere else
    """

    def __init__(
        self,
        voxels: Mapping[str, int],
        guide: int,
        *,
        channels: int = 4,
        side: int = 16,
        width: int = 256,
        blocks: int = 4,
        inner: int = 16,
        blind: float = 0.4,
        adapter_dropout: float = 0.5,
        dropout: float = 0.15,
    ):
        super().__init__()
        if side % 4:
            raise ValueError(f"LowLevel: latents of side {side}; the upsampler doubles twice, so give a multiple of 4")
        if inner % 4:
            raise ValueError(f"LowLevel: inner={inner}; expected a multiple of 4")
        self.blind, self.small, self.inner = blind, side // 4, inner
        self.adapters = SubjectAdapters(voxels, width, adapter_dropout, dropout, "silu")
        self.trunk = ResidualTrunk(width, blocks, dropout, "silu")
        self.guide = nn.Identity() if guide == width else nn.Linear(guide, width)
        self.no_guide = nn.Parameter(torch.zeros(guide))
        self.no_brain = nn.Parameter(torch.zeros(width))
        self.joined = Layer(width, width, dropout, "silu")
        self.spread = nn.Linear(width, inner * self.small**2)
        self.norm = nn.GroupNorm(4, inner)
        self.up = nn.Sequential(*_upsampling(inner), *_upsampling(inner), nn.Conv2d(inner, channels, 3, padding=1))

    def forward(
        self, voxels: Mapping[str, Float[Tensor, "_ _"]], guide: Float[Tensor, "b v"] | None = None
    ) -> Float[Tensor, "b c i j"]:
        """Latents of everybody's samples, one subject after the other.

        Args:
            voxels: subject -> `[samples, its voxels]`
            guide: the high-level trunk's output for the same samples; None = the learned null vector

        Raises:
            MissingAdapter: a subject has no adapter
        """
        x = self.trunk(self.adapters(voxels))
        if self.training and float(torch.rand(())) < self.blind:
            x = self.no_brain.expand_as(x)
        x = x + self.guide(self.no_guide.expand(len(x), -1) if guide is None else guide)
        x = x + self.joined(x)
        small = self.norm(self.spread(x).unflatten(1, (self.inner, self.small, self.small)))
        return self.up(small)

    def loss(
        self,
        voxels: Mapping[str, Float[Tensor, "_ _"]],
        guide: Float[Tensor, "b v"] | None,
        latents: Float[Tensor, "b c i j"],
    ) -> Float[Tensor, ""]:
        """Mean absolute error of the latents."""
        return (self(voxels, guide) - latents).abs().mean()


def _upsampling(channels: int) -> list[nn.Module]:
    """Twice the side, then a convolution."""
    return [
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.GroupNorm(4, channels),
        nn.SiLU(),
    ]
