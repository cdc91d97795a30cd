"""Semi-real brains: measured geometries of 15 people and how they differ, in simulated voxels with simulated noise."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from data.brain.brain import Brain, Brains, BrainSource, sample_table
from data.brain.dissimilarity import Dissimilarities, classical_scaling, read_conditions, read_rdms
from data.errors import DataError
from data.sources import resolve


class SemiRealBrains(BrainSource):
    """People whose dissimilarity matrices were measured, given voxels of their own.

    Each person's RDM becomes points by classical scaling, a random rotation takes them into that person's voxel space,
    and each presentation adds Gaussian noise. Geometry and the differences between people are real; voxels and noise
    are simulated, so a result here says that transfer through these geometries works, not that scanners allow it.
    Presentations are independent given the image: runs hold nothing in common, and cutting them leaks nothing.

    `targets` are the points of the mean RDM of everybody but `new`: nothing of the new person is in them.

    Args:
        rdms: people x images x images; a path, or a place in an imported data set
        conditions: TSV with a row per image and the column `category`; None = images have no class
        new: the person the targets must know nothing of; None = the targets are everybody's mean
        dims: of the points
        voxels: fewest and most voxels of a person
        noise: standard deviation of a presentation's noise, in that of the voxels' signal
        repeats: presentations of each image, a run each
        seed: of voxel spaces and noise; a person's are the same whoever is new
    """

    def __init__(
        self,
        rdms: str = "fmri/rdms_92images/fmri_IT_RDMs.npz",
        conditions: str | None = "fmri/rdms_92images/labels.tsv",
        new: str | None = None,
        dims: int = 20,
        voxels: tuple[int, int] = (300, 600),
        noise: float = 0.5,
        repeats: int = 1,
        seed: int = 0,
    ):
        if not 0 < dims <= voxels[0] <= voxels[1]:
            raise ValueError(f"dims={dims}, voxels={list(voxels)}: dims at least 1, and no more than voxels")
        if noise < 0 or repeats < 1:
            raise ValueError(f"noise={noise:g}, repeats={repeats}: noise not negative, repeats at least 1")
        self.rdms, self.conditions, self.new, self.dims = rdms, conditions, new, dims
        self.voxels, self.noise, self.repeats, self.seed = voxels, noise, repeats, seed

    def without(self, new: str) -> SemiRealBrains:
        """The same people and noise, with targets that know nothing of this one."""
        other = SemiRealBrains(
            self.rdms, self.conditions, new, self.dims, self.voxels, self.noise, self.repeats, self.seed
        )
        if self._brains is not None:
            other._brains = other._aimed(self._brains)
        return other

    def read(self) -> Brains:
        measured, kinds = _measured(self.rdms, self.conditions)
        names = measured.conditions
        streams = np.random.SeedSequence(self.seed).spawn(len(measured.people))
        subjects = {
            person: self._brain(person, rdm, kinds, names, np.random.default_rng(stream))
            for person, rdm, stream in zip(measured.people, measured.values, streams, strict=True)
        }
        account = [
            f"semi-real: {len(subjects)} measured geometries of {len(names)} images in {self.dims} dimensions; voxel "
            f"spaces of {self.voxels[0]} to {self.voxels[1]} and noise {self.noise:g} times the signal are simulated, "
            f"seed {self.seed}"
        ]
        return self._aimed(Brains("semi-real brains (simulated voxels)", subjects, account, sorted(names), "stimulus"))

    def _brain(
        self, person: str, rdm: np.ndarray, kinds: list[str], names: list[str], draw: np.random.Generator
    ) -> Brain:
        points = classical_scaling(rdm, self.dims)
        voxels = int(draw.integers(self.voxels[0], self.voxels[1] + 1))
        rotation = np.linalg.qr(draw.normal(size=(voxels, self.dims)))[0]
        signal = points @ rotation.T
        order = np.concatenate([draw.permutation(len(names)) for _ in range(self.repeats)])
        x = signal[order] + self.noise * signal.std() * draw.normal(size=(len(order), voxels))
        run = [f"run-{k + 1}" for k in range(self.repeats) for _ in names]
        unknown = [float("nan")] * len(order)
        table = sample_table(person, run, unknown, [kinds[k] for k in order], [names[k] for k in order])
        return Brain(person, x.astype(np.float32), table)

    def _aimed(self, brains: Brains) -> Brains:
        """With the targets of these people but the new one."""
        measured, _ = _measured(self.rdms, self.conditions)
        if self.new is not None and self.new not in measured.people:
            raise DataError(f"{self.rdms}: no person {self.new}; there are {', '.join(measured.people)}")
        others = measured if self.new is None else measured.without(self.new)
        points = classical_scaling(others.mean(), self.dims)
        names = measured.conditions
        order = sorted(range(len(names)), key=names.__getitem__)
        said = "everybody" if self.new is None else f"everybody but {self.new}"
        account = [line for line in brains.account if not line.startswith("targets")]
        account.append(f"targets: the points of the mean geometry of {said}")
        return replace(brains, account=account, targets=points[order].astype(np.float32))


@lru_cache(maxsize=4)
def _measured(rdms: str, conditions: str | None) -> tuple[Dissimilarities, list[str]]:
    """The matrices, their images named, and the class of each image."""
    path = resolve(rdms)
    if conditions is None:
        found = read_rdms(path)
        return found, ["image"] * len(found.conditions)
    table = read_conditions(resolve(conditions))
    return read_rdms(path, conditions=table["name"].tolist()), table["category"].tolist()
