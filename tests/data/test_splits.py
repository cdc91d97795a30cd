"""Folds: published ones as published, generated ones balanced, and nothing on both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.cohort.account import Account
from data.cohort.cohort import Cohort
from data.cohort.splits import Split, aligned, nested_split, published_splits, stratified_splits, write_splits
from data.errors import DataError


def cohort_of(event: list[bool], site: list[str], dropped: dict[str, str] | None = None) -> Cohort:
    patients = pd.DataFrame(
        {"time": np.arange(1.0, len(event) + 1), "event": event, "age": 60.0, "site": site},
        index=pd.Index([f"P{i}" for i in range(len(event))], name="case_id"),
    )
    return Cohort("c", patients, None, None, {}, Account(), dropped or {})


cohorts = st.lists(st.tuples(st.booleans(), st.sampled_from("ABCD")), min_size=20, max_size=80).filter(
    lambda rows: sum(event for event, _ in rows) >= 5
)


@settings(max_examples=40, deadline=None)
@given(rows=cohorts, folds=st.integers(2, 5), seed=st.integers(0, 5))
def test_folds_share_patients_events_and_sites_evenly(rows: list[tuple[bool, str]], folds: int, seed: int):
    cohort = cohort_of([e for e, _ in rows], [s for _, s in rows])
    splits = stratified_splits(cohort, folds, seed)
    assert sorted(i for split in splits for i in split.test) == sorted(cohort.case_ids)
    tests = [cohort.patients.loc[split.test] for split in splits]
    for counts in (
        [len(t) for t in tests],
        [t["event"].sum() for t in tests],
        *([((t["site"] == site) & (t["event"] == event)).sum() for t in tests] for site in "ABCD" for event in (0, 1)),
    ):
        assert max(counts) - min(counts) <= 1
    for split in splits:
        assert set(split.train) | set(split.test) == set(cohort.case_ids)


def test_folds_depend_on_the_seed_alone():
    cohort = cohort_of([True, False] * 20, ["A", "B", "C", "D"] * 10)
    assert stratified_splits(cohort, 4, seed=1) == stratified_splits(cohort, 4, seed=1)
    assert stratified_splits(cohort, 4, seed=1) != stratified_splits(cohort, 4, seed=2)


@settings(max_examples=25, deadline=None)
@given(rows=cohorts, share=st.floats(0.1, 0.9))
def test_a_nested_split_stays_inside_the_training_patients(rows: list[tuple[bool, str]], share: float):
    cohort = cohort_of([e for e, _ in rows], [s for _, s in rows])
    outer = stratified_splits(cohort, 2, 0)[0]
    inner = nested_split(outer, cohort, share)
    assert sorted(inner.train + inner.test) == sorted(outer.train)
    assert abs(len(inner.test) - share * len(outer.train)) < 1
    events = cohort.patients.loc[outer.train, "event"].sum()
    assert abs(cohort.patients.loc[inner.test, "event"].sum() - share * events) <= 1


def test_published_folds_survive_writing(tmp_path: Path):
    splits = stratified_splits(cohort_of([True, False] * 11, ["A"] * 22), 3, 0)
    write_splits(tmp_path, splits)
    assert published_splits(tmp_path) == splits


def test_ten_and_more_folds_come_in_numerical_order(tmp_path: Path):
    write_splits(tmp_path, stratified_splits(cohort_of([True, False] * 30, ["A"] * 60), 12, 0))
    assert [split.name for split in published_splits(tmp_path)] == [f"fold{k}" for k in range(12)]


def test_a_patient_the_cohort_dropped_leaves_the_folds():
    cohort = cohort_of([True, False] * 5, ["A"] * 10, dropped={"gone": "time is 0"})
    split = aligned([Split("fold0", ["P0", "P1", "gone"], ["P2"])], cohort)[0]
    assert (split.train, split.test) == (["P0", "P1"], ["P2"])


def test_overlap_and_repetition_are_refused():
    with pytest.raises(DataError, match=r"split fold0: 1 patients are in train and in test \(P1\)"):
        Split("fold0", ["P0", "P1"], ["P1", "P2"])
    with pytest.raises(DataError, match=r"split fold0: P0 more than once in train"):
        Split("fold0", ["P0", "P0"], ["P1"])
    with pytest.raises(DataError, match=r"split fold0: the test side is empty"):
        Split("fold0", ["P0"], [])


def test_folds_of_another_table_are_refused():
    cohort = cohort_of([True, False] * 5, ["A"] * 10)
    with pytest.raises(DataError, match=r"split fold0: 1 patients are not in cohort c \(X9\)"):
        aligned([Split("fold0", ["P0", "X9"], ["P2"])], cohort)


def test_fewer_events_than_folds_are_refused():
    cohort = cohort_of([True] * 3 + [False] * 20, ["A"] * 23)
    with pytest.raises(DataError, match=r"3 events cannot be spread over 5 folds.* Use folds=3 or fewer"):
        stratified_splits(cohort, 5)
    with pytest.raises(DataError, match=r"0 of 9 patients had the event.*check which column says who died"):
        stratified_splits(cohort_of([False] * 9, ["A"] * 9), 3)
    with pytest.raises(ValueError, match=r"folds=1: at least 2"):
        stratified_splits(cohort, 1)
    with pytest.raises(ValueError, match=r"share=1\.0: must be between 0 and 1"):
        nested_split(Split("fold0", ["P0"], ["P1"]), cohort, share=1.0)


def test_a_folder_without_folds_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"no splits_0\.csv"):
        published_splits(tmp_path)
    (tmp_path / "splits_0.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"columns \['a', 'b'\]; expected train and val"):
        published_splits(tmp_path)
