"""One decoder for everybody, where all brains lie on one grid: the only way to score a subject without any sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from data.brain.brain import Brain, Brains, VoxelSpace
from data.errors import DataError
from tasks.fmri.decoder import Decoder, Scores

EVERYBODY = "everybody"


class Pooled(Decoder):
    """Fit a decoder to the samples of all subjects as if they were one person's, on the voxels that all of them have.

    Meant for images in one space, such as fMRIPrep's MNI152NLin2009cAsym; what people share is what lies at the same
    place, so expect less than from adapters. Brains without a place must have voxels of equal number and meaning.

    Args:
        decoder: fitted to everybody's samples
    """

    cross_subject = True

    def __init__(self, decoder: Decoder):
        self.decoder = decoder

    def fit(self, brains: Brains, train: Sequence[str], *, seed: int, folder: Path | None = None) -> Pooled:
        """Fit.

        Raises:
            DataError: the subjects lie on several grids, or have no voxel in common
        """
        self.common = common_voxels(brains)
        self.decoder.fit(self._one(brains), [_renamed(i) for i in train], seed=seed, folder=folder)
        return self

    def scores(self, brains: Brains, test: Sequence[str]) -> Scores:
        found = self.decoder.scores(self._one(brains), [_renamed(i) for i in test])
        return Scores(list(test), found.matrix, found.candidates)

    def maps(self, brains: Brains) -> dict[str, dict[str, Float[np.ndarray, " x"]]]:
        """The weights of the common voxels, at their places in every subject."""
        found: dict[str, dict[str, np.ndarray]] = {}
        for name, values in self.decoder.maps(self._one(brains)).get(EVERYBODY, {}).items():
            for subject, inside in self.common.items():
                whole = np.zeros(len(inside), dtype=values.dtype)
                whole[inside] = values
                found.setdefault(subject, {})[name] = whole
        return found

    def _one(self, brains: Brains) -> Brains:
        """Everybody as one person; runs keep their subject's name."""
        strange = [subject for subject in brains.subjects if subject not in self.common]
        if strange:
            raise DataError(f"subject {strange[0]}: not among the subjects whose common voxels were pooled; train anew")
        x = np.concatenate([brain.x[:, self.common[subject]] for subject, brain in brains.subjects.items()])
        table = brains.table.assign(subject=EVERYBODY, run=brains.table["subject"] + "-" + brains.table["run"])
        table.index = table.index.map(_renamed)
        return replace(brains, subjects={EVERYBODY: Brain(EVERYBODY, x, table)})


def common_voxels(brains: Brains) -> dict[str, Bool[np.ndarray, " x"]]:
    """Which columns of each subject are voxels that everybody has.

    Raises:
        DataError: the subjects lie on several grids, or have no voxel in common
    """
    spaces = {subject: brain.space for subject, brain in brains.subjects.items()}
    known = {subject: space for subject, space in spaces.items() if space is not None}
    if len(known) < len(spaces):
        widths = {subject: brain.x.shape[1] for subject, brain in brains.subjects.items()}
        (first, wide), *others = widths.items()
        for subject, own in others:
            if own != wide:
                raise DataError(
                    f"Pooled: {wide} voxels in subject {first} and {own} in subject {subject}, their places not known; "
                    "give all subjects in one space, or a decoder with adapters"
                )
        return {subject: np.ones(wide, dtype=bool) for subject in widths}
    first, space = next(iter(known.items()))
    inside = space.mask.copy()
    for subject, other in known.items():
        if not _same_grid(space, other):
            raise DataError(
                f"Pooled: subjects {first} and {subject} lie on different grids; give all subjects in one space "
                "(fMRIPrep: space: MNI152NLin2009cAsym), or a decoder with adapters"
            )
        inside &= other.mask
    if not inside.any():
        raise DataError("Pooled: the subjects have no voxel in common; check their masks")
    return {subject: inside[own.mask] for subject, own in known.items()}


def _same_grid(a: VoxelSpace, b: VoxelSpace) -> bool:
    return a.mask.shape == b.mask.shape and bool(np.allclose(a.affine, b.affine, atol=1e-2))


def _renamed(sample: str) -> str:
    return f"{EVERYBODY}/{sample}"
