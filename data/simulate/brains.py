"""Brains whose truth is known: one geometry of stimuli, seen through each subject's own voxels and noise."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from data.brain.brain import Brain, Brains, BrainSource, VoxelSpace, sample_table

_EDGE, _MILLIMETRES = 12, 4.0
_DRAWS = 4000


class SimulatedBrains(BrainSource):
    """Several people who see the same stimuli, run by run.

    A stimulus is a point: its class's plus its own. A subject's point is shared but for a part of its own, a random map
    turns it into voxels, and every presentation has fresh Gaussian noise. Every run shows each stimulus once, in an
    order of its own, so runs, positions and other subjects' order tell nothing. `targets` are the shared points.

    Args:
        subjects: how many people
        classes: how many classes
        stimuli: how many per class
        runs: how many per subject
        dims: of the geometry
        voxels: fewest and most voxels of a subject
        noise: standard deviation of a presentation's noise, in that of the voxels' signal
        individual: share of a subject's geometry that is its own, 0 to 1
        within: spread of the stimuli of a class, in that of the classes
        truth: `label` to classify, `stimulus` to retrieve
        seed: of everything
    """

    def __init__(
        self,
        subjects: int = 4,
        classes: int = 6,
        stimuli: int = 1,
        runs: int = 6,
        dims: int = 8,
        voxels: tuple[int, int] = (120, 180),
        noise: float = 3.0,
        individual: float = 0.2,
        within: float = 0.5,
        truth: Literal["label", "stimulus"] = "label",
        seed: int = 0,
    ):
        for name, least in (("subjects", 1), ("classes", 2), ("stimuli", 1), ("runs", 1), ("dims", 1)):
            if locals()[name] < least:
                raise ValueError(f"{name}={locals()[name]}: at least {least}")
        if not dims <= voxels[0] <= voxels[1] <= _EDGE**3:
            raise ValueError(f"voxels={list(voxels)}: from at least dims={dims} to at most {_EDGE**3}")
        if not 0 <= individual <= 1:
            raise ValueError(f"individual={individual:g}: between 0 and 1")
        if noise < 0 or within < 0:
            raise ValueError(f"noise={noise:g}, within={within:g}: not negative")
        self.people, self.classes, self.stimuli, self.runs, self.dims = subjects, classes, stimuli, runs, dims
        self.voxels, self.noise, self.individual, self.within = voxels, noise, individual, within
        self.truth, self.seed = truth, seed

    def read(self) -> Brains:
        world, *streams = (np.random.default_rng(s) for s in np.random.SeedSequence(self.seed).spawn(1 + self.people))
        labels = [f"class{k:02d}" for k in range(self.classes) for _ in range(self.stimuli)]
        names = [f"{label}-{k:02d}" for k, label in enumerate(labels)] if self.stimuli > 1 else labels
        points = self._points(world)
        subjects, ceilings = {}, []
        for number, draw in enumerate(streams, start=1):
            subject = f"{number:02d}"
            brain, ceiling = self._brain(subject, points, labels, names, draw)
            subjects[subject] = brain
            ceilings.append(ceiling)
        shown = labels if self.truth == "label" else names
        candidates = sorted(set(shown))
        centres = np.stack([points[[s == c for s in shown]].mean(axis=0) for c in candidates])
        account = [
            f"simulated, seed {self.seed}: {self.people} subjects, {len(names)} stimuli of {self.classes} classes, "
            f"{self.runs} runs; noise {self.noise:g} times the signal, {self.individual:.0%} of each geometry its own"
        ]
        targets = centres.astype(np.float32)
        return Brains("simulated", subjects, account, candidates, self.truth, targets, float(np.mean(ceilings)))

    def _points(self, draw: np.random.Generator) -> Float[np.ndarray, "k e"]:
        centres = np.repeat(draw.normal(size=(self.classes, self.dims)), self.stimuli, axis=0)
        own = draw.normal(size=centres.shape) if self.stimuli > 1 else 0.0
        return centres + self.within * own

    def _brain(
        self,
        subject: str,
        points: Float[np.ndarray, "k e"],
        labels: list[str],
        names: list[str],
        draw: np.random.Generator,
    ) -> tuple[Brain, float]:
        """A subject and its ceiling."""
        own = draw.normal(size=points.shape) * points.std()
        seen = np.sqrt(1 - self.individual) * points + np.sqrt(self.individual) * own
        voxels = int(draw.integers(self.voxels[0], self.voxels[1] + 1))
        signal = seen @ draw.normal(size=(self.dims, voxels)) / np.sqrt(self.dims)
        spread = self.noise * signal.std()
        order = np.concatenate([draw.permutation(len(names)) for _ in range(self.runs)])
        run = [f"run-{k + 1}" for k in range(self.runs) for _ in names]
        x = signal[order] + spread * draw.normal(size=(len(order), voxels))
        onset = [4.0 * (k % len(names)) for k in range(len(order))]
        table = sample_table(subject, run, onset, [labels[k] for k in order], [names[k] for k in order])
        answers = labels if self.truth == "label" else names
        return Brain(subject, x.astype(np.float32), table, _back_of_the_head(voxels)), best_accuracy(
            signal, answers, spread, draw
        )


def best_accuracy(
    signal: Float[np.ndarray, "k x"], answers: list[str], spread: float, draw: np.random.Generator
) -> float:
    """What Bayes' rule reaches on one presentation when patterns and noise are known: nobody is expected to do better.

    Args:
        signal: the pattern of each stimulus, all equally likely
        answers: the right answer to each
        spread: standard deviation of the noise of each voxel
        draw: for a Monte Carlo average over presentations
    """
    if spread == 0:
        return 1.0
    # Noise outside the plane of the patterns says nothing, so the plane is enough.
    _, size, axes = np.linalg.svd(signal - signal.mean(axis=0), full_matrices=False)
    flat = (signal - signal.mean(axis=0)) @ axes[size > 1e-9 * size.max()].T
    shown = draw.integers(len(signal), size=_DRAWS)
    x = flat[shown] + spread * draw.normal(size=(_DRAWS, flat.shape[1]))
    fit = (x @ flat.T - 0.5 * np.square(flat).sum(axis=1)) / spread**2
    odds = np.exp(fit - fit.max(axis=1, keepdims=True))
    names = sorted(set(answers))
    member = np.array([[a == name for name in names] for a in answers], dtype=float)
    right = np.array([names.index(answers[k]) for k in shown])
    return float(((odds @ member).argmax(axis=1) == right).mean())


def _back_of_the_head(voxels: int) -> VoxelSpace:
    """The voxels nearest to the middle of a box over the occipital lobe of MNI space."""
    grid = np.stack(np.meshgrid(*[np.arange(_EDGE)] * 3, indexing="ij"), axis=-1)
    distance = np.square(grid - (_EDGE - 1) / 2).sum(axis=-1).ravel()
    mask: Bool[np.ndarray, "i j k"] = np.zeros(distance.size, dtype=bool)
    mask[np.argsort(distance, kind="stable")[:voxels]] = True
    affine = np.diag([_MILLIMETRES] * 3 + [1.0])
    affine[:3, 3] = (-22.0, -98.0, -20.0)
    return VoxelSpace(mask.reshape((_EDGE,) * 3), affine)
