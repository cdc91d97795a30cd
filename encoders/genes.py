"""Genes -> tokens: one token per gene group, from a self-normalising network (Klambauer 2017, 1706.02515)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fusion.tokens import Tokens


class GroupedInput(nn.Module):
    """The first linear layer of every group, `y_i = x_i W_i + b_i`; groups differ in width.

    The weights of all groups lie below one another in one parameter, `[sum of widths, out]`, so that a step over
    hundreds of pathways is a few large tensors for the optimiser.

    Args:
        sizes: genes in each group
        out: width of the result
    """

    def __init__(self, sizes: Sequence[int], out: int):
        super().__init__()
        self.sizes = list(sizes)
        self.weight = nn.Parameter(torch.empty(sum(self.sizes), out))
        self.bias = nn.Parameter(torch.zeros(len(self.sizes), out))
        with torch.no_grad():
            for part in self.weight.split(self.sizes):
                nn.init.xavier_normal_(part)

    def forward(self, groups: Sequence[Float[Tensor, "b _"]]) -> Float[Tensor, "m b w"]:
        products = [x @ weight for x, weight in zip(groups, self.weight.split(self.sizes), strict=True)]
        return torch.stack(products) + self.bias[:, None]


class GroupedLinear(nn.Module):
    """A linear layer of equal width for every group, as one batched product.

    Args:
        groups: how many
        width: input width
        out: output width
    """

    def __init__(self, groups: int, width: int, out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(groups, width, out))
        self.bias = nn.Parameter(torch.zeros(groups, out))
        with torch.no_grad():
            for part in self.weight:
                nn.init.xavier_normal_(part)

    def forward(self, x: Float[Tensor, "m b v"]) -> Float[Tensor, "m b w"]:
        return torch.baddbmm(self.bias[:, None], x, self.weight)


class GroupTokens(nn.Module):
    """One token per gene group: (linear, ELU, alpha dropout) for each of `widths`.

    Args:
        groups: group name -> number of genes
        widths: width after each layer; the last is the token width
        dropout: alpha dropout after each layer
    """

    def __init__(self, groups: Mapping[str, int], widths: Sequence[int] = (256, 256), dropout: float = 0.25):
        super().__init__()
        if not groups:
            raise ValueError("GroupTokens: no gene groups; expected at least one")
        if empty := [name for name, size in groups.items() if size < 1]:
            raise ValueError(f"GroupTokens: gene group {empty[0]!r} has no genes; drop it from the groups")
        self.groups = dict(groups)
        self.first = GroupedInput(list(groups.values()), widths[0])
        self.layers = nn.ModuleList(GroupedLinear(len(groups), width, out) for width, out in pairwise(widths))
        self.activation = nn.Sequential(nn.ELU(), nn.AlphaDropout(dropout))

    def forward(self, genes: Mapping[str, Float[Tensor, "b _"]], present: Bool[Tensor, " b"]) -> Tokens:
        """Tokens in the order of `groups`, absent for patients without genes."""
        if list(genes) != list(self.groups):
            raise ValueError(
                f"GroupTokens: the batch has gene groups {list(genes)[:6]}, "
                f"this model was built for {list(self.groups)[:6]}"
            )
        for name, size in self.groups.items():
            if genes[name].shape[1] != size:
                raise ValueError(f"GroupTokens: group {name!r} has {genes[name].shape[1]} genes; expected {size}")
        clean = [values.masked_fill(~present[:, None], 0.0) for values in genes.values()]
        x = self.activation(self.first(clean))
        for layer in self.layers:
            x = self.activation(layer(x))
        return Tokens(x.transpose(0, 1), present[:, None].expand(-1, len(self.groups)))
