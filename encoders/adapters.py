"""The encoders of the other rooms, fed with a side's raw items: slides, genes, brains, and vectors from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data.errors import DataError
from encoders.brain import VoxelAdapter, VoxelTokens
from encoders.encoder import Encoder, padded
from encoders.genes import GroupTokens
from encoders.slide import PatchTokens
from fusion.tokens import Tokens

Vectors = Float[np.ndarray, "b w"]


class VectorTokens(Encoder):
    """Embeddings from anywhere, as they are: one token per vector.

    Args:
        width: of the vectors
    """

    modality: ClassVar[str] = "vectors"

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.register_buffer("at", torch.empty(0))

    def forward(self, raw: Vectors | Float[np.ndarray, "b n w"] | Sequence[Float[np.ndarray, "_ w"]]) -> Tokens:
        """Tokens of a vector each, or of several each.

        Raises:
            DataError: they are not as wide as they should be
        """
        for wide in {item.shape[-1] for item in raw}:
            if wide != self.width:
                raise DataError(f"VectorTokens: vectors are {wide} wide, this encoder reads width={self.width}")
        if isinstance(raw, np.ndarray):
            x = torch.from_numpy(np.asarray(raw, np.float32)).to(self.device)
            return Tokens.full(x[:, None] if x.ndim == 2 else x)
        return padded([torch.from_numpy(np.asarray(item, np.float32)) for item in raw], self.width, self.device)


class SlideTokens(Encoder):
    """Patch features of slides through the patch layers of the survival models.

    Args:
        patch_width: channels of a patch feature
        widths: width after each layer; the last is the token width
        dropout: after each layer
        patches: read at most so many of a slide, evenly spread over the file; the others are cut
    """

    modality: ClassVar[str] = "slide"

    def __init__(
        self, patch_width: int, widths: Sequence[int] = (256, 256), dropout: float = 0.25, patches: int = 1024
    ):
        super().__init__()
        if patches < 1:
            raise ValueError(f"SlideTokens: patches={patches}; expected at least 1")
        self.patches, self.width = patches, widths[-1]
        self.layers = PatchTokens(patch_width, widths, dropout)

    def forward(self, raw: Sequence[Float[np.ndarray, "_ c"]]) -> Tokens:
        """Tokens of slides, each `[patches, patch_width]`.

        Raises:
            DataError: patch features are not as wide as they should be
        """
        for wide in {item.shape[-1] for item in raw}:
            if wide != (known := self.layers.patch_width):
                raise DataError(f"SlideTokens: patch features are {wide} wide, this encoder reads patch_width={known}")
        read = [torch.from_numpy(np.asarray(self._spread(item), np.float32)) for item in raw]
        bags = padded(read, self.layers.patch_width, self.device)
        return self.layers(bags.x, bags.keep)

    def cut(self, raw: Sequence[Float[np.ndarray, "_ c"]]) -> dict[int, str]:
        return {
            row: f"slide of {len(item)} patches: {self.patches} of them, evenly spread, are read"
            for row, item in enumerate(raw)
            if len(item) > self.patches
        }

    def _spread(self, item: Float[np.ndarray, "_ c"]) -> Float[np.ndarray, "_ c"]:
        if len(item) <= self.patches:
            return item
        return item[np.linspace(0, len(item) - 1, self.patches).round().astype(int)]


class GeneTokens(Encoder):
    """Gene values in groups, one token per group; z-scored on the training items, a missing value is their mean.

    Args:
        groups: group name -> columns of the vector of genes, from 0; a gene may be in several. A number = so many
            genes, each in a group of its own
        widths: width after each layer; the last is the token width
        dropout: alpha dropout after each layer
    """

    modality: ClassVar[str] = "genes"
    middle: Tensor
    spread: Tensor

    def __init__(self, groups: dict[str, list[int]] | int, widths: Sequence[int] = (256, 256), dropout: float = 0.25):
        super().__init__()
        if isinstance(groups, int):
            groups = {f"gene {column}": [column] for column in range(groups)}
        if not groups or not all(groups.values()):
            raise ValueError("GeneTokens: groups name no gene; give at least one column each")
        self.layers = GroupTokens({name: len(columns) for name, columns in groups.items()}, widths, dropout)
        self.groups, self.width = groups, widths[-1]
        self.genes = 1 + max(max(columns) for columns in groups.values())
        self.register_buffer("middle", torch.zeros(self.genes))
        self.register_buffer("spread", torch.ones(self.genes))

    def learn(self, raw: Vectors) -> None:
        """Mean and standard deviation of each gene; a constant gene becomes 0."""
        values = np.asarray(raw, np.float64)[:, : self.genes]
        known = np.isfinite(values)
        count = np.maximum(known.sum(axis=0), 1)
        middle = np.where(known, values, 0).sum(axis=0) / count
        spread = np.sqrt(np.where(known, (values - middle) ** 2, 0).sum(axis=0) / count)
        self.middle.copy_(torch.from_numpy(middle))
        self.spread.copy_(torch.from_numpy(np.where(spread > 0, spread, np.inf)))

    def forward(self, raw: Vectors) -> Tokens:
        """Tokens in the order of the groups; an item without a single value has none."""
        if raw.shape[1] < self.genes:
            raise DataError(f"GeneTokens: items have {raw.shape[1]} genes; the groups name {self.genes}")
        x = torch.from_numpy(np.asarray(raw, np.float32)).to(self.device)[:, : self.genes]
        known = torch.isfinite(x)
        z = torch.where(known, (x - self.middle) / self.spread, 0.0)
        return self.layers({name: z[:, columns] for name, columns in self.groups.items()}, known.any(dim=1))

    def labels(self, raw: Vectors) -> list[list[str]]:
        return [list(self.groups) for _ in raw]


class BrainTokens(Encoder):
    """Voxels of one subject through the adapter of the brain decoders, cut into tokens.

    Args:
        voxels: how many
        tokens: how many pieces
        width: of each
        shared: width of the vector that is cut
        dropout: after the first layer
    """

    modality: ClassVar[str] = "fmri"

    def __init__(self, voxels: int, tokens: int = 8, width: int = 192, shared: int = 256, dropout: float = 0.5):
        super().__init__()
        self.voxels, self.width = voxels, width
        self.adapter = VoxelAdapter(voxels, shared, dropout)
        self.pieces = VoxelTokens(shared, tokens, width)

    def forward(self, raw: Vectors) -> Tokens:
        """Tokens of samples `[b, voxels]`."""
        if raw.shape[1] != self.voxels:
            raise DataError(f"BrainTokens: samples have {raw.shape[1]} voxels, this encoder reads voxels={self.voxels}")
        x: Tensor = torch.from_numpy(np.asarray(raw, np.float32)).to(self.device)
        return self.pieces(self.adapter(x))
