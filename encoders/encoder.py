"""What every encoder of retrieval is: raw items of one modality -> tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fusion.tokens import Tokens


class Encoder(nn.Module, ABC):
    """Raw items to tokens; whoever projects them into a shared space comes after.

    Attributes:
        modality: name of the side of a collection that it reads
        width: of its tokens
        frozen: its weights never change, so its tokens may be computed once and kept
    """

    modality: ClassVar[str]
    width: int
    frozen: bool = False

    @abstractmethod
    def forward(self, raw: Any) -> Tokens:
        """Tokens of a batch of items as `Side.load` returns them."""

    def learn(self, raw: Any) -> None:
        """See the training items before the first step, for what must be known by then (a vocabulary, a scale)."""

    def cut(self, raw: Any) -> dict[int, str]:
        """Items of a batch of which only a part is read -> what is cut, in one line."""
        return {}

    def unread(self, raw: Any) -> list[int]:
        """Items of a batch of which it keeps no token, as far as that can be told without reading them."""
        return []

    def labels(self, raw: Any) -> list[list[str]]:
        """What each token of each item of a batch is called in a picture, padding left out."""
        return [[str(k + 1) for k in range(int(count))] for count in self(raw).keep.sum(dim=1)]

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        first: Tensor | None = next(self.parameters(), next(self.buffers(), None))
        return torch.device("cpu") if first is None else first.device

    def train(self, mode: bool = True) -> Encoder:
        """A frozen encoder stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self


def local_model(place: str) -> str:
    """The folder of a Hugging Face model; nothing is downloaded.

    Raises:
        ValueError: it is none
    """
    if not (Path(place) / "config.json").is_file():
        raise ValueError(f"model={place}: no folder of a Hugging Face model (with config.json); give a local one")
    return place


def padded(items: Sequence[Tensor], width: int, device: torch.device) -> Tokens:
    """Items of different length as one batch; padding is 0.

    Args:
        items: `[n, width]` each; n may be 0
        width: of a token
        device: of the result
    """
    longest = max((len(item) for item in items), default=0)
    x = torch.zeros(len(items), longest, width, device=device)
    keep = torch.zeros(len(items), longest, dtype=torch.bool, device=device)
    for row, item in enumerate(items):
        x[row, : len(item)] = item.to(device)
        keep[row, : len(item)] = True
    return Tokens(x, keep)
