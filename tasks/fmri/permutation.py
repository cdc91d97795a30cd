"""What accuracy labels without meaning would have reached: labels permuted within runs, a thousand times.

Permuting inside runs keeps what the design fixes (each run shows each class as often as it did). For ridge the null is
exact and cheap: predictions are `hat @ labels`, and the hat matrix of a fold never sees the labels, so all permutations
are one matrix product. For any other decoder the predictions are held fixed and the true labels are permuted around
them, which asks whether predictions and labels agree by more than chance without fitting again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from data.brain.brain import Brain, Brains
from data.brain.split import Split
from data.errors import DataError
from tasks.fmri.baselines import Standard
from tasks.fmri.decoder import Decoder, Scores, held_out
from tasks.fmri.metrics import judge, places
from tasks.fmri.ridge import hat_matrix

ALL = slice(None)


@dataclass(frozen=True)
class Null:
    """Accuracies without meaning beside the one that was observed.

    Args:
        observed: accuracy with the true labels
        drawn: accuracies under permuted labels
        how: `refitted` or `fixed predictions`
    """

    observed: float
    drawn: Float[np.ndarray, " b"]
    how: str

    @property
    def p95(self) -> float:
        """The accuracy that 5 % of the permutations exceed."""
        return float(np.quantile(self.drawn, 0.95))

    @property
    def p_value(self) -> float:
        """Share of labellings, the true one included, that score at least as well (Phipson and Smyth 2010)."""
        reached = self.drawn >= self.observed - 1e-12
        return float((1 + reached.sum()) / (1 + len(self.drawn)))


def permuted_within_runs(table: pd.DataFrame, permutations: int, seed: int = 0) -> Int[np.ndarray, "b n"]:
    """Row b says which sample's label each sample gets; samples swap labels only inside their own run and subject.

    Raises:
        DataError: no run has two samples, so nothing can be permuted
    """
    draw = np.random.default_rng(seed)
    order = np.tile(np.arange(len(table)), (permutations, 1))
    run = pd.factorize(table["subject"].astype(str) + "/" + table["run"].astype(str))[0]
    if len(run) and np.bincount(run).max() < 2:
        raise DataError("every run has a single sample, so labels cannot be permuted within runs; give whole runs")
    for k in range(run.max() + 1):
        rows = np.flatnonzero(run == k)
        order[:, rows] = draw.permuted(order[:, rows], axis=1)
    return order


def fixed_null(scores: Scores, brains: Brains, permutations: int = 1000, seed: int = 0) -> Null:
    """Hold the predictions fixed and permute the true labels of the scored samples within their runs."""
    table = brains.table.loc[scores.ids]
    truth, matrix = places(scores, table[brains.truth]), scores.matrix
    best = matrix == matrix.max(axis=1, keepdims=True)
    credit = best / best.sum(axis=1, keepdims=True)
    order = permuted_within_runs(table, permutations, seed)
    drawn = credit[np.arange(len(truth)), truth[order]].mean(axis=1)
    return Null(float(credit[np.arange(len(truth)), truth].mean()), drawn, "fixed predictions")


def ridge_null(
    brains: Brains, splits: Sequence[Split], alpha: float = 100.0, permutations: int = 1000, seed: int = 0
) -> Null:
    """The null of `Ridge(alpha)`, as if it were fitted anew for every permutation, over all folds and subjects.

    Labels are permuted before the split, in training and in scored runs; accuracy is that of all scored samples.
    """
    table = brains.table
    truth = _codes(table, brains)
    order = permuted_within_runs(table, permutations, seed)
    labels = np.vstack([truth, truth[order]])
    place = pd.Series(np.arange(len(table)), index=table.index)
    hits, scored = np.zeros(len(labels)), 0
    one_hot = np.eye(len(brains.candidates))
    for train, test in _sides(brains, splits):
        standard = Standard(train.x)
        hat = hat_matrix(standard(train.x), standard(test.x), alpha)
        seen, asked = (labels[:, place.loc[side.table.index]] for side in (train, test))
        if set(truth[place.loc[train.table.index]]) != set(range(len(brains.candidates))):
            raise DataError("ridge null: a class has no training sample in a fold; leave the class out")
        targets = one_hot[seen]
        predicted = hat @ targets.transpose(1, 0, 2).reshape(targets.shape[1], -1)
        guess = predicted.reshape(len(hat), *targets.shape[::2]).argmax(axis=2)
        hits += (asked == guess.T).sum(axis=1)
        scored += len(hat)
    accuracy = hits / scored
    return Null(float(accuracy[0]), accuracy[1:], "refitted")


def refitted_null(
    decoder: Decoder,
    brains: Brains,
    splits: Sequence[Split],
    permutations: int = 100,
    seed: int = 0,
    draws: slice = ALL,
) -> Null:
    """The null of any decoder, by fitting it once per permutation and fold: exact, and as slow as it sounds.

    Args:
        decoder: fitted anew on every labelling
        brains: with the true labels
        splits: folds
        permutations: of the whole null
        seed: of the permutations
        draws: those of them that are wanted; a null that is drawn in parts is the null
    """
    order = permuted_within_runs(brains.table, permutations, seed)[draws]
    accuracy = []
    for labels in [None, *order]:
        shuffled = brains if labels is None else _relabelled(brains, labels)
        accuracy.append(_accuracy(decoder, shuffled, splits, seed))
    return Null(accuracy[0], np.array(accuracy[1:]), "refitted")


def _accuracy(decoder: Decoder, brains: Brains, splits: Sequence[Split], seed: int) -> float:
    judged = judge(held_out(decoder, brains, splits, seed), brains.table, brains.truth)
    return float(judged["accuracy"].mean())


def _relabelled(brains: Brains, order: Int[np.ndarray, " n"]) -> Brains:
    """The same brains with the label and stimulus of sample `order[i]` at sample i."""
    table = brains.table
    given = table.iloc[order][["label", "stimulus"]].set_axis(table.index)
    subjects = {
        subject: Brain(subject, brain.x, brain.table.assign(**given.loc[brain.table.index]), brain.space)
        for subject, brain in brains.subjects.items()
    }
    return Brains(brains.name, subjects, [], brains.candidates, brains.truth, brains.targets, brains.ceiling)


def _codes(table: pd.DataFrame, brains: Brains) -> Int[np.ndarray, " n"]:
    column = {name: k for k, name in enumerate(brains.candidates)}
    return np.array([column[name] for name in table[brains.truth]], dtype=int)


def _sides(brains: Brains, splits: Sequence[Split]) -> Iterator[tuple[Brain, Brain]]:
    """Training and scored samples of every subject of every fold."""
    for split in splits:
        train, test = brains.only(split.train).subjects, brains.only(split.test).subjects
        for subject, asked in test.items():
            if subject not in train:
                raise DataError(f"split {split.name}: subject {subject} has no training sample; ridge is per subject")
            yield train[subject], asked
