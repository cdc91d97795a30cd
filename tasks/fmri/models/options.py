"""What a config may say about the parts of the deep decoder that are optional or come later."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PriorOptions:
    """A diffusion prior from brain tokens to target tokens.

    Attributes:
        inner: width of the transformer
        layers: decoder layers
        heads: attention heads
        steps: of the diffusion
    """

    inner: int = 64
    layers: int = 2
    heads: int = 4
    steps: int = 100


@dataclass(frozen=True)
class LowLevelOptions:
    """The low-level pipeline, for targets that bring image latents.

    Attributes:
        width: of its shared space
        blocks: shared residual blocks
        inner: channels of the small map
        blind: probability per batch that only the high-level guide is seen
    """

    width: int = 256
    blocks: int = 4
    inner: int = 16
    blind: float = 0.4


@dataclass(frozen=True)
class Adapting:
    """How a new subject is added to a trunk that was trained without it.

    Attributes:
        epochs: passes over the new subject's samples
        input_dropout: probability of dropping a voxel meanwhile
    """

    epochs: int = 50
    input_dropout: float = 0.65
