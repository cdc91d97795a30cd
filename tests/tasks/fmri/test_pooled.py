"""One decoder for everybody: subjects nobody trained on, common voxels, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data.brain.brain import Brain, Brains, VoxelSpace
from data.brain.splits import HeldOutSubjects
from data.errors import DataError
from tasks.fmri.baselines import Ridge, ShrinkageLDA
from tasks.fmri.decoder import held_out
from tasks.fmri.metrics import judge
from tasks.fmri.pooled import Pooled, common_voxels
from tests.tasks.fmri.made import blocks


def alike(subjects: int = 4) -> Brains:
    """People whose voxels mean the same: parts of one person's runs, each without another voxel of a 4 x 5 x 3 grid."""
    own = blocks(runs=4 * subjects, voxels=60, signal=2.0).subjects["01"]
    runs, people = own.runs, {}
    for k in range(subjects):
        name = f"{k + 1:02d}"
        rows = own.only(list(own.table.index[own.table["run"].isin(runs[4 * k : 4 * k + 4])]))
        mask = np.ones((4, 5, 3), dtype=bool)
        mask.flat[k] = False
        table = rows.table.assign(subject=name)
        table.index = table.index.str.replace("01/", f"{name}/", n=1)
        people[name] = Brain(name, np.delete(rows.x, k, axis=1), table, VoxelSpace(mask, np.eye(4)))
    return Brains("alike", people, [], blocks().candidates)


def test_a_subject_nobody_trained_on_is_decoded():
    brains = alike()
    scores = held_out(Pooled(ShrinkageLDA()), brains, HeldOutSubjects().splits(brains))
    assert set(scores.ids) == set(brains.table.index)
    assert judge(scores, brains.table)["accuracy"].mean() > 0.9


def test_only_voxels_that_all_have_are_used_and_the_map_is_zero_elsewhere():
    brains = alike()
    common = common_voxels(brains)
    assert {int(inside.sum()) for inside in common.values()} == {56}
    maps = Pooled(Ridge()).fit(brains, list(brains.table.index), seed=0).maps(brains)
    weights = {subject: brains.subjects[subject].space.volume(of["face"]) for subject, of in maps.items()}
    assert all(np.array_equal(own, weights["01"]) for own in weights.values())
    assert (weights["01"].flat[:4] == 0).all()


def test_brains_of_several_spaces_are_refused():
    brains = alike(2)
    other = brains.subjects["02"]
    moved = replace(other, space=VoxelSpace(other.space.mask, np.diag([2.0, 2, 2, 1])))
    with pytest.raises(DataError, match="subjects 01 and 02 lie on different grids; give all subjects in one space"):
        common_voxels(replace(brains, subjects={**brains.subjects, "02": moved}))
    nowhere = {s: replace(b, space=None) for s, b in alike(2).subjects.items()}
    assert common_voxels(replace(brains, subjects=nowhere))["02"].all()
    narrow = {**nowhere, "02": replace(nowhere["02"], x=nowhere["02"].x[:, :9])}
    with pytest.raises(DataError, match="59 voxels in subject 01 and 9 in subject 02"):
        common_voxels(replace(brains, subjects=narrow))
    apart = {}
    for k, (subject, brain) in enumerate(nowhere.items()):
        mask = np.zeros((4, 5, 3), dtype=bool)
        mask[2 * k : 2 * k + 2] = True
        apart[subject] = replace(brain, x=brain.x[:, :30], space=VoxelSpace(mask, np.eye(4)))
    with pytest.raises(DataError, match="no voxel in common"):
        common_voxels(replace(brains, subjects=apart))
    pooled = Pooled(Ridge())
    pooled.common = {"01": np.ones(59, dtype=bool)}
    with pytest.raises(DataError, match="subject 02: not among the subjects"):
        pooled.scores(brains, list(brains.table.index))
