"""Scores of every item that asks with every item of a gallery: global vectors, token by token, or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from data.errors import DataError
from kernels.max_similarity import max_similarity
from tasks.retrieval.two_towers import Encoded

Score = Literal["global", "tokens", "both"]
SCORES: tuple[Score, ...] = get_args(Score)
MEANING = {
    "global": "cosine of two vectors",
    "tokens": "mean over the asking item's tokens of their best cosine on the other side",
    "both": "weighted sum of the global and the token-wise score",
}


def prompt_ensemble(prompts: Sequence[Float[Tensor, "q g"]]) -> Float[Tensor, "q g"]:
    """Scores averaged over several wordings of the same items; their token tables differ, so tokens cannot be.

    Raises:
        ValueError: no prompts were given
    """
    if not prompts:
        raise ValueError("prompt_ensemble: no prompts were given; pass the scores of at least one wording")
    return torch.stack(list(prompts)).mean(dim=0)


def faults(items: Encoded) -> dict[int, str]:
    """Rows that cannot be scored -> why: a value that is not a number, or no token at all."""
    real = torch.where(items.keep[..., None], items.x, torch.zeros_like(items.x))
    wrong = ~(torch.isfinite(items.global_vector).all(dim=1) & torch.isfinite(real).flatten(1).all(dim=1))
    found = dict.fromkeys(
        wrong.nonzero().flatten().tolist(), "its vector holds NaN or infinity; look at what it was made from"
    )
    for row in (~items.keep.any(dim=1)).nonzero().flatten().tolist():
        found[row] = "it keeps no token, so its score is undefined; leave it out or keep one token"
    return found


@torch.no_grad()
def scores_of(asking: Encoded, gallery: Encoded, score: Score, weight: float = 0.5) -> Float[Tensor, "q g"]:
    """Scores of all pairs, rows ask.

    `global` is the cosine of the two vectors. `tokens` is FILIP's late interaction (arXiv 2111.07783, section 3.1):
    every token of the item that asks takes its best partner on the other side, and the picks are averaged, so the two
    directions differ. `both` is weight x global + (1 - weight) x tokens.

    Args:
        asking: items that ask
        gallery: items that are searched
        score: which one
        weight: share of the global score in `both`

    Raises:
        DataError: an item that cannot be scored
    """
    for name, items in (("query", asking), ("gallery item", gallery)):
        for row, why in faults(items).items():
            raise DataError(f"{name} {row}: {why}")
    if score == "global":
        return asking.global_vector.float() @ gallery.global_vector.float().T
    picks = max_similarity(asking.x.float(), gallery.x.float(), x_keep=asking.keep, y_keep=gallery.keep).x_to_y
    if score == "tokens":
        return picks
    return weight * (asking.global_vector.float() @ gallery.global_vector.float().T) + (1 - weight) * picks
