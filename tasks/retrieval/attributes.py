"""How good attribute spaces are: ranking by an attribute, and what a space still tells about the others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.errors import DataError
from tasks.retrieval.metrics import per_query
from tasks.retrieval.triplets import MISSING, Values

QUERIES = 0.2
PROBE_PENALTY = 1e-2


def asked(ids: Sequence[str], share: float = QUERIES) -> Bool[np.ndarray, " n"]:
    """Which items ask and which are searched (query : candidate = 1 : 4), the same on every machine."""
    numbers = [int.from_bytes(hashlib.sha256(f"query {name}".encode()).digest()[:8], "big") for name in ids]
    return np.array(numbers, dtype=np.float64) / 2**64 < share


def precision_per_query(
    space: Float[Tensor, "n d"], codes: Int[np.ndarray, " n"], queries: Bool[np.ndarray, " n"]
) -> pd.DataFrame:
    """Rank the candidates of every query by cosine; an answer is right if it has the query's value.

    Args:
        space: unit embeddings under the condition
        codes: values of the attribute, -1 = missing (neither asks nor is searched)
        queries: which items ask; the others are candidates

    Returns:
        as `metrics.per_query`, queries without any right candidate left out

    Raises:
        DataError: nobody asks or nothing is searched
    """
    known = codes != MISSING
    ask, search = np.flatnonzero(known & queries), np.flatnonzero(known & ~queries)
    if not len(ask) or not len(search):
        raise DataError(f"{len(ask)} queries and {len(search)} candidates know the attribute; one of each is needed")
    truth = torch.from_numpy(codes[ask][:, None] == codes[search])
    return per_query(space[ask] @ space[search].T, truth)


def mean_average_precision(
    spaces: Float[Tensor, "n k d"], values: Values, rows: Sequence[int], ids: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """`precision_per_query` of every attribute in its own space.

    Args:
        spaces: unit embeddings of `rows` under every condition
        values: of all items of the collection
        rows: the items that are looked at
        ids: of the same items; they decide who asks
    """
    queries = asked(ids)
    return {
        name: precision_per_query(spaces[:, k], values.codes[list(rows), k], queries)
        for k, name in enumerate(values.names)
    }


def entanglement(
    train: Float[Tensor, "n k d"], test: Float[Tensor, "m k d"], train_codes: Int[np.ndarray, "n k"],
    test_codes: Int[np.ndarray, "m k"], names: Sequence[str],
) -> pd.DataFrame:  # fmt: skip
    """What every space tells about every attribute: accuracy of a linear probe on the test items.

    The probe is a ridge regression on one column per class. A good matrix has a strong diagonal, and elsewhere what
    always naming the most frequent training class would reach.

    Args:
        train, test: unit embeddings under every condition
        train_codes, test_codes: values, -1 = missing
        names: of conditions and attributes

    Returns:
        one row per pair: space, attribute, accuracy, majority, n
    """
    rows = []
    for space, space_name in enumerate(names):
        for attribute, name in enumerate(names):
            known, seen = (codes[:, attribute] != MISSING for codes in (train_codes, test_codes))
            if not known.any() or not seen.any():
                continue
            classes, own = np.unique(train_codes[known, attribute], return_inverse=True)
            truth = test_codes[seen, attribute]
            x, y = (part.double().numpy() for part in (train[known, space], test[seen, space]))
            mean = x.mean(axis=0)
            gram = (x - mean).T @ (x - mean) + PROBE_PENALTY * len(x) / x.shape[1] * np.eye(x.shape[1])
            target = np.eye(len(classes))[own]
            weights = np.linalg.solve(gram, (x - mean).T @ (target - target.mean(axis=0)))
            said = classes[((y - mean) @ weights + target.mean(axis=0)).argmax(axis=1)]
            most = classes[np.bincount(own).argmax()]
            rows.append(
                {
                    "space": space_name,
                    "attribute": name,
                    "accuracy": float((said == truth).mean()),
                    "majority": float((most == truth).mean()),
                    "n": len(truth),
                }
            )
    return pd.DataFrame(rows)


def separation(spaces: Float[Tensor, "n k d"]) -> Float[Tensor, "k k"]:
    """1 - mean |cosine| between an item's embeddings under two conditions; 0 on the diagonal."""
    return 1 - torch.einsum("nkd,njd->nkj", spaces, spaces).abs().mean(dim=0)
