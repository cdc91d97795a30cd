"""Boosted regression trees as plain arrays: fitted by scikit-learn, kept in an .npz without pickle, read by NumPy."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from data.array_files import read_npz
from data.errors import DataError


@dataclass(frozen=True)
class Trees:
    """An ensemble whose values add up to log odds.

    Attributes:
        base: log odds before the first tree
        roots: first node of each tree
        feature: which feature a node asks; -1 = a leaf
        threshold: up to and with it to the left
        left: node
        right: node
        missing_left: where a NaN goes
        value: of a leaf
    """

    base: Float[np.ndarray, ""]
    roots: Int[np.ndarray, " t"]
    feature: Int[np.ndarray, " k"]
    threshold: Float[np.ndarray, " k"]
    left: Int[np.ndarray, " k"]
    right: Int[np.ndarray, " k"]
    missing_left: Bool[np.ndarray, " k"]
    value: Float[np.ndarray, " k"]

    def log_odds(self, x: Float[np.ndarray, "p f"]) -> Float[np.ndarray, " p"]:
        """Log odds of every row."""
        rows = np.arange(len(x))[:, None]
        node = np.broadcast_to(self.roots, (len(x), len(self.roots)))
        while (inner := self.feature[node] >= 0).any():
            asked = x[rows, np.maximum(self.feature[node], 0)]
            to_left = np.where(np.isnan(asked), self.missing_left[node], asked <= self.threshold[node])
            node = np.where(inner, np.where(to_left, self.left[node], self.right[node]), node)
        return float(self.base) + self.value[node].sum(axis=1)

    def arrays(self) -> dict[str, np.ndarray]:
        return {part.name: getattr(self, part.name) for part in fields(self)}


def fit_trees(
    x: Float[np.ndarray, "p f"],
    y: Bool[np.ndarray, " p"],
    rounds: int = 300,
    rate: float = 0.05,
    leaves: int = 15,
    seed: int = 0,
) -> Trees:
    """Fit by scikit-learn's histogram gradient boosting.

    Args:
        x: features, NaN = unknown
        y: what is to be told
        rounds: trees
        rate: of learning
        leaves: of a tree, at most
        seed: of the binning
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    model = HistGradientBoostingClassifier(
        max_iter=rounds,
        learning_rate=rate,
        max_leaf_nodes=leaves,
        min_samples_leaf=20,
        l2_regularization=1.0,
        max_features=0.3,
        early_stopping=False,
        random_state=seed,
    )
    # Its threads wait for one another where cores are shared: minutes instead of seconds.
    with threadpool_limits(1):
        model.fit(x, y)
    grown = [stage[0].nodes for stage in model._predictors]
    sizes = np.array([len(nodes) for nodes in grown])
    roots = np.cumsum(sizes) - sizes
    nodes = np.concatenate(grown)
    shift = np.repeat(roots, sizes)
    leaf = nodes["is_leaf"].astype(bool)
    return Trees(
        np.asarray(model._baseline_prediction, np.float64).reshape(()),
        roots,
        np.where(leaf, -1, nodes["feature_idx"]).astype(np.int64),
        nodes["num_threshold"].astype(np.float64),
        nodes["left"] + shift,
        nodes["right"] + shift,
        nodes["missing_go_to_left"].astype(bool),
        np.where(leaf, nodes["value"], 0.0),
    )


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; nothing in it is unpickled.

    Raises:
        DataError: it is none
    """
    try:
        return read_npz(path)
    except DataError as problem:
        raise DataError(f"{path}: no trained segmenter ({problem}); train it again") from None
