"""Small brains with a known answer, for the tests of this folder."""

from __future__ import annotations

import numpy as np

from data.brain.brain import Brain, Brains, sample_table

CLASSES = ["cat", "chair", "face", "house"]


def blocks(runs: int = 6, voxels: int = 40, signal: float = 1.0, seed: int = 0, subjects: int = 1) -> Brains:
    """Every run shows each class once, in an order of its own; patterns are random, noise has unit variance."""
    draw = np.random.default_rng(seed)
    people = {}
    for k in range(subjects):
        name = f"{k + 1:02d}"
        labels = [str(label) for _ in range(runs) for label in draw.permutation(CLASSES)]
        patterns = draw.standard_normal((len(CLASSES), voxels + k))
        x = signal * patterns[[CLASSES.index(label) for label in labels]]
        x = x + draw.standard_normal(x.shape)
        run = [f"run-{i // len(CLASSES) + 1}" for i in range(len(labels))]
        people[name] = Brain(name, x.astype(np.float32), sample_table(name, run, [0.0] * len(labels), labels))
    return Brains("made", people, [], CLASSES)


def geometry(people: int = 4, stimuli: int = 30, dims: int = 6, noise: float = 0.1, seed: int = 0) -> Brains:
    """One geometry of stimuli, in a voxel space of each person's own; two runs show every stimulus once each."""
    draw = np.random.default_rng(seed)
    points = draw.standard_normal((stimuli, dims))
    names = [f"image{k:02d}" for k in range(stimuli)]
    brains = {}
    for k in range(people):
        subject = f"{k + 1:02d}"
        voxels = 50 + 7 * k
        turned = points @ np.linalg.qr(draw.standard_normal((voxels, dims)))[0].T
        order = np.concatenate([draw.permutation(stimuli) for _ in range(2)])
        x = turned[order] + noise * draw.standard_normal((2 * stimuli, voxels))
        shown = [names[i] for i in order]
        run = ["run-1"] * stimuli + ["run-2"] * stimuli
        table = sample_table(subject, run, [0.0] * len(run), ["image"] * len(run), shown)
        brains[subject] = Brain(subject, x.astype(np.float32), table)
    return Brains("geometry", brains, [], names, "stimulus")
