"""Choose among decoders inside the training runs, so that the scored run never has a say."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from data.brain.brain import Brains
from data.brain.splits import LeaveRunsOut, Splitting
from data.errors import DataError
from tasks.fmri.decoder import Decoder, Scores
from tasks.fmri.metrics import judge


class Nested(Decoder):
    """The decoder, or the average of a few, that does best on runs held out of the training side; then fitted on all
    of it.

    Accuracy over the inner folds decides, two-way identification where accuracies are level, and then the order in
    which the decoders are given.

    Args:
        decoders: to choose among, by name
        together: largest number of decoders whose standardised scores may be averaged
        inner: how the training samples are split
    """

    def __init__(self, decoders: Mapping[str, Decoder], together: int = 1, inner: Splitting | None = None):
        if not decoders or not 1 <= together <= len(decoders):
            raise ValueError(
                f"together={together} of {len(decoders)} decoders: give decoders and 1 <= together <= that"
            )
        self.decoders, self.together = dict(decoders), together
        self.inner = LeaveRunsOut() if inner is None else inner

    @property
    def cross_subject(self) -> bool:  # type: ignore[override]
        return any(decoder.cross_subject for decoder in self.decoders.values())

    def fit(self, brains: Brains, train: Sequence[str], *, seed: int, folder: Path | None = None) -> Nested:
        """Score every decoder on the inner folds, choose, and fit what was chosen on all training samples.

        Raises:
            DataError: the training samples cannot be split again, such as those of a single run
        """
        inside = replace(brains.only(train), account=[])
        try:
            folds = self.inner.splits(inside)
        except DataError as problem:
            raise DataError(
                f"Nested cannot choose inside the {len(train)} training samples: {problem}; or name one decoder as "
                "model (model.class_path=Ridge)"
            ) from None
        held_out: dict[str, Scores] = {}
        for name, decoder in self.decoders.items():
            parts = []
            for fold in folds:
                own = folder / "nested" / name / fold.name if folder else None
                fitted = decoder.fit(inside, fold.train, seed=seed, folder=own)
                parts.append(fitted.scores(inside, fold.test))
            held_out[name] = Scores.joined(parts)
        self.table = _ranked(held_out, inside, self.together)
        self.chosen = tuple(str(self.table.index[0]).split(" + "))
        self.fitted = {}
        for name in self.chosen:
            own = folder / name if folder else None
            self.fitted[name] = self.decoders[name].fit(brains, train, seed=seed, folder=own)
        return self

    def scores(self, brains: Brains, test: Sequence[str]) -> Scores:
        return average([self.fitted[name].scores(brains, test) for name in self.chosen])

    def maps(self, brains: Brains) -> dict[str, dict[str, Float[np.ndarray, " x"]]]:
        """The maps of the first decoder chosen."""
        return self.fitted[self.chosen[0]].maps(brains)


def average(parts: Sequence[Scores]) -> Scores:
    """The mean of scores that were standardised over the candidates, sample by sample; one alone stays as it is.

    A sample whose scores are all alike counts 0 for every candidate; a candidate that scored -inf stays last.
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return Scores(
        first.ids, np.mean([_standardised(part.of(first.ids).matrix) for part in parts], axis=0), first.candidates
    )


def _standardised(matrix: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    known = np.where(np.isfinite(matrix), matrix, np.nan)
    mean, deviation = np.nanmean(known, axis=1, keepdims=True), np.nanstd(known, axis=1, keepdims=True)
    ready = (known - mean) / np.where(deviation > 0, deviation, 1.0)
    return np.where(np.isfinite(matrix), ready, matrix)


def _ranked(held_out: dict[str, Scores], brains: Brains, together: int) -> pd.DataFrame:
    """Accuracy and two-way identification of every choice on the inner folds, the best first."""
    rows = {}
    for size in range(1, together + 1):
        for names in itertools.combinations(held_out, size):
            judged = judge(average([held_out[name] for name in names]), brains.table, brains.truth)
            rows[" + ".join(names)] = judged[["accuracy", "two_way"]].mean()
    table = pd.DataFrame(rows).T
    return table.sort_values(["accuracy", "two_way"], ascending=False, kind="stable")
