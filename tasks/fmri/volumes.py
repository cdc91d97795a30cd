"""Learn from every volume, decide on blocks: more samples of the noise for a decoder that estimates its covariance.

A block mean of nine volumes is one sample where there were nine. What a decoder learns from volumes (class means, noise
covariance, penalty in units of a volume's noise) applies to block means as they are, because the score of a mean is the
mean of the scores of a linear decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data.brain.brain import Brains, BrainSource
from data.errors import DataError
from tasks.fmri.decoder import Decoder, Scores


class FromVolumes(Decoder):
    """Fit a decoder on the volumes of the training runs and score whatever samples are asked for.

    Args:
        decoder: a linear baseline
        volumes: the same recordings, cleaned alike, with one sample per volume
    """

    def __init__(self, decoder: Decoder, volumes: BrainSource):
        self.decoder, self.volumes = decoder, volumes

    @property
    def cross_subject(self) -> bool:  # type: ignore[override]
        return self.decoder.cross_subject

    def fit(self, brains: Brains, train: Sequence[str], *, seed: int, folder: Path | None = None) -> FromVolumes:
        """Fit on every volume of the runs of `train`.

        Raises:
            DataError: the volumes lack a run, have other voxels or other candidates
        """
        finer = self.volumes.load()
        if finer.candidates != brains.candidates or finer.truth != brains.truth:
            raise DataError(f"{finer.name}: its candidates are not those of {brains.name}; give the same recordings")
        self.runs = _runs(brains, train)
        for subject, brain in brains.subjects.items():
            other = finer.subjects.get(subject)
            if other is not None and other.x.shape[1] != brain.x.shape[1]:
                raise DataError(
                    f"subject {subject}: {other.x.shape[1]} voxels in volumes and {brain.x.shape[1]} in samples; "
                    "give both the same mask and cleaning"
                )
        of = finer.table["subject"] + "/" + finer.table["run"]
        missing = self.runs - set(of)
        if missing:
            raise DataError(f"{finer.name}: no volumes of run {min(missing)}; give the same recordings")
        self.decoder.fit(finer, list(of.index[of.isin(self.runs)]), seed=seed, folder=folder)
        return self

    def scores(self, brains: Brains, test: Sequence[str]) -> Scores:
        """Score samples of runs that gave no volume to the fit.

        Raises:
            DataError: a sample lies in a run of the fit, so its own volumes were learnt from
        """
        shared = self.runs & _runs(brains, test)
        if shared:
            raise DataError(
                f"run {min(shared)} is scored and its volumes were trained on; FromVolumes needs splits of whole runs"
            )
        return self.decoder.scores(brains, test)

    def maps(self, brains: Brains) -> dict[str, dict[str, Float[np.ndarray, " x"]]]:
        return self.decoder.maps(brains)


def _runs(brains: Brains, ids: Sequence[str]) -> set[str]:
    table = brains.table.loc[list(ids)]
    return set(table["subject"] + "/" + table["run"])
