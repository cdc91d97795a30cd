"""Collages: four pictures in one, the caption names them in another order, and near twins share three of the four."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

PICTURES = 4
TWINS = 4


class Collage(NamedTuple):
    """Four concepts.

    Attributes:
        shown: in reading order of the picture
        told: in the order of the caption, another one
    """

    shown: tuple[str, ...]
    told: tuple[str, ...]


def drawn_collages(concepts: Sequence[str], number: int, twins: bool, rng: np.random.Generator) -> list[Collage]:
    """Collages of different concepts, no set of four twice.

    Args:
        concepts: to choose from, at least 7
        number: how many collages; with `twins`, how many groups of four collages that share three of four concepts
        twins: in groups
        rng: draws everything

    Raises:
        ValueError: too few concepts
    """
    if len(concepts) < PICTURES - 1 + TWINS:
        raise ValueError(f"collages: {len(concepts)} concepts; expected at least {PICTURES - 1 + TWINS}")
    found: list[Collage] = []
    seen: set[frozenset[str]] = set()
    left = number
    while left:
        drawn = [concepts[k] for k in rng.choice(len(concepts), PICTURES - 1 + TWINS, replace=False)]
        common, others = drawn[: PICTURES - 1], drawn[PICTURES - 1 :]
        sets = [[*common, other] for other in (others if twins else others[:1])]
        if any(frozenset(members) in seen for members in sets):
            continue
        seen.update(map(frozenset, sets))
        found += [_arranged(members, rng) for members in sets]
        left -= 1
    return found


def _arranged(members: Sequence[str], rng: np.random.Generator) -> Collage:
    shown = tuple(members[k] for k in rng.permutation(len(members)))
    told = shown
    while told == shown:
        told = tuple(members[k] for k in rng.permutation(len(members)))
    return Collage(shown, told)


def composed(four: UInt8[np.ndarray, "4 3 y x"]) -> UInt8[np.ndarray, "3 y2 x2"]:
    """Four pictures in a square of two by two, in reading order."""
    return np.concatenate([np.concatenate(list(row), axis=2) for row in (four[:2], four[2:])], axis=1)
