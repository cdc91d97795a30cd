"""Which samples train and which are scored. Runs stay whole unless a split that cuts them is asked for by name."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import pandas as pd

from data.brain.brain import Brains
from data.brain.order import natural, spread
from data.brain.split import Split, runs_cut, with_every_class
from data.errors import DataError


class Splitting(ABC):
    """A way to divide samples; what a config names under `split`.

    Attributes:
        may_cut_runs: runs may lie on both sides; every split that does so is marked
        needs_every_class: a subject with samples on both sides must have every class of the gallery in training
    """

    may_cut_runs: bool = False
    needs_every_class: bool = True

    @abstractmethod
    def propose(self, brains: Brains) -> list[Split]:
        """The folds; `splits` checks them."""

    def splits(self, brains: Brains) -> list[Split]:
        """The folds, checked. Subjects that a fold cannot use are left out of it and noted in the account.

        Raises:
            DataError: a run would be cut without being asked for, or no subject is left in a fold
        """
        return [self._checked(split, brains) for split in self.propose(brains)]

    def _checked(self, split: Split, brains: Brains) -> Split:
        if self.needs_every_class and brains.truth == "label":
            split = with_every_class(split, brains)
        cut = runs_cut(split, brains)
        if cut and not self.may_cut_runs:
            raise DataError(
                f"split {split.name}: run {cut[0]} has samples on both sides ({len(cut)} such runs), and neighbours in "
                "a run share noise. Hold out whole runs, or ask for the cut by name (CutRuns, or cut_runs: true)"
            )
        return Split(split.name, split.train, split.test, bool(cut))


class _ByRuns(Splitting):
    """Fold k holds out the k-th group of runs of every subject."""

    @abstractmethod
    def groups(self, runs: list[str]) -> list[list[str]]:
        """The runs of one subject, in groups; one group = this subject cannot be split."""

    def propose(self, brains: Brains) -> list[Split]:
        held_out: dict[str, list[list[str]]] = {}
        for subject, brain in brains.subjects.items():
            groups = self.groups(sorted(brain.runs, key=natural))
            if len(groups) > 1:
                held_out[subject] = groups
                continue
            sentence = (
                f"subject {subject}: {len(brain.runs)} run(s), too few for {type(self).__name__} to hold any out; give "
                "more runs, or ask for folds within a run by name (CutRuns), which leak"
            )
            if len(brains.subjects) == 1:
                raise DataError(sentence)
            brains.note(f"left out: {sentence}")
        if not held_out:
            most = max(len(brain.runs) for brain in brains.subjects.values())
            raise DataError(
                f"{brains.name}: no subject has enough runs for {type(self).__name__} (at most {most}); give "
                "more runs, or ask for folds within a run by name (CutRuns), which leak"
            )
        table = brains.table[brains.table["subject"].isin(list(held_out))]
        folds = []
        for k in range(max(map(len, held_out.values()))):
            out = {f"{s}/{run}" for s, groups in held_out.items() if k < len(groups) for run in groups[k]}
            folds.append(_split(f"fold{k}", table, (table["subject"] + "/" + table["run"]).isin(out)))
        return folds


class LeaveRunsOut(_ByRuns):
    """Each fold holds out the next few runs of every subject.

    Args:
        runs: how many
    """

    def __init__(self, runs: int = 1):
        if runs < 1:
            raise ValueError(f"runs={runs}: at least 1")
        self.runs = runs

    def groups(self, runs: list[str]) -> list[list[str]]:
        return [runs[k : k + self.runs] for k in range(0, len(runs), self.runs)]


class RunFolds(_ByRuns):
    """The runs of every subject in a number of folds, as equal as can be, neighbouring runs together.

    Args:
        folds: how many, at least 2
    """

    def __init__(self, folds: int = 5):
        if folds < 2:
            raise ValueError(f"folds={folds}: at least 2 are needed to hold runs out")
        self.folds = folds

    def groups(self, runs: list[str]) -> list[list[str]]:
        if len(runs) < self.folds:
            return [runs]
        return [list(part) for part in np.array_split(np.array(runs, dtype=object), self.folds)]


class HeldOutSubjects(Splitting):
    """Each fold holds out one subject whole; only decoders that are fitted across subjects can score it."""

    needs_every_class = False

    def propose(self, brains: Brains) -> list[Split]:
        if len(brains.subjects) < 2:
            raise DataError(f"{brains.name}: one subject, so none can be held out; give more subjects")
        table = brains.table
        return [_split(f"subject-{subject}", table, table["subject"] == subject) for subject in brains.subjects]


class HeldOutStimuli(Splitting):
    """Each fold holds out some stimuli, in all subjects at once.

    Stimuli that share a run stay on one side, so that no run is cut. In a design where every run shows most stimuli
    that leaves nothing to hold out; `cut_runs` then deals the stimuli out one by one, and the splits are marked.

    Args:
        folds: how many, at least 2
        seed: of the shuffle
        cut_runs: let a run lie on both sides
    """

    def __init__(self, folds: int = 5, seed: int = 0, cut_runs: bool = False):
        if folds < 2:
            raise ValueError(f"folds={folds}: at least 2 are needed to hold stimuli out")
        self.folds, self.seed, self.may_cut_runs = folds, seed, cut_runs

    def propose(self, brains: Brains) -> list[Split]:
        table = brains.table
        stimuli = pd.Series(sorted(set(table["stimulus"])))
        group = pd.Series(range(len(stimuli)), index=stimuli) if self.may_cut_runs else _sharing_runs(table)
        if group.nunique() < self.folds:
            what = f"{len(stimuli)} stimuli" + (
                "" if self.may_cut_runs else f" in {group.nunique()} sets of whole runs"
            )
            remedy = "fewer folds" if self.may_cut_runs else "fewer folds, or cut_runs: true, which marks the result"
            raise DataError(f"{brains.name}: {what} cannot be dealt to {self.folds} folds; ask for {remedy}")
        order = np.random.default_rng(self.seed).permutation(sorted(group.unique()))
        fold = pd.Series(np.arange(len(order)) % self.folds, index=order)
        of_sample = table["stimulus"].map(group).map(fold)
        return [_split(f"fold{k}", table, of_sample == k) for k in range(self.folds)]


class FewShot(Splitting):
    """A new subject with few labelled samples, and everything of the others.

    With `test_stimuli` the new subject is scored on that many stimuli of which it has no training sample; without, on
    the runs that gave none. Sample sets are nested: those of 5 are among those of 10, for one seed.

    Args:
        samples: labelled samples of the new subject, spread over classes (or stimuli, where those are retrieved)
        subject: who is new; None = each in turn
        test_stimuli: how many stimuli are held out; None = whole runs are
        seed: of the draws
        cut_runs: let a run lie on both sides (held-out stimuli only)
        hide_from_others: leave the held-out stimuli out of the other subjects' training as well
    """

    needs_every_class = False

    def __init__(
        self,
        samples: int,
        subject: str | None = None,
        test_stimuli: int | None = None,
        seed: int = 0,
        cut_runs: bool = False,
        hide_from_others: bool = False,
    ):
        if samples < 1:
            raise ValueError(f"samples={samples}: at least 1")
        if test_stimuli is not None and test_stimuli < 2:
            raise ValueError(f"test_stimuli={test_stimuli}: at least 2 to choose between, or null to hold out runs")
        if test_stimuli is None and hide_from_others:
            raise ValueError("hide_from_others=True needs test_stimuli: without it no stimulus is held out")
        self.samples, self.subject, self.test_stimuli, self.seed = samples, subject, test_stimuli, seed
        self.may_cut_runs, self.hide_from_others = cut_runs, hide_from_others

    def propose(self, brains: Brains) -> list[Split]:
        if len(brains.subjects) < 2:
            raise DataError(f"{brains.name}: one subject, so there are no others to learn from; give more subjects")
        if self.subject is not None and self.subject not in brains.subjects:
            raise DataError(f"{brains.name}: no subject {self.subject}; there are {', '.join(brains.subjects)}")
        new = brains.subjects if self.subject is None else [self.subject]
        return [self._of(subject, brains) for subject in new]

    def _of(self, subject: str, brains: Brains) -> Split:
        own = brains.subjects[subject].table
        # Other people get other stimuli, or one unlucky draw would decide a whole curve.
        draw = np.random.default_rng([self.seed, list(brains.subjects).index(subject)])
        others = brains.table[brains.table["subject"] != subject]
        if self.test_stimuli is None:
            pool, test = self._runs(own, brains.truth, draw, subject)
        else:
            stimuli = sorted(set(own["stimulus"]))
            out = set(draw.permutation(stimuli)[: self.test_stimuli])
            test = own["stimulus"].isin(out)
            rest = own[~test]
            pool = list(rest.index[spread(rest[brains.truth], draw)])
            if self.hide_from_others:
                others = others[~others["stimulus"].isin(out)]
        if len(pool) < self.samples:
            raise DataError(
                f"subject {subject}: {len(pool)} samples can train, {self.samples} were asked for; ask for fewer"
            )
        train = [*others.index, *own.index[own.index.isin(pool[: self.samples])]]
        return Split(f"subject-{subject}", train, list(own.index[test]))

    def _runs(
        self, own: pd.DataFrame, truth: str, draw: np.random.Generator, subject: str
    ) -> tuple[list[str], pd.Series]:
        """Samples of the first runs, in a random order, that hold enough; what is scored lies in the other runs."""
        order = draw.permutation(sorted(set(own["run"]), key=natural))
        size = own["run"].value_counts()
        need = int(np.searchsorted(np.cumsum([size[run] for run in order]), self.samples)) + 1
        if need >= len(order):
            raise DataError(
                f"subject {subject}: {self.samples} samples need all of its {len(order)} runs, and none is left to "
                "score; ask for fewer samples"
            )
        used = [own[own["run"] == run] for run in order[:need]]
        pool = [i for run in used for i in run.index[spread(run[truth], draw)]]
        return pool, ~own["run"].isin(order[:need])


class CutRuns(Splitting):
    """Random folds that cut runs: leaky, and marked so everywhere. For showing what the leak is worth.

    Args:
        folds: how many, at least 2
        seed: of the shuffle
    """

    may_cut_runs = True

    def __init__(self, folds: int = 5, seed: int = 0):
        if folds < 2:
            raise ValueError(f"folds={folds}: at least 2 are needed to hold samples out")
        self.folds, self.seed = folds, seed

    def propose(self, brains: Brains) -> list[Split]:
        table, draw = brains.table, np.random.default_rng(self.seed)
        fold = pd.Series(-1, index=table.index)
        for _, own in table.groupby("subject", sort=False):
            order = draw.permutation(len(own))
            by_class = order[np.argsort(pd.factorize(own["label"])[0][order], kind="stable")]
            fold[own.index[by_class]] = np.arange(len(own)) % self.folds
        return [_split(f"fold{k}", table, fold == k) for k in range(self.folds)]


def _split(name: str, table: pd.DataFrame, test: pd.Series) -> Split:
    return Split(name, list(table.index[~test]), list(table.index[test]))


def _sharing_runs(table: pd.DataFrame) -> pd.Series:
    """Stimulus -> a number that is the same for stimuli which are linked by a chain of shared runs."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    stimulus, stimuli = pd.factorize(table["stimulus"], sort=True)
    run, runs = pd.factorize(table["subject"] + "/" + table["run"])
    nodes = len(stimuli) + len(runs)
    links = coo_matrix((np.ones(len(table)), (stimulus, len(stimuli) + run)), shape=(nodes, nodes))
    return pd.Series(connected_components(links, directed=False)[1][: len(stimuli)], index=stimuli)
