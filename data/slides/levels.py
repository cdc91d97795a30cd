"""The pyramid of a slide: what every backend offers, in the pixels of one level."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

Pixels = UInt8[np.ndarray, "_ _ 3"]
WHITE = 255


@dataclass(frozen=True)
class Level:
    """One resolution of the pyramid.

    Attributes:
        width, height: pixels of this level
        down_x, down_y: level-0 pixels per pixel of this level
    """

    width: int
    height: int
    down_x: float
    down_y: float

    @property
    def down(self) -> float:
        return (self.down_x + self.down_y) / 2


def pyramid(sizes: list[tuple[int, int]]) -> tuple[Level, ...]:
    """Levels from their `(width, height)`.

    Writers shrink by a whole number and truncate (or round up) the last row: 4443 x 3567 becomes 2221 x 1783 at exactly
    2. Where both axes fit such a whole number it is the downsample; otherwise the ratio of the sizes is, per axis.
    """
    width, height = sizes[0]
    levels = []
    for w, h in sizes:
        whole = round((width / w + height / h) / 2)
        if w in (width // whole, -(-width // whole)) and h in (height // whole, -(-height // whole)):
            levels.append(Level(w, h, float(whole), float(whole)))
        else:
            levels.append(Level(w, h, width / w, height / h))
    return tuple(levels)


@dataclass(frozen=True)
class Resolution:
    """Microns per pixel at level 0 and where the number comes from.

    Attributes:
        mpp: micrometres, None when nothing gives it
        source: "header", "objective power", "mpp table", "source mpp" or "missing"
        warnings: what a reader of the summary should know
    """

    mpp: float | None
    source: str
    warnings: tuple[str, ...] = ()


@dataclass
class Slide(ABC):
    """An opened slide. Close it, or use it in a `with` statement.

    Attributes:
        path: the file
        levels: finest first
        resolution: of level 0
        properties: vendor, objective power and what else the header says
    """

    path: Path
    levels: tuple[Level, ...]
    resolution: Resolution
    properties: dict[str, str] = field(default_factory=dict)

    @property
    def width(self) -> int:
        return self.levels[0].width

    @property
    def height(self) -> int:
        return self.levels[0].height

    @abstractmethod
    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Pixels `[y, y + height) x [x, x + width)` of a level, in that level's own pixels; white outside the slide."""

    @abstractmethod
    def close(self) -> None:
        """Give the file back."""

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
