"""Voxels -> tokens: a shallow adapter per subject, then a residual trunk that all subjects share.

STTM (Liu et al., AAAI 2025, arXiv 2403.06361), high-level pipeline: Block(x) = Dropout(act(LN(W x))), residual form
x + Block(x).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusion.dropout import Dropout
from fusion.tokens import Tokens

Activation = Literal["gelu", "silu"]


class MissingAdapter(ValueError):
    """Voxels of a subject for whom no adapter was trained."""


class Layer(nn.Sequential):
    """`Dropout(act(LN(W x)))`.

    Args:
        wide_in: width of what comes in
        width: width of the result
        dropout: probability of dropping a value
        activation: nonlinearity
    """

    def __init__(self, wide_in: int, width: int, dropout: float, activation: Activation = "gelu"):
        act = nn.GELU() if activation == "gelu" else nn.SiLU()
        super().__init__(nn.Linear(wide_in, width), nn.LayerNorm(width), act, Dropout(dropout))


class ResidualTrunk(nn.Module):
    """`x + Block(x)`, a number of times.

    Args:
        width: of the vector
        blocks: how many; 0 = the identity
        dropout: probability of dropping a value
        activation: nonlinearity
    """

    def __init__(self, width: int, blocks: int = 4, dropout: float = 0.15, activation: Activation = "gelu"):
        super().__init__()
        self.blocks = nn.ModuleList(Layer(width, width, dropout, activation) for _ in range(blocks))

    def forward(self, x: Float[Tensor, "*b w"]) -> Float[Tensor, "*b w"]:
        for block in self.blocks:
            x = x + block(x)
        return x


class VoxelAdapter(nn.Module):
    """The voxels of one subject -> the shared width: everything that is this subject's own.

    Args:
        voxels: how many this subject has
        width: of the shared space
        dropout: after the first layer
        residual_dropout: in the residual block
        input_dropout: probability of dropping a voxel while training; .65 when a new subject is added to a trained
            trunk, 0 before
        activation: nonlinearity
    """

    def __init__(
        self,
        voxels: int,
        width: int,
        dropout: float = 0.5,
        residual_dropout: float = 0.15,
        input_dropout: float = 0.0,
        activation: Activation = "gelu",
    ):
        super().__init__()
        if voxels < 1:
            raise ValueError(f"VoxelAdapter: voxels={voxels}; expected at least 1")
        self.voxels = voxels
        self.input = Dropout(input_dropout)
        self.first = Layer(voxels, width, dropout, activation)
        self.residual = ResidualTrunk(width, 1, residual_dropout, activation)

    def forward(self, x: Float[Tensor, "b x"]) -> Float[Tensor, "b w"]:
        return self.residual(self.first(self.input(x)))

    def weight_per_voxel(self) -> Float[Tensor, " x"]:
        """Length of the first layer's column of each voxel: how much the adapter can listen to it."""
        linear = self.first[0]
        assert isinstance(linear, nn.Linear)
        return linear.weight.detach().norm(dim=0)


class SubjectAdapters(nn.Module):
    """One adapter per subject, each into the same width.

    Args:
        voxels: subject -> number of voxels
        width: of the shared space
        dropout, residual_dropout, activation: of every adapter
    """

    def __init__(
        self,
        voxels: Mapping[str, int],
        width: int,
        dropout: float = 0.5,
        residual_dropout: float = 0.15,
        activation: Activation = "gelu",
    ):
        super().__init__()
        self.width, self.dropout, self.residual_dropout, self.activation = width, dropout, residual_dropout, activation
        self.adapters = nn.ModuleDict()
        for subject, count in voxels.items():
            self.add(subject, count)

    def add(self, subject: str, voxels: int, input_dropout: float = 0.0) -> VoxelAdapter:
        """Give a new subject an untrained adapter; those of the others stay as they are.

        Raises:
            ValueError: the subject has one already
        """
        if subject in self:
            raise ValueError(f"subject {subject} has an adapter already; use another label or train a new model")
        adapter = VoxelAdapter(
            voxels, self.width, self.dropout, self.residual_dropout, input_dropout, activation=self.activation
        )
        self.adapters[_key(subject)] = adapter
        return adapter

    def __contains__(self, subject: str) -> bool:
        return _key(subject) in self.adapters

    def __getitem__(self, subject: str) -> VoxelAdapter:
        """The adapter of a subject.

        Raises:
            MissingAdapter: it has none
        """
        if subject not in self:
            known = ", ".join(self.subjects()) or "nobody"
            raise MissingAdapter(
                f"subject {subject} has no adapter (there are adapters of {known}); train one with labelled samples "
                "of this subject: its adapter alone is fitted, the trunk stays as it is"
            )
        adapter = self.adapters[_key(subject)]
        assert isinstance(adapter, VoxelAdapter)
        return adapter

    def subjects(self) -> Iterator[str]:
        """Labels, in the order in which they were added."""
        return (key.removeprefix("sub-").replace("·", ".") for key in self.adapters)

    def forward(self, voxels: Mapping[str, Float[Tensor, "_ _"]]) -> Float[Tensor, "b w"]:
        """Everybody's samples in the shared width, one subject after the other.

        Args:
            voxels: subject -> `[samples, its voxels]`

        Raises:
            MissingAdapter: a subject has no adapter
            ValueError: a subject has another number of voxels than its adapter
        """
        parts = []
        for subject, x in voxels.items():
            adapter = self[subject]
            if x.shape[1] != adapter.voxels:
                raise ValueError(
                    f"subject {subject}: {x.shape[1]} voxels, its adapter was trained on {adapter.voxels}; "
                    "use the mask it was trained with"
                )
            parts.append(adapter(x))
        return torch.cat(parts)


class VoxelTokens(nn.Module):
    """A vector of the shared space -> tokens that queries can read: LN, GELU, linear, cut into pieces.

    Args:
        shared: width of the shared space
        tokens: how many pieces
        width: of each
    """

    def __init__(self, shared: int, tokens: int, width: int):
        super().__init__()
        self.tokens, self.width = tokens, width
        self.spread = nn.Sequential(nn.LayerNorm(shared), nn.GELU(), nn.Linear(shared, tokens * width))

    def forward(self, x: Float[Tensor, "b v"]) -> Tokens:
        return Tokens.full(self.spread(x).unflatten(1, (self.tokens, self.width)))


def _key(subject: str) -> str:
    """A name that a module may have: no dot, and nothing that a module's attribute is called."""
    return f"sub-{subject.replace('.', '·')}"
