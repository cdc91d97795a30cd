"""Cross-subject baselines: bring people of different voxel spaces together by what they all saw, then match templates.

All need stimuli (or classes) that people share. A candidate's template is what the others' brains say about it, so a
new person is scored even against candidates of which it gave no training sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA

from data.brain.brain import Brains
from data.brain.dissimilarity import classical_scaling
from data.errors import DataError
from tasks.fmri.baselines import Standard, correlations
from tasks.fmri.decoder import Decoder, Scores
from tasks.fmri.ridge import ridge_weights
from tasks.fmri.rsa import rdm


class SharedSpace(Decoder):
    """Orthonormal maps from each person's voxels to one space, and correlation with the mean pattern there.

    `srm` is the deterministic shared response model (Chen et al. 2015): maps and shared patterns are improved in turn.
    `procrustes` rotates everybody to the principal components of one person, the one with the most candidates seen.
    People are mapped by the candidates of their training samples; templates are means over all mapped people.

    Args:
        method: srm or procrustes
        dims: width of the shared space; at most the number of candidates that people share
        rounds: improvements of srm
    """

    cross_subject = True

    def __init__(self, method: Literal["srm", "procrustes"] = "srm", dims: int = 20, rounds: int = 10):
        if method not in ("srm", "procrustes"):
            raise ValueError(f"method={method!r}: expected srm or procrustes")
        if dims < 1 or rounds < 1:
            raise ValueError(f"dims={dims}, rounds={rounds}: both must be at least 1")
        self.method, self.dims, self.rounds = method, dims, rounds

    def fit(self, brains: Brains, train: Sequence[str], *, seed: int, folder: Path | None = None) -> SharedSpace:
        """Map every subject of `train`.

        Raises:
            DataError: a subject shares too few candidates with the others
        """
        self.standard, seen = _means(brains, train)
        full = [subject for subject in seen if len(seen[subject]) == max(map(len, seen.values()))]
        anchors = [name for name in brains.candidates if all(name in seen[subject] for subject in full)]
        dims = min(self.dims, len(anchors), *(len(s.mean) for s in self.standard.values()))
        if len(anchors) < 2:
            raise DataError(f"{brains.name}: people share {len(anchors)} candidates; alignment needs at least two")
        stacks = {subject: np.stack([seen[subject][name] for name in anchors]) for subject in full}
        shared = PCA(dims, random_state=seed).fit_transform(stacks[full[0]])
        if self.method == "srm":
            shared = self._shared(stacks, dims, shared)
        place = {name: k for k, name in enumerate(anchors)}
        self.map = {}
        for subject, patterns in seen.items():
            known = [name for name in anchors if name in patterns]
            if not known:
                raise DataError(f"subject {subject}: no training sample of a candidate that others saw; record one")
            own = np.stack([patterns[name] for name in known])
            self.map[subject] = _orthonormal(own, shared[[place[name] for name in known]])
        rows = {
            name: [patterns[name] @ self.map[subject] for subject, patterns in seen.items() if name in patterns]
            for name in brains.candidates
        }
        self.templates = {name: np.mean(own, axis=0) for name, own in rows.items() if own}
        return self

    def scores(self, brains: Brains, test: Sequence[str]) -> Scores:
        mapped = {}
        for subject, (x, _) in brains.rows(test).items():
            if subject not in self.map:
                raise DataError(f"subject {subject}: no map to the shared space; train one with some of its samples")
            mapped[subject] = self.standard[subject](x) @ self.map[subject]
        return _matched(brains, test, mapped, self.templates)

    def _shared(
        self, stacks: Mapping[str, Float[np.ndarray, "c _"]], dims: int, shared: Float[np.ndarray, "c k"]
    ) -> Float[np.ndarray, "c k"]:
        for _ in range(self.rounds):
            shared = np.mean([own @ _orthonormal(own, shared) for own in stacks.values()], axis=0)
        return shared


class RidgeAdapter(Decoder):
    """A ridge regression from a new person's voxels to the geometry the others agree on (semi-real construction).

    The space is the classical scaling of the mean RDM over the other subjects; the person's own samples train the
    regression only. Scores are correlations of the predicted point with the candidates' points.

    Args:
        alpha: penalty on the squared weights of standardised voxels
        dims: width of the space
    """

    cross_subject = True

    def __init__(self, alpha: float = 100.0, dims: int = 20):
        if not alpha > 0 or dims < 1:
            raise ValueError(f"alpha={alpha}, dims={dims}: the penalty must be above 0 and the width at least 1")
        self.alpha, self.dims = alpha, dims

    def fit(self, brains: Brains, train: Sequence[str], *, seed: int, folder: Path | None = None) -> RidgeAdapter:
        """Fit an adapter for every subject of `train`.

        Raises:
            DataError: there is one subject only, or nobody saw all candidates
        """
        self.standard, seen = _means(brains, train)
        complete = {s: p for s, p in seen.items() if len(p) == len(brains.candidates)}
        geometry = {s: rdm(np.stack([p[name] for name in brains.candidates])) for s, p in complete.items()}
        self.templates: dict[str, dict[str, np.ndarray]] = {}
        self.weights, self.mean = {}, {}
        for subject, (x, table) in brains.rows(train).items():
            others = [own for other, own in geometry.items() if other != subject]
            if not others:
                raise DataError(
                    f"subject {subject}: no other subject has training samples of all {len(brains.candidates)} "
                    "candidates, so there is no geometry to learn; give more subjects"
                )
            # Half the squared distance of unit vectors is what a correlation distance is.
            points = classical_scaling(np.sqrt(np.mean(others, axis=0)), min(self.dims, len(brains.candidates)))
            self.templates[subject] = dict(zip(brains.candidates, points, strict=True))
            target = np.stack([self.templates[subject][name] for name in table[brains.truth]])
            self.mean[subject] = target.mean(axis=0)
            self.weights[subject] = ridge_weights(self.standard[subject](x), target - self.mean[subject], self.alpha)
        return self

    def scores(self, brains: Brains, test: Sequence[str]) -> Scores:
        parts = []
        for subject, (x, table) in brains.rows(test).items():
            if subject not in self.weights:
                raise DataError(f"subject {subject}: no adapter; train one with some of its samples")
            predicted = {subject: self.standard[subject](x) @ self.weights[subject] + self.mean[subject]}
            parts.append(_matched(brains, list(table.index), predicted, self.templates[subject]))
        return Scores.joined(parts).of(test)


def _means(brains: Brains, train: Sequence[str]) -> tuple[dict[str, Standard], dict[str, dict[str, np.ndarray]]]:
    """Per subject, how its voxels are standardised and its mean pattern of each candidate it saw."""
    standards: dict[str, Standard] = {}
    seen: dict[str, dict[str, np.ndarray]] = {}
    for subject, (x, table) in brains.rows(train).items():
        standards[subject] = Standard(x)
        ready, truth = standards[subject](x), table[brains.truth].to_numpy()
        seen[subject] = {name: ready[truth == name].mean(axis=0) for name in dict.fromkeys(truth)}
    return standards, seen


def _orthonormal(own: Float[np.ndarray, "c x"], shared: Float[np.ndarray, "c k"]) -> Float[np.ndarray, "x k"]:
    """The map with orthonormal columns that brings `own` nearest to `shared`."""
    left, _, right = np.linalg.svd(own.T @ shared, full_matrices=False)
    return left @ right


def _matched(
    brains: Brains,
    test: Sequence[str],
    mapped: Mapping[str, Float[np.ndarray, "_ k"]],
    templates: Mapping[str, Float[np.ndarray, " k"]],
) -> Scores:
    names = list(templates)
    patterns = np.stack([templates[name] for name in names])
    column = {name: k for k, name in enumerate(brains.candidates)}
    parts = []
    for subject, (_, table) in brains.rows(test).items():
        full = np.full((len(table), len(column)), -np.inf)
        full[:, [column[name] for name in names]] = correlations(mapped[subject], patterns)
        parts.append(Scores(list(table.index), full, list(brains.candidates)))
    return Scores.joined(parts).of(test)
