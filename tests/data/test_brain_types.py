"""Brains hold what they say: ids, galleries, finite voxels, and columns that go back to a volume."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data.brain.brain import Brain, Brains, BrainSource, VoxelSpace, sample_table
from data.errors import DataError


def brain_of(subject: str = "01", samples: int = 4, voxels: int = 3) -> Brain:
    table = sample_table(subject, ["r1", "r1", "r2", "r2"][:samples], [0.0] * samples, list("abab")[:samples])
    return Brain(subject, np.arange(samples * voxels, dtype=np.float32).reshape(samples, voxels), table)


def brains_of(*subjects: str) -> Brains:
    return Brains("b", {s: brain_of(s) for s in subjects}, [], ["a", "b"])


def test_columns_go_back_to_the_voxels_they_came_from():
    volume = np.random.default_rng(0).normal(size=(3, 4, 5))
    space = VoxelSpace(volume > 0, np.eye(4))
    assert np.array_equal(space.volume(volume[space.mask]), np.where(space.mask, volume, 0))
    with pytest.raises(ValueError, match="2 values for a mask of"):
        space.volume(np.zeros(2))


def test_positions_count_within_runs_and_ids_say_subject_run_and_position():
    table = brain_of().table
    assert list(table.index) == ["01/r1/0", "01/r1/1", "01/r2/0", "01/r2/1"]
    assert list(table["stimulus"]) == list(table["label"])
    interleaved = sample_table("x", ["b", "a", "b"], [0.0, 1.0, 2.0], list("pqr"), list("stu"))
    assert list(interleaved.index) == ["x/b/0", "x/a/0", "x/b/1"]


def test_rows_come_per_subject_in_the_order_asked_for():
    brains = brains_of("01", "02")
    rows = brains.rows(["02/r1/1", "01/r2/0", "02/r1/0"])
    assert list(rows) == ["01", "02"]
    x, table = rows["02"]
    assert list(table.index) == ["02/r1/1", "02/r1/0"]
    assert np.array_equal(x, brains.subjects["02"].x[[1, 0]])
    with pytest.raises(DataError, match="no sample 01/r9/0; these samples belong to other data"):
        brains.rows(["01/r9/0"])
    with pytest.raises(DataError, match="no sample 07/r1/0"):
        brains.rows(["07/r1/0"])


def test_a_part_keeps_the_whole_gallery():
    part = brains_of("01", "02").only(["01/r1/0"])
    assert list(part.subjects) == ["01"]
    assert part.candidates == ["a", "b"]
    assert part.chance == 0.5


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda b: replace(b, table=b.table.drop(columns="run")), "sample table without run"),
        (lambda b: replace(b, x=b.x[:2]), "2 rows of voxels for 4 samples"),
        (lambda b: replace(b, x=np.full_like(b.x, np.nan)), "3 voxels hold NaN or infinite"),
        (lambda b: replace(b, subject="02"), "sample 01/r1/0; an id is <subject>/<run>/<position>"),
        (lambda b: replace(b, table=b.table.rename({"01/r1/1": "01/r1/0"})), "01/r1/0 occurs more than once"),
        (
            lambda b: replace(b, space=VoxelSpace(np.ones((1, 1, 2), dtype=bool), np.eye(4))),
            "3 columns for a mask of 2",
        ),
    ],
)
def test_a_brain_that_contradicts_itself_is_refused(broken, said: str):
    with pytest.raises(DataError, match=said):
        broken(brain_of())


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda b: replace(b, subjects={}, account=["all gone"]), "no subject is left; all gone"),
        (lambda b: replace(b, candidates=["a"]), "label b of subject 01 is no candidate"),
        (lambda b: replace(b, candidates=["a", "b", "b"]), "named more than once"),
        (lambda b: replace(b, truth="run"), "truth='run'; expected label or stimulus"),
        (lambda b: replace(b, subjects={"9": brain_of("01")}), "subject 01 is filed as 9"),
        (lambda b: replace(b, targets=np.zeros((3, 2))), "3 target embeddings for 2 candidates"),
    ],
)
def test_brains_that_contradict_themselves_are_refused(broken, said: str):
    with pytest.raises(DataError, match=said):
        broken(brains_of("01"))


def test_a_source_reads_once():
    class Counted(BrainSource):
        reads = 0

        def read(self) -> Brains:
            self.reads += 1
            return brains_of("01")

    source = Counted()
    assert source.load() is source.load()
    assert source.reads == 1
