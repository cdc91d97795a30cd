"""Few-shot transfer: adapters, trunks, and that nothing of what is scored is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.brain.brain import Brains
from data.brain.splits import FewShot, LeaveRunsOut
from data.errors import DataError
from data.simulate.brains import SimulatedBrains
from tasks.fmri.metrics import top_k
from tasks.fmri.models.trunks import ContrastiveTrunk, GaussianTrunk, NoTrunk, Trunk
from tasks.fmri.targets import GivenTargets, GroupGeometry
from tasks.fmri.transfer import FewShotDecoder, RidgeAdapter, matched, new_subjects
from tasks.reproduce import sttm


@pytest.fixture(scope="module")
def brains() -> Brains:
    source = SimulatedBrains(
        subjects=6, classes=5, stimuli=6, runs=1, dims=6, voxels=(60, 90), noise=1.0, individual=0.3, truth="stimulus"
    )
    return source.load()


def top1(decoder: FewShotDecoder, brains: Brains, **few) -> float:
    hits = []
    for split in FewShot(5, None, 10, seed=0, cut_runs=True, **few).splits(brains):
        scores = decoder.fit(brains, split.train, seed=0).scores(brains, split.test)
        names = list(brains.table.loc[split.test, "stimulus"])
        hits.append(top_k(scores.among(names).matrix, np.arange(len(names))).mean())
    return float(np.mean(hits))


def test_a_trunk_of_others_beats_the_adapter_alone(brains: Brains):
    alone = top1(FewShotDecoder(GroupGeometry(6), NoTrunk()), brains)
    assert top1(FewShotDecoder(GroupGeometry(6)), brains) > alone > 0.1
    assert top1(FewShotDecoder(GivenTargets()), brains, hide_from_others=True) > 0.2


def test_what_is_scored_shapes_nothing(brains: Brains):
    split = FewShot(5, "02", 10, cut_runs=True).splits(brains)[0]
    own = brains.subjects["02"]
    x = own.x.copy()
    x[own.table.index.isin(split.test)] = 1e3
    spoilt = replace(brains, subjects={**brains.subjects, "02": replace(own, x=x)})
    fitted = [FewShotDecoder().fit(data, split.train, seed=0) for data in (brains, spoilt)]
    matrices = [decoder.scores(brains, split.test).matrix for decoder in fitted]
    assert np.array_equal(*matrices)


def test_voxels_have_no_order_and_no_axes(brains: Brains):
    """The decoder sees a person's geometry alone: a rotation of the voxel space changes nothing."""
    split = FewShot(5, "02", 10, cut_runs=True).splits(brains)[0]
    own = brains.subjects["02"]
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((own.x.shape[1],) * 2))[0]
    turned = replace(own, x=(own.x @ turn).astype(np.float32), space=None)
    other = replace(brains, subjects={**brains.subjects, "02": turned})
    a, b = (FewShotDecoder().fit(data, split.train, seed=0).scores(data, split.test).matrix for data in (brains, other))
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_the_adapter_is_ridge_regression(brains: Brains):
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    x, t, new = rng.standard_normal((7, 30)), rng.standard_normal((7, 3)), rng.standard_normal((4, 30))
    for centred in (False, True):
        own = x - x.mean(0) if centred else x
        alpha = 0.3 * (own**2).sum(1).mean()
        sklearn = Ridge(alpha=alpha, fit_intercept=centred).fit(x, t)
        np.testing.assert_allclose(RidgeAdapter.fit(x, t, 0.3, centred).map(new), sklearn.predict(new), atol=1e-10)


@pytest.mark.parametrize("trunk", [GaussianTrunk(), GaussianTrunk(0.0), ContrastiveTrunk(0), ContrastiveTrunk(1)])
def test_a_trunk_learns_whose_outputs_are_whose(trunk: Trunk):
    rng = np.random.default_rng(0)
    targets = rng.standard_normal((12, 4))
    turn = rng.standard_normal((4, 5))
    which = np.tile(np.arange(10), 20)
    outputs = targets[which] @ turn + 0.3 * rng.standard_normal((200, 5))
    unseen = targets[10:] @ turn
    trunk.fit(outputs, which, targets, seed=0)
    assert (trunk.score(outputs).argmax(1) == which).mean() > 0.8
    # Candidates 10 and 11 were never seen: their targets alone say what they look like.
    assert trunk.score(unseen)[:, 10:].argmax(1).tolist() == [0, 1]


def test_gaussian_scores_are_likelihood_ratios():
    rng = np.random.default_rng(0)
    targets, which = rng.standard_normal((6, 3)), np.repeat(np.arange(6), 9)
    trunk = GaussianTrunk().fit(targets[which] + rng.standard_normal((54, 3)), which, targets, seed=0)
    ratios = np.exp(trunk.score(rng.standard_normal((4, 3))))
    np.testing.assert_allclose(ratios.mean(axis=1), 1.0)


def test_anchors_show_what_the_new_subject_saw():
    draw = np.random.default_rng(0)
    there = np.array([3, 1, 2, 1, 0, 5])
    found = matched(np.array([1, 1, 2, 9]), there, "04", draw)
    assert sorted(there[found[:3]].tolist()) == [1, 1, 2]
    assert len(set(found.tolist())) == 4
    with pytest.raises(DataError, match="subject 04: 6 training samples, the new subject has 6"):
        matched(np.zeros(6, int), there, "04", draw)
    assert new_subjects({"01": 10, "02": 10, "03": 7}) == ["03"]
    assert new_subjects({"01": 10, "02": 8}) == []


def test_splits_that_leave_nobody_new_are_refused(brains: Brains):
    runs = SimulatedBrains(subjects=4, runs=3).load()
    with pytest.raises(DataError, match="none is new; use a FewShot split"):
        FewShotDecoder().fit(runs, LeaveRunsOut().splits(runs)[0].train, seed=0)
    split = FewShot(5, "02", 10, cut_runs=True).splits(brains)[0]
    few = [i for i in split.train if i[:2] in ("01", "02", "03")]
    with pytest.raises(DataError, match="2 subjects beside the new one; the trunk needs at least 3"):
        FewShotDecoder().fit(brains, few, seed=0)
    decoder = FewShotDecoder().fit(brains, split.train, seed=0)
    assert decoder.maps(brains)["02"]["adapter"].shape == (brains.subjects["02"].x.shape[1],)
    with pytest.raises(DataError, match=r"subject 01 has no adapter \(there are adapters of 02\); train one"):
        decoder.scores(brains, [i for i in split.train if i.startswith("01/")])
    with pytest.raises(ValueError, match=r"alphas=\[0\.0\]; expected numbers above 0"):
        FewShotDecoder(alphas=[0.0])


def test_semi_real_transfer_beats_the_ridge_adapter(shared_data: Path):
    outcome = sttm.run(shared_data / "fmri", small=True)
    assert [row["name"] for row in outcome["rows"] if row["ok"] is False] == []
    assert all(row["note"] for row in outcome["rows"])


def test_missing_data_names_the_import(tmp_path: Path):
    with pytest.raises(DataError, match=r"no such file or folder; .*`fusion data import fmri --from FOLDER`"):
        sttm.run(tmp_path)
