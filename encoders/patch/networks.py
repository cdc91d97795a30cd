"""The networks behind the learnt encoders; the only modules of this package that import torch on import."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data.errors import DataError

# Sandler et al. 2018, table 2: expansion, channels, blocks, stride of the first block.
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _convolution(wide_in: int, wide_out: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(wide_in, wide_out, size, stride, (size - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(wide_out),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; add the input where shapes allow. Names as in torchvision's weights."""

    def __init__(self, wide_in: int, wide_out: int, stride: int, expansion: int):
        super().__init__()
        inner = wide_in * expansion
        widen = [] if expansion == 1 else [_convolution(wide_in, inner, 1)]
        narrow = [nn.Conv2d(inner, wide_out, 1, bias=False), nn.BatchNorm2d(wide_out)]
        self.conv = nn.Sequential(*widen, _convolution(inner, inner, 3, stride, groups=inner), *narrow)
        self.residual = stride == 1 and wide_in == wide_out

    def forward(self, x: Float[Tensor, "p c y x"]) -> Float[Tensor, "p d i j"]:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2Features(nn.Module):
    """MobileNetV2 (Sandler et al. 2018) up to the mean over positions: 1280 features."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, 32, stride=2)]
        width = 32
        for expansion, channels, blocks, stride in BLOCKS:
            for index in range(blocks):
                layers.append(InvertedResidual(width, channels, stride if index == 0 else 1, expansion))
                width = channels
        layers.append(_convolution(width, 1280, 1))
        self.features = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "p 3 y x"]) -> Float[Tensor, "p 1280"]:
        return self.features(x).mean(dim=(2, 3))


def load_weights(network: MobileNetV2Features, path: Path) -> MobileNetV2Features:
    """Load torchvision's weights; its classifier is not part of this network.

    Raises:
        DataError: the file is damaged or no MobileNetV2
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        names = state.keys()
    except Exception as error:  # foreign bytes are taken for sizes, types and names, and end in any way
        raise DataError(f"{path}: cannot be read as weights ({error}); fetch the file again") from None
    try:
        network.load_state_dict({key: state[key] for key in names if not str(key).startswith("classifier.")})
    except (RuntimeError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not the weights of a MobileNetV2 ({str(error).splitlines()[-1].strip()})") from error
    return network


class PooledTokens(nn.Module):
    """One vector per image out of a transformers vision model."""

    def __init__(self, model: nn.Module, pooling: Literal["cls", "mean"]):
        super().__init__()
        self.model, self.pooling = model, pooling

    def forward(self, x: Float[Tensor, "p 3 y x"]) -> Float[Tensor, "p c"]:
        last: Any = self.model(pixel_values=x).last_hidden_state
        if last.ndim == 4:
            return last.mean(dim=(2, 3))
        # The class token stands first; registers of DINOv2 follow it and are no patches.
        skipped = 1 + int(getattr(self.model.config, "num_register_tokens", 0) or 0)  # type: ignore[union-attr]
        return last[:, 0] if self.pooling == "cls" else last[:, skipped:].mean(dim=1)
