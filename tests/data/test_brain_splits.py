"""Splits of brains: runs stay whole unless a cut is asked for by name, and every class is in training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.brain.brain import Brain, Brains, sample_table
from data.brain.order import natural, spread
from data.brain.split import Split, runs_cut
from data.brain.splits import CutRuns, FewShot, HeldOutStimuli, HeldOutSubjects, LeaveRunsOut, RunFolds, Splitting
from data.errors import DataError


def brains_of(runs: dict[str, int], labels: str = "abc", stimuli: int = 1, truth: str = "label") -> Brains:
    """Subjects with a number of runs; each run shows every label once, with one of its stimuli in turn."""
    subjects = {}
    for subject, number in runs.items():
        names = [f"run{k}" for k in range(1, number + 1) for _ in labels]
        shown = list(labels) * number
        exact = [f"{label}{k // len(labels) % stimuli}" for k, label in enumerate(shown)]
        table = sample_table(subject, names, [10.0 * k for k in range(len(shown))], shown, exact)
        subjects[subject] = Brain(subject, np.ones((len(shown), 3), dtype=np.float32), table)
    candidates = sorted({v for b in subjects.values() for v in b.table[truth]})
    return Brains("b", subjects, [], candidates, truth)


@settings(max_examples=30, deadline=None)
@given(
    runs=st.dictionaries(st.sampled_from(["01", "02", "03"]), st.integers(3, 12), min_size=1),
    splitting=st.sampled_from([LeaveRunsOut(), LeaveRunsOut(2), RunFolds(2), RunFolds(3)]),
)
def test_whole_runs_are_held_out_and_each_sample_is_scored_once(runs: dict[str, int], splitting: Splitting):
    brains = brains_of(runs)
    splits = splitting.splits(brains)
    assert sorted(i for split in splits for i in split.test) == sorted(brains.table.index)
    for split in splits:
        assert runs_cut(split, brains) == []
        assert not split.cuts_runs
        assert set(split.train) | set(split.test) == set(brains.table.index)


def test_the_tenth_run_comes_after_the_second():
    splits = LeaveRunsOut().splits(brains_of({"01": 11}))
    assert [split.test[0].split("/")[1] for split in splits] == [f"run{k}" for k in range(1, 12)]
    assert sorted(["run10", "run2", "run1"], key=natural) == ["run1", "run2", "run10"]


def test_a_split_that_cuts_a_run_is_refused_unless_asked_for_by_name():
    class Halves(Splitting):
        def propose(self, brains: Brains) -> list[Split]:
            ids = list(brains.table.index)
            return [Split("half", ids[: len(ids) // 2 + 1], ids[len(ids) // 2 + 1 :])]

    brains = brains_of({"01": 4})
    with pytest.raises(DataError, match=r"split half: run 01/run3 has samples on both sides .*CutRuns"):
        Halves().splits(brains)
    assert all(split.cuts_runs for split in CutRuns(3).splits(brains))
    assert all(
        split.cuts_runs for split in HeldOutStimuli(3, cut_runs=True).splits(brains_of({"01": 4}, truth="stimulus"))
    )


def test_random_folds_hold_every_class_and_each_sample_once():
    brains = brains_of({"01": 6, "02": 6})
    splits = CutRuns(5, seed=3).splits(brains)
    assert sorted(i for split in splits for i in split.test) == sorted(brains.table.index)
    assert splits == CutRuns(5, seed=3).splits(brains) != CutRuns(5, seed=4).splits(brains)


def test_held_out_stimuli_are_in_no_subject_s_training():
    brains = brains_of({"01": 8, "02": 8}, stimuli=4, truth="stimulus")
    splits = HeldOutStimuli(4).splits(brains)
    for split in splits:
        seen, held = (set(brains.table.loc[side, "stimulus"]) for side in (split.train, split.test))
        assert seen.isdisjoint(held)
        assert not split.cuts_runs
    assert sorted(i for split in splits for i in split.test) == sorted(brains.table.index)


def test_stimuli_that_fill_every_run_cannot_be_held_out_without_a_cut():
    brains = brains_of({"01": 4}, truth="stimulus")
    with pytest.raises(
        DataError, match=r"3 stimuli in 1 sets of whole runs cannot be dealt to 2 folds.*cut_runs: true"
    ):
        HeldOutStimuli(2).splits(brains)
    with pytest.raises(DataError, match=r"3 stimuli cannot be dealt to 4 folds; ask for fewer folds"):
        HeldOutStimuli(4, cut_runs=True).splits(brains)


def test_a_held_out_subject_trains_nothing():
    splits = HeldOutSubjects().splits(brains_of({"01": 1, "02": 2}))
    assert [{i.split("/")[0] for i in split.test} for split in splits] == [{"01"}, {"02"}]
    assert {i.split("/")[0] for i in splits[0].train} == {"02"}
    with pytest.raises(DataError, match="one subject, so none can be held out"):
        HeldOutSubjects().splits(brains_of({"01": 2}))


@settings(max_examples=20, deadline=None)
@given(samples=st.integers(1, 18), seed=st.integers(0, 5))
def test_few_shot_sets_are_nested_even_and_cut_no_run(samples: int, seed: int):
    brains = brains_of({"01": 8, "02": 8})
    few, more = (FewShot(n, "02", seed=seed).splits(brains)[0] for n in (samples, samples + 2))
    own, larger = ([i for i in split.train if i.startswith("02/")] for split in (few, more))
    assert len(own) == samples
    assert set(own) <= set(larger)
    counts = brains.table.loc[own, "label"].value_counts().reindex(list("abc"), fill_value=0)
    assert counts.max() - counts.min() <= 1
    assert sum(i.startswith("01/") for i in few.train) == 24
    assert runs_cut(few, brains) == []


def test_few_shot_can_hide_the_held_out_stimuli_from_the_others():
    brains = brains_of({"01": 8, "02": 8}, stimuli=8, truth="stimulus")
    for hide in (False, True):
        split = FewShot(4, "02", test_stimuli=6, cut_runs=True, hide_from_others=hide).splits(brains)[0]
        table = brains.table
        held = set(table.loc[split.test, "stimulus"])
        assert len(held) == 6
        own = [i for i in split.train if i.startswith("02/")]
        others = [i for i in split.train if not i.startswith("02/")]
        assert held.isdisjoint(table.loc[own, "stimulus"])
        assert held.isdisjoint(table.loc[others, "stimulus"]) == hide
    assert [split.name for split in FewShot(4).splits(brains)] == ["subject-01", "subject-02"]


def test_few_shot_says_what_it_lacks():
    brains = brains_of({"01": 3, "02": 3})
    with pytest.raises(DataError, match=r"subject 02: 9 samples need all of its 3 runs.*ask for fewer samples"):
        FewShot(9, "02").splits(brains)
    with pytest.raises(DataError, match="no subject 07; there are 01, 02"):
        FewShot(1, "07").splits(brains)
    with pytest.raises(DataError, match="no others to learn from"):
        FewShot(1).splits(brains_of({"01": 3}))
    with pytest.raises(DataError, match="subject 01: 3 samples can train, 5 were asked for"):
        FewShot(5, "01", test_stimuli=2, cut_runs=True).splits(brains)
    with pytest.raises(ValueError, match="hide_from_others=True needs test_stimuli"):
        FewShot(1, hide_from_others=True)


def test_one_run_stops_one_subject_or_names_the_remedy():
    with pytest.raises(DataError, match=r"subject 01: 1 run\(s\), too few for LeaveRunsOut.*CutRuns"):
        LeaveRunsOut().splits(brains_of({"01": 1}))
    brains = brains_of({"01": 1, "02": 3})
    splits = LeaveRunsOut().splits(brains)
    assert {i.split("/")[0] for split in splits for i in (*split.train, *split.test)} == {"02"}
    LeaveRunsOut().splits(brains)
    assert [line for line in brains.account if "subject 01: 1 run(s)" in line] == brains.account
    with pytest.raises(DataError, match="no subject has enough runs"):
        LeaveRunsOut().splits(brains_of({"01": 1, "02": 1}))


def lacking(subjects: dict[str, bool]) -> Brains:
    """Two runs each; a subject marked True has class c in its second run alone."""
    parts = {}
    for subject, lacks in subjects.items():
        first = "aab" if lacks else "abc"
        table = sample_table(subject, ["run1"] * 3 + ["run2"] * 3, [0.0] * 6, list(first + "abc"))
        parts[subject] = Brain(subject, np.ones((6, 2), dtype=np.float32), table)
    return Brains("b", parts, [], ["a", "b", "c"])


def test_a_class_without_training_samples_is_named_with_its_fold():
    with pytest.raises(
        DataError, match=r"split fold1: class c has no training sample of subject 01; hold out fewer runs"
    ):
        LeaveRunsOut().splits(lacking({"01": True}))
    brains = lacking({"01": True, "02": False})
    splits = LeaveRunsOut().splits(brains)
    assert {i.split("/")[0] for i in splits[1].test} == {"02"}
    assert {i.split("/")[0] for i in splits[0].test} == {"01", "02"}
    assert brains.account == [
        "left out: split fold1: class c has no training sample of subject 01; "
        "hold out fewer runs, or leave the class out"
    ]


def test_a_class_that_few_subjects_were_shown_is_named_with_them():
    brains = lacking({"01": False, "02": False, "03": False})
    brains.subjects["02"].table["label"] = brains.subjects["02"].table["label"].where(lambda x: x != "a", "A")
    with pytest.raises(DataError, match=r"class A is shown to 02 alone, 1 of 3 subjects; correct the label there"):
        LeaveRunsOut().splits(brains)


def test_overlap_repetition_and_empty_sides_are_refused():
    with pytest.raises(DataError, match=r"1 samples are in train and in test \(01/r/1\)"):
        Split("f", ["01/r/0", "01/r/1"], ["01/r/1"])
    with pytest.raises(DataError, match="more than once in test"):
        Split("f", ["01/r/0"], ["01/r/1", "01/r/1"])
    with pytest.raises(DataError, match="the test side is empty"):
        Split("f", ["01/r/0"], [])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LeaveRunsOut(0), "runs=0: at least 1"),
        (lambda: RunFolds(1), "folds=1: at least 2"),
        (lambda: HeldOutStimuli(1), "folds=1: at least 2"),
        (lambda: CutRuns(1), "folds=1: at least 2"),
        (lambda: FewShot(0), "samples=0: at least 1"),
        (lambda: FewShot(1, test_stimuli=1), "test_stimuli=1: at least 2"),
    ],
)
def test_senseless_settings_are_refused(make, said: str):
    with pytest.raises(ValueError, match=said):
        make()


def test_every_beginning_of_a_spread_order_is_even():
    labels = list("aaaabbbbcc")
    order = spread(labels, np.random.default_rng(0))
    assert sorted(order) == list(range(10))
    assert sorted(labels[k] for k in order[:3]) == list("abc")
    assert sorted(labels[k] for k in order[:6]) == list("aabbcc")
