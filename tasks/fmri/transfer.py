"""Few-shot transfer: a new subject's adapter from n labelled samples, read by a trunk that other subjects trained.

Ridge adapters carry each subject's voxels into the space of the targets. The trunk never meets an adapter that was
fitted on everything: those of the other subjects are fitted on samples of the same candidates as the new subject's n,
and the trunk learns from the outputs for all their other samples. So it knows what n samples do to an adapter.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from data.brain.brain import Brains
from data.errors import DataError
from tasks.fmri.decoder import Decoder, Scores
from tasks.fmri.models.trunks import GaussianTrunk, Trunk
from tasks.fmri.targets import GroupGeometry, Targets

NEW = 0.8
"""A subject is new who has less than this part of the median number of training samples."""

FEWEST_OTHERS = 3
"""Fewer subjects cannot tell a trunk how subjects differ."""


@dataclass(frozen=True)
class RidgeAdapter:
    """Voxels to targets, closed form; the length of the pattern goes along as one more number.

    Attributes:
        centre: what is subtracted from every pattern
        weights: `[x, e]`
        scale: root mean square length of the training patterns
        unit: root mean square length of their targets
        offset: what an average pattern is mapped to
    """

    centre: Float[np.ndarray, " x"]
    weights: Float[np.ndarray, "x e"]
    scale: float
    unit: float
    offset: Float[np.ndarray, " e"]

    @classmethod
    def fit(
        cls, x: Float[np.ndarray, "n x"], targets: Float[np.ndarray, "n e"], alpha: float, centred: bool
    ) -> RidgeAdapter:
        """Fit on n samples.

        Args:
            x: patterns
            targets: where they should go
            alpha: penalty, relative to the mean squared length of a pattern
            centred: subtract the mean of the n patterns and targets (an intercept). Patterns that were standardised
                per run have a known mean of zero, and few samples estimate it badly
        """
        x = np.asarray(x, dtype=np.float64)
        centre = x.mean(axis=0) if centred else np.zeros(x.shape[1])
        offset = targets.mean(axis=0) if centred else np.zeros(targets.shape[1])
        own = x - centre
        gram = own @ own.T
        size = float(np.trace(gram) / len(gram))
        dual = np.linalg.solve(gram + (alpha * size + 1e-12) * np.eye(len(gram)), targets - offset)
        unit = float(np.sqrt((targets**2).sum(axis=1).mean()))
        return cls(centre, own.T @ dual, max(np.sqrt(size), 1e-12), unit, offset)

    def map(self, x: Float[np.ndarray, "m x"]) -> Float[np.ndarray, "m e"]:
        """Patterns in the space of the targets."""
        return (np.asarray(x, dtype=np.float64) - self.centre) @ self.weights + self.offset

    def outputs(self, x: Float[np.ndarray, "m x"]) -> Float[np.ndarray, "m f"]:
        """What a trunk reads: the mapped pattern, and the pattern's relative length in units of the targets."""
        length = np.linalg.norm(np.asarray(x, dtype=np.float64) - self.centre, axis=1, keepdims=True)
        return np.hstack([self.map(x), length / self.scale * self.unit])


@dataclass(frozen=True)
class Fitted:
    """The decoder of one new subject."""

    adapter: RidgeAdapter
    trunk: Trunk
    alpha: float
    centred: bool


