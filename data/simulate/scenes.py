"""Scenes whose truth is known: coloured shapes on a grid of four places, and captions that say what stands where."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, UInt8

from data.pairs.items import Pairs, PairSource, Side, galleries_of_splits, split_of

COLOURS = {
    "red": (214, 40, 40),
    "green": (46, 139, 87),
    "blue": (38, 84, 200),
    "yellow": (240, 200, 30),
    "purple": (128, 60, 160),
    "black": (30, 30, 30),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring")
PLACES = ("upper left", "upper right", "lower left", "lower right")
ATTRIBUTES = ("colour", "shape", "things")
FINENESS = 4
"""Samples per pixel and direction, for smooth edges."""
KEPT = 4096
"""Pictures that are kept once painted: an epoch would paint them all again."""


class Thing(NamedTuple):
    """One shape of a scene.

    Attributes:
        colour, shape: one of COLOURS and SHAPES
        place: index of PLACES
        size: share of its place that it fills, 0 to 1
    """

    colour: str
    shape: str
    place: int
    size: float

    @property
    def words(self) -> str:
        return f"{self.colour} {self.shape} {PLACES[self.place]}"


class Scenes(PairSource):
    """Pictures of one to four coloured shapes and captions such as `red circle upper left, blue ring lower right`.

    No two scenes hold the same things in the same places. Scenes are split by what stands in them, whatever the
    places, so that a test scene is a combination that was never learnt from. Attributes: `colour` and `shape` of the
    largest thing, and how many `things` there are. `truth` says where each thing is, for pictures of which patch
    matched which word.

    Args:
        scenes: how many
        side: pixels; must be even
        most: things in a scene at most, 1 to 4
        noise: standard deviation of the grey noise on every pixel, in steps of 255
        seed: of everything
    """

    def __init__(self, scenes: int = 600, side: int = 48, most: int = 3, noise: float = 6.0, seed: int = 0):
        if scenes < 10:
            raise ValueError(f"scenes={scenes}: expected at least 10")
        if not 1 <= most <= len(PLACES):
            raise ValueError(f"most={most}: expected 1 to {len(PLACES)}")
        if side < 16 or side % 2:
            raise ValueError(f"side={side}: expected an even number, at least 16")
        if most == 1 and scenes > len(COLOURS) * len(SHAPES) * len(PLACES):
            raise ValueError(f"scenes={scenes}: with most=1 there are {len(COLOURS) * len(SHAPES) * len(PLACES)}")
        self.scenes, self.side, self.most, self.noise, self.seed = scenes, side, most, noise, seed
        self._truth: list[list[Thing]] = []

    @property
    def truth(self) -> list[list[Thing]]:
        """What stands in each scene, in the order of the caption."""
        self.load()
        return self._truth

    def _read(self) -> Pairs:
        rng = np.random.default_rng(self.seed)
        drawn: dict[frozenset[str], list[Thing]] = {}
        while len(drawn) < self.scenes:
            things = drawn_things(int(rng.integers(1, self.most + 1)), rng)
            drawn.setdefault(frozenset(thing.words for thing in things), things)
        self._truth = list(drawn.values())
        captions = [", ".join(thing.words for thing in things) for things in self._truth]
        ids = [f"scene-{row}" for row in range(self.scenes)]
        largest = [max(things, key=lambda thing: thing.size) for things in self._truth]
        what = [" ".join(sorted(f"{t.colour} {t.shape}" for t in things)) for things in self._truth]
        table = pd.DataFrame(
            {
                "split": [split_of(f"{self.seed} {content}") for content in what],
                "colour": [thing.colour for thing in largest],
                "shape": [thing.shape for thing in largest],
                "things": [str(len(things)) for things in self._truth],
                "attribution": "generated",
                "licence": "CC0",
            },
            index=ids,
        )
        right_ids = [f"caption-{row}" for row in range(self.scenes)]
        right_table = pd.DataFrame({"split": table["split"].to_numpy()}, index=right_ids)

        @lru_cache(KEPT)
        def picture(row: int) -> UInt8[np.ndarray, "3 y x"]:
            return painted(self._truth[row], self.side, self.noise, (self.seed, row))

        def pictures(rows: Sequence[int]) -> UInt8[np.ndarray, "b 3 y x"]:
            return np.stack([picture(int(row)) for row in rows])

        return Pairs(
            "scenes",
            Side("image", ids, pictures),
            Side("text", right_ids, lambda rows: [captions[row] for row in rows]),
            [(row,) for row in range(self.scenes)],
            table,
            right_table,
            galleries_of_splits(table, right_table),
            ATTRIBUTES,
            [f"{self.scenes} generated scenes"],
        )


def drawn_things(number: int, rng: np.random.Generator) -> list[Thing]:
    """Things in different places, in any order."""
    colours = list(COLOURS)
    return [
        Thing(
            colours[int(rng.integers(len(colours)))],
            SHAPES[int(rng.integers(len(SHAPES)))],
            int(place),
            float(rng.uniform(0.55, 0.95)),
        )
        for place in rng.permutation(len(PLACES))[:number]
    ]


def painted(things: Sequence[Thing], side: int, noise: float, seed: int | Sequence[int]) -> UInt8[np.ndarray, "3 y x"]:
    """A scene on light grey.

    Args:
        things: what stands in it
        side: pixels, even
        noise: standard deviation of the grey noise
        seed: of the noise
    """
    half = side // 2
    picture = np.full((3, side, side), 235.0)
    for thing in things:
        y, x = (half * part for part in divmod(thing.place, 2))
        cover = covered(thing.shape, half, thing.size)
        ground = picture[:, y : y + half, x : x + half]
        ground += cover * (np.array(COLOURS[thing.colour])[:, None, None] - ground)
    grain = np.random.default_rng(seed).normal(0, noise, (1, side, side)) if noise else 0.0
    return np.clip(np.rint(picture + grain), 0, 255).astype(np.uint8)


def covered(shape: str, side: int, size: float) -> np.ndarray:
    """Share of each pixel of a place that a shape covers, `[side, side]`."""
    at = ((np.arange(side * FINENESS) + 0.5) / (side * FINENESS) * 2 - 1) / size
    y, x = np.meshgrid(at, at, indexing="ij")
    inside = _inside(shape, y, x)
    return inside.reshape(side, FINENESS, side, FINENESS).mean(axis=(1, 3))


def _inside(shape: str, y: np.ndarray, x: np.ndarray) -> Bool[np.ndarray, "y x"]:
    """Which points of the square from -1 to 1 belong to a shape."""
    away = np.hypot(y, x)
    if shape == "circle":
        return away <= 0.9
    if shape == "ring":
        return (away <= 0.9) & (away >= 0.5)
    if shape == "square":
        return np.maximum(abs(y), abs(x)) <= 0.8
    if shape == "triangle":
        return (y <= 0.8) & (abs(x) <= (y + 0.9) / 1.7 * 0.95)
    return (np.minimum(abs(y), abs(x)) <= 0.3) & (np.maximum(abs(y), abs(x)) <= 0.9)
