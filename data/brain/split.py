"""One split of samples, and what it must not do: cut a run unseen, or train a subject without a class."""

from __future__ import annotations

from dataclasses import dataclass

from data.brain.brain import Brains
from data.errors import DataError


@dataclass(frozen=True)
class Split:
    """Two disjoint sets of samples.

    Attributes:
        name: of the fold
        train, test: sample ids
        cuts_runs: some run has samples on both sides, so slow noise and overlapping responses may leak

    Raises:
        DataError: a sample is on both sides, twice on one, or a side is empty
    """

    name: str
    train: list[str]
    test: list[str]
    cuts_runs: bool = False

    def __post_init__(self) -> None:
        for side, ids in (("train", self.train), ("test", self.test)):
            if not ids:
                raise DataError(f"split {self.name}: the {side} side is empty; it needs at least one sample")
            if len(set(ids)) < len(ids):
                raise DataError(f"split {self.name}: a sample is more than once in {side}; list each once")
        both = set(self.train) & set(self.test)
        if both:
            raise DataError(
                f"split {self.name}: {len(both)} samples are in train and in test ({min(both)}); "
                "a score on them would be worthless. Remove them from one side"
            )


def runs_cut(split: Split, brains: Brains) -> list[str]:
    """Runs, as `<subject>/<run>`, with samples on both sides."""
    sides = []
    for ids in (split.train, split.test):
        table = brains.table.loc[ids]
        sides.append(set(table["subject"] + "/" + table["run"]))
    return sorted(sides[0] & sides[1])


def with_every_class(split: Split, brains: Brains) -> Split:
    """Without the subjects whose own training samples lack a class.

    Raises:
        DataError: nobody is left, or a class that few subjects were shown would leave out all others
    """
    shown = brains.table.groupby("label")["subject"].unique()
    for label, who in shown.items():
        if 2 * len(who) < len(brains.subjects):
            raise DataError(
                f"class {label} is shown to {', '.join(sorted(who))} alone, {len(who)} of {len(brains.subjects)} "
                f"subjects; correct the label there, or leave it out (leave_out: [{label}])"
            )
    train, test = brains.table.loc[split.train], brains.table.loc[split.test]
    lacking: dict[str, list[str]] = {}
    for subject in dict.fromkeys(test["subject"]):
        own = train[train["subject"] == subject]
        if len(own):
            gone = [c for c in brains.candidates if c not in set(own["label"])]
            if gone:
                lacking[subject] = gone
    for subject, gone in lacking.items():
        sentence = (
            f"split {split.name}: class {gone[0]} has no training sample of subject {subject}; "
            "hold out fewer runs, or leave the class out"
        )
        if len(lacking) == len(set(test["subject"])):
            raise DataError(sentence)
        brains.note(f"left out: {sentence}")
    if not lacking:
        return split
    return Split(
        split.name,
        list(train.index[~train["subject"].isin(list(lacking))]),
        list(test.index[~test["subject"].isin(list(lacking))]),
    )
