"""Alignment across people: exact on turned copies, invariant to voxel order, chance without a shared geometry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from data.brain.brain import Brains
from data.brain.splits import FewShot
from data.errors import DataError
from tasks.fmri.alignment import RidgeAdapter, SharedSpace
from tasks.fmri.decoder import Decoder
from tasks.fmri.metrics import judge
from tests.tasks.fmri.made import geometry

ARMS = [SharedSpace("srm", dims=6), SharedSpace("procrustes", dims=6), RidgeAdapter(1.0, dims=6)]
arms = pytest.mark.parametrize("decoder", ARMS, ids=["srm", "procrustes", "ridge adapter"])


def few_shot(decoder: Decoder, brains: Brains, samples: int = 20) -> float:
    """Accuracy on ten stimuli of which the new person gave no sample."""
    judged = []
    for split in FewShot(samples, test_stimuli=10, cut_runs=True).splits(brains):
        scores = decoder.fit(brains, split.train, seed=0).scores(brains, split.test)
        gallery = sorted(set(brains.table.loc[split.test, "stimulus"]))
        judged.append(judge(scores.among(gallery), brains.table, "stimulus"))
    return float(pd.concat(judged)["accuracy"].mean())


@arms
def test_turned_copies_of_one_geometry_are_identified(decoder: Decoder):
    assert few_shot(decoder, geometry(noise=0.02)) > 0.95


@arms
def test_stimuli_that_mean_something_else_to_everybody_are_at_chance(decoder: Decoder):
    brains, draw = geometry(noise=0.02), np.random.default_rng(0)
    people = {}
    for subject, brain in brains.subjects.items():
        other = dict(zip(brains.candidates, draw.permutation(brains.candidates), strict=True))
        people[subject] = replace(brain, table=brain.table.assign(stimulus=brain.table["stimulus"].map(other)))
    assert few_shot(decoder, replace(brains, subjects=people)) < 0.25


@arms
def test_the_order_of_a_persons_voxels_does_not_matter(decoder: Decoder):
    brains = geometry()
    split = FewShot(15, subject="02", test_stimuli=10, cut_runs=True).splits(brains)[0]
    before = decoder.fit(brains, split.train, seed=0).scores(brains, split.test).matrix
    own = brains.subjects["02"]
    turned = replace(own, x=own.x[:, np.random.default_rng(0).permutation(own.x.shape[1])])
    changed = replace(brains, subjects=brains.subjects | {"02": turned})
    after = decoder.fit(changed, split.train, seed=0).scores(changed, split.test).matrix
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize("method", ["srm", "procrustes"])
def test_maps_to_the_shared_space_have_orthonormal_columns(method):
    brains = geometry()
    decoder = SharedSpace(method, dims=5).fit(brains, list(brains.table.index), seed=0)
    for own in decoder.map.values():
        np.testing.assert_allclose(own.T @ own, np.eye(5), atol=1e-10)


def test_a_person_nobody_mapped_is_named():
    brains = geometry()
    others = [i for i in brains.table.index if not i.startswith("03/")]
    with pytest.raises(DataError, match="subject 03: no map to the shared space; train one"):
        SharedSpace().fit(brains, others, seed=0).scores(brains, ["03/run-1/0"])
    with pytest.raises(DataError, match="subject 03: no adapter; train one"):
        RidgeAdapter().fit(brains, others, seed=0).scores(brains, ["03/run-1/0"])
    alone = [i for i in brains.table.index if i.startswith("03/")]
    with pytest.raises(DataError, match="subject 03: no other subject has training samples of all 30 candidates"):
        RidgeAdapter().fit(brains, alone, seed=0)
