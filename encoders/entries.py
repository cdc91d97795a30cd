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

    An entry without a token, an empty one for example, is passed over.

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
        lists = self._entries(raw)
        new = [entry for entry in dict.fromkeys(e for own in lists for e in own) if entry not in self._read]
        if new:
            tokens = self.entry(new)
            for entry, x, keep in zip(new, tokens.x, tokens.keep, strict=True):
                self._read[entry] = x[keep].mean(dim=0, keepdim=True) if self.whole else x[keep]
        nothing = torch.zeros(0, self.width, device=self.device)
        return padded([torch.cat([nothing, *(self._read[e] for e in own)]) for own in lists], self.width, self.device)

    def unread(self, raw: Sequence[str]) -> list[int]:
        return [row for row, own in enumerate(self._entries(raw)) if not own]

    def labels(self, raw: Sequence[str]) -> list[list[str]]:
        """The entry, or the piece of text, of each token."""
        lists = self._entries(raw)
        if self.whole:
            return lists
        return [[piece for own in self.entry.labels(e) for piece in own] if e else [] for e in lists]

    def _entries(self, raw: Sequence[str]) -> list[list[str]]:
        """Of each text the entries that have a token."""
        lists = [text.split(", ") for text in raw]
        every = list(dict.fromkeys(entry for own in lists for entry in own))
        empty = {every[row] for row in self.entry.unread(every)} if every else set()
        return [[entry for entry in own if entry not in empty] for own in lists]
