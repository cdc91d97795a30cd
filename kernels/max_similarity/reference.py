"""K8, the definition: the whole similarity table, then two maxima and two weighted sums."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Scores(NamedTuple):
    """Scores of all pairs and, for the backward, the winner of every token."""

    x_to_y: Tensor  # [a, b]
    y_to_x: Tensor  # [a, b]
    x_winner: Tensor  # [a, b, n] position in y
    y_winner: Tensor  # [a, b, s] position in x


def winner_dtype(n: int, s: int) -> torch.dtype:
    """Smallest integer that holds a token position."""
    return torch.uint8 if max(n, s) <= 256 else torch.int16


def score_dtype(dtype: torch.dtype) -> torch.dtype:
    """Scores of 16-bit tokens are float32; wider tokens keep their type."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def max_similarity_reference(
    x: Float[Tensor, "a n d"],
    y: Float[Tensor, "b s d"],
    x_weight: Float[Tensor, "a n"],
    y_weight: Float[Tensor, "b s"],
) -> Scores:
    """Score every item of x against every item of y, token by token.

    S[i,j,t,u] = x[i,t] . y[j,u];
    x_to_y[i,j] = sum_t x_weight[i,t] max_u S;  y_to_x[i,j] = sum_u y_weight[j,u] max_t S,
    where a token of weight 0 is no partner for anyone. The first of equal maxima wins.
    Builds the a x b x n x s table: for tests and for reading, not for use.
    """
    x_keep, y_keep = x_weight > 0, y_weight > 0
    dtype = score_dtype(x.dtype)
    x = torch.where(x_keep[..., None], x, torch.zeros_like(x)).to(dtype)
    y = torch.where(y_keep[..., None], y, torch.zeros_like(y)).to(dtype)
    table = torch.einsum("itd,jud->ijtu", x, y)
    rows, row_at = table.masked_fill(~y_keep[None, :, None, :], -torch.inf).max(dim=3)
    columns, column_at = table.masked_fill(~x_keep[:, None, :, None], -torch.inf).max(dim=2)
    integer = winner_dtype(x.shape[1], y.shape[1])
    return Scores(
        torch.einsum("ijt,it->ij", rows, x_weight.to(dtype)),
        torch.einsum("iju,ju->ij", columns, y_weight.to(dtype)),
        row_at.to(integer),
        column_at.to(integer),
    )
