"""From the summaries of the streams to the logits of a patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Fusion = Literal["concat", "bilinear"]


class Concatenation(nn.Module):
    """Summaries side by side through two (linear, ReLU) layers.

    Args:
        parts: summaries
        width: width of each summary and of the result
        dropout: probability of dropping an activation of the last layer
    """

    def __init__(self, parts: int, width: int, dropout: float = 0.0):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(parts * width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout)
        )

    def forward(self, vectors: Sequence[Float[Tensor, "b w"]]) -> Float[Tensor, "b w"]:
        return self.layers(torch.cat(list(vectors), dim=1))


class Gate(nn.Module):
    """A summary, reduced and let through as far as both summaries agree: `ReLU(W' (sigmoid(U [x, y]) * ReLU(W x)))`.

    Args:
        width: width of each summary
        reduced: width of the result
        dropout: probability of dropping an activation
    """

    def __init__(self, width: int, reduced: int, dropout: float):
        super().__init__()
        self.value = nn.Linear(width, reduced)
        self.gate = nn.Linear(2 * width, reduced)
        self.out = nn.Linear(reduced, reduced)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b w"], both: Float[Tensor, "b v"]) -> Float[Tensor, "b i"]:
        opened = self.gate(both).sigmoid() * self.value(x).relu()
        return self.dropout(self.out(opened).relu())


class GatedKronecker(nn.Module):
    """Outer product of two gated summaries, each with a 1 appended, through two (linear, ReLU) layers.

    Pathomic Fusion (Chen 2020, arXiv 1912.08937) and PORPOISE (Chen 2022, doi:10.1016/j.ccell.2022.07.004).

    Args:
        width: width of each summary and of the result
        reduction: each summary is reduced to width / reduction before the product
        skip: whether the second layer also sees the two summaries
        dropout: probability of dropping an activation of the gates and of the product
        dropout_layers: the same for the two last layers
    """

    def __init__(
        self,
        width: int,
        reduction: int = 8,
        skip: bool = False,
        dropout: float = 0.25,
        dropout_layers: float = 0.25,
    ):
        super().__init__()
        reduced = width // reduction
        self.skip = skip
        self.gates = nn.ModuleList(Gate(width, reduced, dropout) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.first = nn.Linear((reduced + 1) ** 2, width)
        self.second = nn.Linear(width + (2 * width if skip else 0), width)
        self.dropout_layers = nn.Dropout(dropout_layers)

    def forward(self, vectors: Sequence[Float[Tensor, "b w"]]) -> Float[Tensor, "b w"]:
        one, other = vectors
        hidden = self.dropout_layers(self.first(self.dropout(self.product(one, other))).relu())
        if self.skip:
            hidden = torch.cat([hidden, one, other], dim=1)
        return self.dropout_layers(self.second(hidden).relu())

    def product(self, one: Float[Tensor, "b w"], other: Float[Tensor, "b w"]) -> Float[Tensor, "b v"]:
        """The outer product of the gated vectors with a 1 appended, row by row."""
        both = torch.cat([one, other], dim=1)
        ones = one.new_ones(len(one), 1)
        a, b = (torch.cat([gate(x, both), ones], dim=1) for gate, x in zip(self.gates, (one, other), strict=True))
        return torch.einsum("bi,bj->bij", a, b).flatten(1)


class SurvivalHead(nn.Module):
    """Fuse the summaries and read the logits off them.

    Args:
        parts: summaries
        width: width of each
        outputs: logits per patient
        fusion: how two summaries meet; "concat" takes any number
    """

    def __init__(self, parts: int, width: int, outputs: int, fusion: Fusion = "concat"):
        super().__init__()
        if fusion not in ("concat", "bilinear"):
            raise ValueError(f"SurvivalHead: fusion={fusion!r}; expected 'concat' or 'bilinear'")
        if fusion == "bilinear" and parts != 2:
            raise ValueError(f"SurvivalHead: fusion='bilinear' joins 2 summaries, got {parts}; use 'concat'")
        self.fuse = Concatenation(parts, width) if fusion == "concat" else GatedKronecker(width)
        self.classify = nn.Linear(width, outputs)

    def forward(self, vectors: Sequence[Float[Tensor, "b w"]]) -> Float[Tensor, "b k"]:
        return self.classify(self.fuse(vectors))