class FewShotDecoder(Decoder):
    """Trunk of the other subjects + adapter of the new one.

    New is who has less than four fifths of the median number of training samples per subject. The adapter's penalty and
    its intercept are chosen inside the other subjects: each in turn plays the new one for a trunk of the rest.

    Args:
        targets: embedding of the candidates; new subjects never shape it
        trunk: what reads the adapters' outputs
        alphas: penalties to choose from, relative to the mean squared length of a pattern
        centred: whether adapters have an intercept; None = chosen like the penalty
    """

    cross_subject: ClassVar[bool] = True

    def __init__(
        self,
        targets: Targets | None = None,
        trunk: Trunk | None = None,
        alphas: Sequence[float] = (0.1, 0.3, 1.0, 3.0),
        centred: bool | None = None,
    ):
        if not alphas or min(alphas) <= 0:
            raise ValueError(f"FewShotDecoder: alphas={list(alphas)}; expected numbers above 0")
        self.targets = GroupGeometry() if targets is None else targets
        self.trunk = GaussianTrunk() if trunk is None else trunk
        self.alphas, self.centred = list(alphas), centred

    def fit(self, brains: Brains, train: Sequence[str], *, seed: int, folder: Path | None = None) -> FewShotDecoder:
        rows = brains.rows(train)
        new = new_subjects({subject: len(x) for subject, (x, _) in rows.items()})
        others = [subject for subject in rows if subject not in new]
        if not new:
            raise DataError(
                f"{brains.name}: every subject has about as many training samples as the others, so none is new; use "
                "a FewShot split, or a decoder that is trained on all alike"
            )
        if len(others) < FEWEST_OTHERS:
            raise DataError(
                f"{brains.name}: {len(others)} subjects beside the new one; the trunk needs at least {FEWEST_OTHERS}"
            )
        tokens = self.targets.embed(brains, train, new).tokens
        self.goal = tokens.reshape(len(tokens), -1).astype(np.float64)
        column = {name: k for k, name in enumerate(brains.candidates)}
        which = {s: np.array([column[name] for name in table[brains.truth]]) for s, (_, table) in rows.items()}
        self.fitted: dict[str, Fitted] = {}
        for subject in new:
            draw = np.random.default_rng(seed)
            anchors = {q: matched(which[subject], which[q], q, draw) for q in others}
            self.fitted[subject] = self._adapted(
                rows[subject][0], which[subject], {q: (rows[q][0], which[q], anchors[q]) for q in others}, seed
            )
        return self

    def scores(self, brains: Brains, test: Sequence[str]) -> Scores:
        parts = []
        for subject, (x, table) in brains.rows(test).items():
            if subject not in self.fitted:
                raise DataError(
                    f"subject {subject} has no adapter (there are adapters of {', '.join(self.fitted)}); train one "
                    "with a few labelled samples of this subject"
                )
            own = self.fitted[subject]
            parts.append(Scores(list(table.index), own.trunk.score(own.adapter.outputs(x)), list(brains.candidates)))
        return Scores.joined(parts).of(test)

    def maps(self, brains: Brains) -> dict[str, dict[str, Float[np.ndarray, " x"]]]:
        return {s: {"adapter": np.linalg.norm(own.adapter.weights, axis=1)} for s, own in self.fitted.items()}

    def _adapted(
        self,
        x: Float[np.ndarray, "n x"],
        which: Int[np.ndarray, " n"],
        others: dict[str, tuple[np.ndarray, Int[np.ndarray, " m"], Int[np.ndarray, " a"]]],
        seed: int,
    ) -> Fitted:
        """The new subject's adapter and the trunk, at the setting that serves the other subjects best."""
        settings = list(product(self.alphas, [False, True] if self.centred is None else [self.centred]))
        if len(which) < 2:
            settings = [(alpha, False) for alpha in self.alphas]
        best: tuple[float, float, bool, list[np.ndarray], list[np.ndarray]] | None = None
        for alpha, centred in settings:
            outputs, labels = [], []
            for own, own_which, anchors in others.values():
                adapter = RidgeAdapter.fit(own[anchors], self.goal[own_which[anchors]], alpha, centred)
                rest = np.setdiff1d(np.arange(len(own)), anchors)
                outputs.append(adapter.outputs(own[rest]))
                labels.append(own_which[rest])
            reached = self._reached(outputs, labels, seed) if len(settings) > 1 else 0.0
            if best is None or reached > best[0]:
                best = (reached, alpha, centred, outputs, labels)
        assert best is not None
        _, alpha, centred, outputs, labels = best
        trunk = copy.deepcopy(self.trunk).fit(np.concatenate(outputs), np.concatenate(labels), self.goal, seed=seed)
        return Fitted(RidgeAdapter.fit(x, self.goal[which], alpha, centred), trunk, alpha, centred)

    def _reached(self, outputs: list[np.ndarray], labels: list[np.ndarray], seed: int) -> float:
        """Mean reciprocal rank of the right candidate when each other subject plays the new one.

        The linear trunk stands in for one that is slow to fit, since only the adapters are being chosen.
        """
        ranks = []
        stand_in = self.trunk if self.trunk.quick else GaussianTrunk()
        for q in range(len(outputs)):
            rest = [i for i in range(len(outputs)) if i != q]
            trunk = copy.deepcopy(stand_in).fit(
                np.concatenate([outputs[i] for i in rest]),
                np.concatenate([labels[i] for i in rest]),
                self.goal,
                seed=seed,
            )
            scores = trunk.score(outputs[q])
            right = scores[np.arange(len(scores)), labels[q]]
            ranks.append((1 / (scores >= right[:, None]).sum(axis=1)).mean())
        return float(np.mean(ranks))


def new_subjects(samples: dict[str, int]) -> list[str]:
    """Subjects with less than four fifths of the median number of training samples."""
    median = float(np.median(list(samples.values())))
    return [subject for subject, count in samples.items() if count < NEW * median]


def matched(
    wanted: Int[np.ndarray, " n"], there: Int[np.ndarray, " m"], subject: str, draw: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """Samples of one subject that show the same candidates as `wanted`, others where it never saw one of them.

    Raises:
        DataError: no sample would be left to train a trunk with
    """
    if len(there) <= len(wanted):
        raise DataError(
            f"subject {subject}: {len(there)} training samples, the new subject has {len(wanted)}; a trunk learns from "
            "the samples that are left over, so the others need more"
        )
    order = draw.permutation(len(there))
    free = dict.fromkeys(order.tolist())
    taken: list[int | None] = []
    for candidate in wanted:
        found = next((i for i in free if there[i] == candidate), None)
        if found is not None:
            del free[found]
        taken.append(found)
    spare = iter(list(free))
    return np.array([next(spare) if i is None else i for i in taken])
