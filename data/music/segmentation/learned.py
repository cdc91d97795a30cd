"""A segmenter that learns a culture's phrases: boosted trees over a window of cues, decoded by the dynamic programme.

Its parts are chosen on validation songs: what a boundary costs, and how much a phrase's length counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from data.errors import DataError
from data.music.melody import Melody
from data.music.segmentation.programme import LONGEST, Weights, best_boundaries, length_cost
from data.music.segmentation.scoring import agreement
from data.music.segmentation.trees import Trees, fit_trees, load_arrays
from data.music.segmentation.window import windows

MOST_NOTES = 5000
_LAYOUT = 1
_BIASES = tuple(np.arange(-2.0, 0.01, 0.25).tolist())
_LENGTHS = (0.0, 0.2, 0.4, 0.8, 1.2)


@dataclass(frozen=True)
class LearnedSegmenter:
    """Trained trees and how they are decoded.

    Attributes:
        trees: log odds of a boundary
        bias: subtracted from them
        length: weight of phrase lengths, see `length_cost`
        usual: notes of a usual phrase: the median of the training songs
    """

    trees: Trees
    bias: float
    length: float
    usual: float

    def __call__(self, melody: Melody) -> Bool[np.ndarray, " p"]:
        """Whether a phrase ends after each note but the last.

        Raises:
            DataError: over `MOST_NOTES` notes
        """
        if len(melody) > MOST_NOTES:
            said = f"{len(melody)} notes, over {MOST_NOTES} for a learned segmenter"
            raise DataError(f"melody {melody.name}: {said}; take the programme")
        if len(melody) == 1:
            return np.zeros(0, bool)
        return self._decode(self.trees.log_odds(windows(melody)))

    def _decode(self, odds: Float[np.ndarray, " p"]) -> Bool[np.ndarray, " p"]:
        weights = Weights(0.0, 0.0, 0.0, 0.0, self.length, self.usual, self.bias)
        return best_boundaries(odds - self.bias, length_cost(min(LONGEST, len(odds) + 1), weights))

    def save(self, path: Path) -> None:
        """Write an .npz of plain arrays."""
        arrays: dict[str, Any] = self.trees.arrays()
        with path.open("wb") as file:
            np.savez_compressed(file, settings=[_LAYOUT, self.bias, self.length, self.usual], **arrays)

    @classmethod
    def load(cls, path: Path) -> LearnedSegmenter:
        """Read what `save` wrote.

        Raises:
            DataError: it is not of this layout
        """
        arrays = load_arrays(path)
        settings = arrays.pop("settings", np.zeros(0))
        if settings.shape != (4,) or settings[0] != _LAYOUT:
            raise DataError(f"{path}: no trained segmenter of this version; train it again")
        try:
            return cls(Trees(**arrays), *settings[1:].tolist())
        except TypeError as problem:
            raise DataError(f"{path}: no trained segmenter ({problem}); train it again") from None


def fit_segmenter(train: Sequence[Melody], valid: Sequence[Melody], rounds: int = 300) -> LearnedSegmenter:
    """Fit trees on training songs, then choose bias and length weight by F1 on validation songs.

    Args:
        train: songs with phrases
        valid: others
        rounds: trees

    Raises:
        DataError: songs without phrases, or none to choose by
    """
    parts = [[song for song in part if len(song) > 1] for part in (train, valid)]
    if not all(parts):
        raise DataError(f"{len(train)} songs to train on and {len(valid)} to choose by; give at least one of each")
    x = np.concatenate([windows(song) for song in parts[0]])
    trees = fit_trees(x, np.concatenate([song.interiors for song in parts[0]]), rounds)
    odds = [trees.log_odds(windows(song)) for song in parts[1]]
    usual = float(np.median(np.concatenate([np.bincount(song.phrase) for song in parts[0] if song.phrase is not None])))

    def f1(segmenter: LearnedSegmenter) -> float:
        return agreement((segmenter._decode(own), song.interiors) for own, song in zip(odds, parts[1], strict=True)).f1

    return max((LearnedSegmenter(trees, *chosen, usual) for chosen in product(_BIASES, _LENGTHS)), key=f1)
