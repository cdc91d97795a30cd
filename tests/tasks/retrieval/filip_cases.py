"""Items in a shared space, and a toy collection whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.pairs.items import Pairs, Side, galleries_of_splits
from encoders.encoder import Encoder
from fusion.tokens import Tokens
from tasks.retrieval.two_towers import Encoded


def encoded(b: int, n: int, d: int, rng: torch.Generator, keep: Tensor | None = None) -> Encoded:
    """Random unit tokens; the global vector is independent of them."""
    x = F.normalize(torch.randn(b, n, d, generator=rng), dim=-1)
    keep = torch.ones(b, n, dtype=torch.bool) if keep is None else keep
    return Encoded(Tokens(x, keep), F.normalize(torch.randn(b, d, generator=rng), dim=-1))


def leaves(items: Encoded) -> Encoded:
    """The same items, asking for gradients."""
    return Encoded(
        Tokens(items.x.detach().clone().requires_grad_(), items.keep),
        items.global_vector.detach().clone().requires_grad_(),
    )


def same_rows(left: list[int], right: list[int]) -> np.ndarray:
    """Item i belongs to item i."""
    return np.equal.outer(np.asarray(left), np.asarray(right))


class Vectors(Encoder):
    """Vectors cut into tokens of equal width; a learned layer unless frozen."""

    modality = "vectors"

    def __init__(self, width: int, frozen: bool = True):
        super().__init__()
        self.width, self.frozen = width, frozen
        self.layer = nn.Identity() if frozen else nn.Linear(width, width)

    def forward(self, raw: np.ndarray) -> Tokens:
        return Tokens.full(self.layer(torch.from_numpy(raw).float().reshape(len(raw), -1, self.width)))


def toy_pairs(items: int = 120, noise: float = 0.1) -> Pairs:
    """Two linear views of the same hidden points; attributes `sign` and `size` are read off two hidden axes."""
    draw = np.random.default_rng(0)
    hidden = draw.standard_normal((items, 6))
    views = [hidden @ draw.standard_normal((6, 24)) + noise * draw.standard_normal((items, 24)) for _ in range(2)]
    left, right = (view.astype(np.float32) for view in views)
    ids = [f"item{k}" for k in range(items)]
    split = ["train"] * (items // 2) + ["val"] * (items // 4) + ["test"] * (items - items // 2 - items // 4)
    table = pd.DataFrame(
        {
            "split": split,
            "sign": np.where(hidden[:, 0] > 0, "plus", "minus"),
            "size": np.where(np.abs(hidden[:, 1]) > 0.7, "large", "small"),
        },
        index=ids,
    )
    return Pairs(
        "toy",
        Side("vectors", ids, lambda rows: left[list(rows)]),
        Side("vectors", ids, lambda rows: right[list(rows)]),
        [(k,) for k in range(items)],
        table,
        table,
        galleries_of_splits(table, table),
        ("sign", "size"),
    )
