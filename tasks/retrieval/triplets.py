"""Triplet training of attribute embeddings: within a condition, the same value is nearer than another one.

    loss = mean over conditions of mean over positive pairs of max(0, margin - cos(a, p) + cos(a, n))

Every pair of a batch with the same value is a positive pair and gets one random negative of another value (ASEN's
triplets, Ma et al. 2020, with all pairs of a batch instead of drawn ones). Missing values take no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.errors import DataError

MISSING = -1


@dataclass(frozen=True)
class Values:
    """What every item has of every attribute.

    Attributes:
        names: of the attributes, K
        classes: per attribute the values it takes
        codes: number of the value, -1 where it is missing, `[n, K]`
    """

    names: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]
    codes: Int[np.ndarray, "n k"]

    @classmethod
    def of(cls, table: pd.DataFrame, names: Sequence[str]) -> Values:
        """From the columns of a table, one row per item.

        Raises:
            DataError: a column is missing or holds fewer than two values
        """
        classes, codes = [], []
        for name in names:
            if name not in table:
                raise DataError(f"attribute '{name}' is no column of the table; it has {', '.join(map(str, table))}")
            found, known = pd.factorize(table[name], sort=True)
            if len(known) < 2:
                raise DataError(f"attribute '{name}' takes {len(known)} value; at least 2 are needed to tell apart")
            classes.append(tuple(str(value) for value in known))
            codes.append(found)
        return cls(tuple(names), tuple(classes), np.stack(codes, axis=1).astype(np.int64))


def triplet_loss(spaces: Float[Tensor, "b k d"], codes: Int[Tensor, "b k"], margin: float = 0.2) -> Float[Tensor, ""]:
    """Loss of a batch in all spaces; a condition without a triplet in the batch does not count.

    Args:
        spaces: unit embeddings under every condition
        codes: values, -1 = missing
        margin: by which a positive is to be nearer
    """
    losses = []
    for condition in range(codes.shape[1]):
        rows = (codes[:, condition] != MISSING).nonzero().flatten()
        own = codes[rows, condition]
        same = own[:, None] == own
        asking = (~same).any(dim=1)
        positive = same & ~torch.eye(len(rows), dtype=torch.bool, device=codes.device) & asking[:, None]
        if not bool(positive.any()):
            continue
        unit = spaces[rows, condition]
        near = unit @ unit.T
        weight = torch.where(asking[:, None], ~same, torch.ones_like(same)).float()
        negative = torch.multinomial(weight, len(rows), replacement=True)
        excess = (margin - near + near.gather(1, negative)).clamp(min=0)
        losses.append(excess[positive].mean())
    return torch.stack(losses).mean() if losses else spaces.sum() * 0.0
