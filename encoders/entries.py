"""Captions that are lists: each entry is read by itself, and only once however often it is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from encoders.encoder import Encoder, padded
from encoders.text import PretrainedText
from fusion.tokens import Tokens


class ListTokens(Encoder):
    """MiniLM on each entry of a caption that is a list with commas; tokens of entries stand one after another.

    Args:
        whole: one token an entry, the mean of its word pieces, instead of one a piece
    """

    modality: ClassVar[str] = "text"

    def __init__(self, whole: bool = False) -> None:
        super().__init__()
        self.whole = whole
        self.entry = PretrainedText()
        self.width, self.frozen = self.entry.width, True
        self._read: dict[str, Float[Tensor, "n w"]] = {}
        self.train()

    def forward(self, raw: Sequence[str]) -> Tokens:
        lists = [text.split(", ") for text in raw]
        new = [entry for entry in dict.fromkeys(e for own in lists for e in own) if entry not in self._read]
        if new:
            tokens = self.entry(new)
            for entry, x, keep in zip(new, tokens.x, tokens.keep, strict=True):
                self._read[entry] = x[keep].mean(dim=0, keepdim=True) if self.whole else x[keep]
        return padded([torch.cat([self._read[e] for e in own]) for own in lists], self.width, self.device)

    def labels(self, raw: Sequence[str]) -> list[list[str]]:
        """The entry, or the piece of text, of each token."""
        lists = [text.split(", ") for text in raw]
        return lists if self.whole else [[piece for own in self.entry.labels(e) for piece in own] for e in lists]
