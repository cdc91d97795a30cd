"""Pictures made of four: each quarter is read by itself at twice its size, and only once however often it is used."""

from __future__ import annotations

import hashlib
from typing import ClassVar

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from encoders.encoder import Encoder
from encoders.image import MobileNetTokens
from fusion.tokens import Place, Tokens


class QuadrantTokens(Encoder):
    """MobileNetV2 on each quarter of a picture.

    Args:
        side: quarters are resized to this many pixels; of several sizes, features are averaged
        cells: the map of a quarter is averaged to this many rows and columns
    """

    modality: ClassVar[str] = "image"

    def __init__(self, side: int | list[int] = 128, cells: int = 2):
        super().__init__()
        self.drawing = MobileNetTokens(side, cells=cells)
        self.width, self.frozen = self.drawing.width, True
        self._read: dict[bytes, Float[Tensor, "n w"]] = {}
        self.train()

    def forward(self, raw: UInt8[np.ndarray, "b 3 y x"]) -> Tokens:
        """Tokens quarter after quarter, 16 a picture at 2 x 2 cells.

        Args:
            raw: RGB, an even number of pixels high and wide
        """
        quarters = rearrange(raw, "b c (i y) (j x) -> (b i j) c y x", i=2, j=2)
        names = [hashlib.sha256(quarter.tobytes()).digest() for quarter in quarters]
        new = {name: row for row, name in enumerate(names) if name not in self._read}
        if new:
            cells = self.drawing(np.ascontiguousarray(quarters[list(new.values())])).x
            self._read.update(zip(new, cells, strict=True))
        x = torch.stack([self._read[name] for name in names])
        edge = round(x.shape[1] ** 0.5)
        at = torch.tensor(
            [(j * edge + b, i * edge + a) for i in (0, 1) for j in (0, 1) for a in range(edge) for b in range(edge)]
        )
        grid = at.to(x).expand(len(raw), -1, -1)
        return Tokens.full(rearrange(x, "(b q) n w -> b (q n) w", q=4), Place(grid=grid))
