"""Pictures made of four: each quarter is read by itself at twice its size, and only once however often it is used."""

from __future__ import annotations

import hashlib
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from encoders.encoder import Encoder
from encoders.image import MobileNetTokens
from fusion.tokens import Tokens


class QuadrantTokens(Encoder):
    """MobileNetV2 on each quarter of a picture; its cells are averaged to 2 x 2.

    Args:
        side: quarters are resized to this many pixels
    """

    modality: ClassVar[str] = "image"

    def __init__(self, side: int = 224):
        super().__init__()
        self.drawing = MobileNetTokens(side)
        self.width, self.frozen = self.drawing.width, True
        self._read: dict[bytes, Float[Tensor, "4 w"]] = {}
        self.train()

    def forward(self, raw: UInt8[np.ndarray, "b 3 y x"]) -> Tokens:
        """16 tokens a picture, quarter after quarter.

        Args:
            raw: RGB, an even number of pixels high and wide
        """
        quarters = rearrange(raw, "b c (i y) (j x) -> (b i j) c y x", i=2, j=2)
        names = [hashlib.sha256(quarter.tobytes()).digest() for quarter in quarters]
        new = {name: row for row, name in enumerate(names) if name not in self._read}
        if new:
            cells = self.drawing(np.ascontiguousarray(quarters[list(new.values())])).x
            edge = round(cells.shape[1] ** 0.5)
            grid = F.adaptive_avg_pool2d(rearrange(cells, "b (y x) w -> b w y x", y=edge), 2)
            small = rearrange(grid, "b w y x -> b (y x) w")
            self._read.update(zip(new, small, strict=True))
        x = torch.stack([self._read[name] for name in names])
        return Tokens.full(rearrange(x, "(b q) n w -> b (q n) w", q=4))
