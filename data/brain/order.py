"""Orders: names as people count them, and draws that stay even."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd


def spread(labels: Sequence[str] | pd.Series, draw: np.random.Generator) -> np.ndarray:
    """A random order whose every beginning holds the classes evenly: one of each, then a second of each."""
    shuffled = draw.permutation(len(labels))
    drawn = pd.Series(np.asarray(labels, dtype=object)[shuffled])
    return shuffled[np.argsort(drawn.groupby(drawn).cumcount().to_numpy(), kind="stable")]


def natural(name: str) -> tuple[list[tuple[int, int | str]], str]:
    """A sort key under which run10 comes after run2, and 01 before 1."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name)], name
