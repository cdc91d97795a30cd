"""What every model of music does here, whatever is inside: learn from training pieces, say how likely others are.

Song models, tables and chorale models all leave one table of measurements, so one evaluation judges all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pandas as pd

MEASURED = ("split", "case", "part", "n", "sixteenths", "nats")


class Measurement(NamedTuple):
    """How likely one part of one piece is; a row of nll.csv.

    Attributes:
        split: valid or test
        case: name of the piece
        part: what was predicted: `note`, `pitch`, `decorative pitch`, `duration`, ...; `token` for chorales
        n: how many of them the piece has
        sixteenths: length of the piece in 16ths
        nats: sum of -log p over all n
    """

    split: str
    case: str
    part: str
    n: int
    sixteenths: float
    nats: float


class MelodyModel(ABC):
    """What a melody config may name as model, rival or baseline.

    Attributes:
        seedless: True = nothing in it is random, so one seed is enough
        parts: what it predicts, the one that tables show first in front
    """

    seedless: ClassVar[bool] = False
    parts: ClassVar[tuple[str, ...]] = ("note",)

    @abstractmethod
    def fit(self, music: Any, folder: Path, seed: int) -> dict[str, Any]:
        """Learn from the pieces of the split `train`, choose on `valid`, never look at `test`.

        Args:
            music: what the config's `music` loads: a `SongBook`, or parts of chorales
            folder: of this unit; a fit that was interrupted goes on from what it left there
            seed: of weights, order and dropout

        Returns:
            facts for done.json

        Raises:
            DataError: this model cannot learn from this music
        """

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Take up what `fit` left in a unit's folder.

        Raises:
            RunError: the unit is not finished, or was trained by another version of the program
        """

    @abstractmethod
    def measure(self, music: Any, split: str) -> list[Measurement]:
        """How likely the pieces of a split are."""


def table_of(measured: list[Measurement]) -> pd.DataFrame:
    """Measurements as the table that a unit leaves."""
    return pd.DataFrame(measured, columns=list(MEASURED))
