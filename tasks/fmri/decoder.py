"""What every brain decoder does, whatever it is inside: fit on training samples, score test samples against candidates.

A classifier's candidates are its classes, a retrieval model's are the stimuli of its gallery; both hand over `Scores`,
so one set of metrics judges all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from data.brain.brain import Brains
from data.brain.split import Split
from data.errors import DataError


@dataclass(frozen=True)
class Scores:
    """How well each test sample matches each candidate, higher = better.

    Args:
        ids: sample ids, one per row
        matrix: the scores
        candidates: names of the columns

    Raises:
        DataError: names and matrix disagree, a name stands twice, or a score is nan
    """

    ids: list[str]
    matrix: Float[np.ndarray, "n k"]
    candidates: list[str]

    def __post_init__(self) -> None:
        if self.matrix.shape != (len(self.ids), len(self.candidates)):
            raise DataError(
                f"scores {self.matrix.shape} for {len(self.ids)} samples and {len(self.candidates)} candidates: "
                "give one row per sample and one column per candidate"
            )
        for kind, names in (("sample", self.ids), ("candidate", self.candidates)):
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise DataError(f"scores: {kind} {twice} stands more than once; keep one of them")
        if np.isnan(self.matrix).any():
            row = int(np.isnan(self.matrix).any(axis=1).argmax())
            raise DataError(f"scores: sample {self.ids[row]} has a score that is not a number; give -inf for 'never'")

    def among(self, candidates: Sequence[str]) -> Scores:
        """The same samples scored against fewer candidates, e.g. the held-out stimuli only.

        Raises:
            DataError: a name is not among the candidates
        """
        place = {name: column for column, name in enumerate(self.candidates)}
        unknown = [name for name in candidates if name not in place]
        if unknown:
            raise DataError(f"scores: no candidate '{unknown[0]}' among {len(place)}; check the labels of the samples")
        return Scores(self.ids, self.matrix[:, [place[name] for name in candidates]], list(candidates))

    def of(self, ids: Sequence[str]) -> Scores:
        """The given samples, in the given order.

        Raises:
            DataError: a sample was not scored
        """
        place = {name: row for row, name in enumerate(self.ids)}
        unknown = [name for name in ids if name not in place]
        if unknown:
            raise DataError(f"scores: sample {unknown[0]} was not scored; score it with the same decoder first")
        return Scores(list(ids), self.matrix[[place[name] for name in ids]], self.candidates)

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> Scores:
        """The samples of several parts (subjects, folds) below one another.

        Raises:
            DataError: there are no parts, or their candidates differ
        """
        if not parts:
            raise DataError("scores: nothing to join; score at least one sample")
        if any(part.candidates != parts[0].candidates for part in parts):
            raise DataError("scores: the parts were scored against different candidates; give all the same gallery")
        ids = [name for part in parts for name in part.ids]
        return cls(ids, np.concatenate([part.matrix for part in parts]), parts[0].candidates)


@dataclass(frozen=True)
class Reconstruction:
    """What a decoder made of some samples, and what it should have made for each candidate.

    Args:
        made: a row per sample: target tokens, a latent or a picture
        shown: the same of every candidate, in the order of `brains.candidates`
    """

    made: Float[np.ndarray, "n ..."]
    shown: Float[np.ndarray, "k ..."]


class Decoder(ABC):
    """Fit on training samples of any number of subjects, then score test samples against every candidate.

    `cross_subject` says whether one fit serves all subjects together (True) or each subject has a fit of its own.
    """

    cross_subject: ClassVar[bool] = False

    @abstractmethod
    def fit(self, brains: Brains, train: Sequence[str], *, seed: int, folder: Path | None = None) -> Decoder:
        """Learn from the training samples alone; what an earlier fit learnt is forgotten.

        Args:
            brains: the data; nothing but the rows of `train` may be used
            train: ids of the training samples
            seed: of everything random
            folder: where a long fit keeps what it needs to continue; None = nothing is kept
        """

    @abstractmethod
    def scores(self, brains: Brains, test: Sequence[str]) -> Scores:
        """Score samples against `brains.candidates`, in the order of `test`.

        Raises:
            DataError: a subject of `test` was not fitted
        """

    def maps(self, brains: Brains) -> dict[str, dict[str, Float[np.ndarray, " x"]]]:
        """Voxel weights after fitting: subject -> name of the map -> one value per voxel; empty without weights."""
        return {}

    def reconstructions(self, brains: Brains, ids: Sequence[str]) -> dict[str, Reconstruction]:
        """What the decoder reconstructs of samples, by kind; empty when it only matches candidates."""
        return {}


def held_out(decoder: Decoder, brains: Brains, splits: Sequence[Split], seed: int = 0) -> Scores:
    """Fit on the training side of every fold in turn and collect the scores of what it holds out."""
    return Scores.joined([decoder.fit(brains, split.train, seed=seed).scores(brains, split.test) for split in splits])
