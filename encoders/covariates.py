"""Clinical covariates -> tokens: one token per covariate, its value times a learned direction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusion.tokens import Tokens


class CovariateTokens(nn.Module):
    """`token_a = value_a * direction_a + place_a` for each covariate a (age, sex, ...).

    Args:
        names: covariates, in the order of the batch's columns
        width: token width
    """

    def __init__(self, names: Sequence[str], width: int = 256):
        super().__init__()
        if not names:
            raise ValueError("CovariateTokens: no covariates; expected at least one name")
        self.names = tuple(names)
        self.direction = nn.Parameter(torch.empty(len(self.names), width))
        self.place = nn.Parameter(torch.empty(len(self.names), width))
        nn.init.normal_(self.direction, std=width**-0.5)
        nn.init.normal_(self.place, std=width**-0.5)

    def forward(self, covariates: Float[Tensor, "b a"]) -> Tokens:
        """Always present: a missing value arrives as 0, the mean of the training patients."""
        if covariates.shape[1] != len(self.names):
            raise ValueError(
                f"CovariateTokens: the batch has {covariates.shape[1]} covariates; expected {len(self.names)}: "
                f"{', '.join(self.names)}"
            )
        return Tokens.full(covariates[..., None] * self.direction + self.place)
