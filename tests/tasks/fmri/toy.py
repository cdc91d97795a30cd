"""Small brains with a known pattern per class, for everything that runs a config from end to end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.brain.brain import Brain, Brains, BrainSource, VoxelSpace, sample_table
from data.errors import DataError
from tasks.fmri.decoder import Decoder, Scores

CLASSES = ["cat", "face", "house"]
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])


class ToyBrains(BrainSource):
    """Runs of one block per class in a shuffled order: a pattern per class, plus noise.

    Args:
        subjects: labels
        runs: of every subject
        noise: standard deviation beside patterns of standard deviation 1
        lag: anything but 0 decodes noise
        broken: labels whose file cannot be read; the others go on
        affine: False = nobody knows where the voxels are
    """

    def __init__(
        self,
        subjects: list[str] | None = None,
        runs: int = 4,
        noise: float = 1.0,
        lag: float = 0.0,
        broken: list[str] | None = None,
        affine: bool = True,
    ):
        self.labels, self.runs, self.noise, self.lag = subjects or ["01"], runs, noise, lag
        self.broken, self.affine = broken or [], affine

    def read(self) -> Brains:
        account, found = [f"{len(self.labels)} subjects in toy"], {}
        for k, subject in enumerate(self.labels):
            if subject in self.broken:
                account.append(f"left out: sub-{subject}_bold.nii.gz: the file ends before its data do; copy it again")
            else:
                found[subject] = self._brain(subject, k)
        if not found:
            raise DataError(account[-1].removeprefix("left out: "))
        return Brains("toy", found, account, CLASSES, ceiling=1.0)

    def _brain(self, subject: str, seed: int) -> Brain:
        rng = np.random.default_rng(seed)
        mask = np.zeros((5, 4, 3), dtype=bool)
        mask[1:4, 1:3] = True
        pattern = dict(zip(CLASSES, rng.standard_normal((3, int(mask.sum()))), strict=True))
        run, label = [], []
        for r in range(self.runs):
            run += [str(r + 1)] * 3
            label += list(rng.permutation(CLASSES))
        signal = np.stack([pattern[name] for name in label]) * (self.lag == 0)
        x = (signal + self.noise * rng.standard_normal(signal.shape)).astype(np.float32)
        table = sample_table(subject, run, [20.0 * (i % 3) for i in range(len(run))], [str(name) for name in label])
        return Brain(subject, x, table, VoxelSpace(mask, AFFINE) if self.affine else None)


class Guess(Decoder):
    """Scores drawn from the seed alone."""

    cross_subject = True

    def fit(self, brains: Brains, train: Sequence[str], *, seed: int, folder: Path | None = None) -> Guess:
        self.seed = seed
        return self

    def scores(self, brains: Brains, test: Sequence[str]) -> Scores:
        drawn = np.random.default_rng(self.seed).standard_normal((len(test), len(brains.candidates)))
        return Scores(list(test), drawn, list(brains.candidates))
