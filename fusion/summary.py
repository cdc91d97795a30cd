"""Summaries: all tokens of a stream -> one vector."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusion.tokens import Tokens


class Summary(nn.Module, ABC):
    """One vector per item; an item without tokens gives zeros."""

    @abstractmethod
    def forward(self, tokens: Tokens) -> Float[Tensor, "b w"]:
        """Summarise the kept tokens."""


class Mean(Summary):
    """The mean over kept tokens."""

    def forward(self, tokens: Tokens) -> Float[Tensor, "b w"]:
        count = tokens.keep.sum(dim=1, keepdim=True).clamp(min=1)
        return tokens.zeroed().x.sum(dim=1) / count


class GatedPooling(Summary):
    """The sum of tokens weighted by `softmax_i(w' (tanh(V x_i) * sigmoid(U x_i)))` (Ilse 2018, arXiv 1802.04712, eq 9).

    Args:
        width: token width
        hidden: width of the gate
        dropout: probability of dropping a gate activation
    """

    def __init__(self, width: int, hidden: int = 256, dropout: float = 0.0):
        super().__init__()
        self.value = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Dropout(dropout))
        self.gate = nn.Sequential(nn.Linear(width, hidden), nn.Sigmoid(), nn.Dropout(dropout))
        self.score = nn.Linear(hidden, 1)

    def weights(self, tokens: Tokens) -> Float[Tensor, "b n"]:
        """Attention over tokens; sums to 1 over the kept ones, all zero for an item without tokens."""
        x = tokens.zeroed().x
        score = self.score(self.value(x) * self.gate(x))[..., 0].masked_fill(~tokens.keep, -torch.inf)
        score = score.masked_fill(~tokens.present[:, None], 0.0)
        return score.softmax(dim=1).masked_fill(~tokens.keep, 0.0)

    def forward(self, tokens: Tokens) -> Float[Tensor, "b w"]:
        return self.pool(tokens)[0]

    def pool(self, tokens: Tokens) -> tuple[Float[Tensor, "b w"], Float[Tensor, "b n"]]:
        """The summary and the weights it was made with."""
        weights = self.weights(tokens)
        return torch.einsum("bn,bnw->bw", weights, tokens.zeroed().x), weights
