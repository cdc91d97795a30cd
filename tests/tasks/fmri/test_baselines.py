"""Baselines: each equals its definition, learns from training samples alone, and says what it cannot do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf as theirs_ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from data.brain.brain import Brain, Brains, BrainSource, sample_table
from data.brain.splits import LeaveRunsOut
from data.errors import DataError
from tasks.fmri.baselines import (
    Chance,
    Correlation,
    LinearSVM,
    Logistic,
    Position,
    Ridge,
    ShrinkageLDA,
    correlations,
)
from tasks.fmri.decoder import Decoder, held_out
from tasks.fmri.discriminants import discriminants, ledoit_wolf
from tasks.fmri.metrics import judge
from tasks.fmri.nested import Nested, average
from tasks.fmri.volumes import FromVolumes
from tests.tasks.fmri.made import CLASSES, blocks

LINEAR = [Correlation(), Ridge(), Logistic(), LinearSVM(), ShrinkageLDA()]
names = pytest.mark.parametrize("decoder", LINEAR, ids=lambda d: type(d).__name__)


def accuracy(decoder: Decoder, brains: Brains) -> float:
    splits = LeaveRunsOut().splits(brains)
    return float(judge(held_out(decoder, brains, splits), brains.table, brains.truth)["accuracy"].mean())


@pytest.mark.parametrize(
    ("decoder", "theirs"),
    [
        (Ridge(10.0), RidgeClassifier(alpha=10.0)),
        (Logistic(0.1), LogisticRegression(C=0.1, max_iter=1000)),
        (LinearSVM(), LinearSVC(random_state=0, max_iter=10000)),
        (ShrinkageLDA(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")),
    ],
    ids=lambda d: type(d).__name__,
)
def test_scores_are_those_of_scikit_learn(decoder: Decoder, theirs):
    brains = blocks(signal=0.5)
    split = LeaveRunsOut().splits(brains)[0]
    ours = decoder.fit(brains, split.train, seed=0).scores(brains, split.test).matrix
    (x, table), (new, _) = (brains.rows(side)["01"] for side in (split.train, split.test))
    scaler = StandardScaler().fit(x.astype(np.float64))
    theirs.fit(scaler.transform(x.astype(np.float64)), table["label"].to_numpy().astype(str))
    expected = theirs.decision_function(scaler.transform(new.astype(np.float64)))
    if isinstance(decoder, Ridge):
        expected = (expected + 1) / 2
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("samples", "voxels"), [(40, 5), (30, 200)])
def test_shrinkage_is_the_rule_of_ledoit_and_wolf(samples: int, voxels: int):
    z = np.random.default_rng(0).standard_normal((samples, voxels)) * np.linspace(0.5, 2, voxels)
    z -= z.mean(axis=0)
    covariance, shrunk = theirs_ledoit_wolf(z, assume_centered=True)
    ours, size = ledoit_wolf(z)
    assert ours == pytest.approx(shrunk)
    assert size == pytest.approx(np.trace(covariance) / voxels)


@pytest.mark.parametrize("runs", [2, 3])
def test_discriminants_survive_one_and_two_samples_of_a_class(runs: int):
    """Of two samples the rule shrinks nothing, and scikit-learn's discriminants are at chance where others are not."""
    brains = blocks(runs=runs, voxels=300, signal=0.7)
    assert accuracy(ShrinkageLDA(), brains) > accuracy(Correlation(), brains) - 0.2 > 0.5


def test_discriminants_of_a_whole_brain_need_no_covariance_of_its_voxels():
    draw = np.random.default_rng(0)
    of = np.arange(24) % 3
    weights, offset = discriminants(draw.standard_normal((24, 60_000)) + 0.1 * of[:, None], of, 3)
    assert weights.shape == (60_000, 3), "their covariance would fill 29 GB"
    assert np.isfinite(offset).all()


def test_correlation_is_that_of_the_centred_patterns():
    brains = blocks(signal=0.5)
    split = LeaveRunsOut().splits(brains)[0]
    ours = Correlation().fit(brains, split.train, seed=0).scores(brains, split.test).matrix
    (x, table), (new, _) = (brains.rows(side)["01"] for side in (split.train, split.test))
    for row, sample in zip(ours, new - x.mean(axis=0), strict=True):
        for value, name in zip(row, CLASSES, strict=True):
            pattern = x[(table["label"] == name).to_numpy()].mean(axis=0) - x.mean(axis=0)
            assert value == pytest.approx(np.corrcoef(sample, pattern)[0, 1], abs=1e-5)


@names
def test_signal_is_found_and_noise_is_not(decoder: Decoder):
    assert accuracy(decoder, blocks(signal=1.5)) > 0.9
    assert accuracy(decoder, blocks(runs=12, signal=0.0)) < 0.45


@names
def test_scored_samples_and_labels_are_never_learnt_from(decoder: Decoder):
    brains = blocks()
    split = LeaveRunsOut().splits(brains)[2]
    before = decoder.fit(brains, split.train, seed=0).scores(brains, split.test).matrix
    brain = brains.subjects["01"]
    x, table = brain.x.copy(), brain.table.copy()
    out = table.index.isin(split.test)
    table.loc[out, "label"] = table.loc[out, "label"].tolist()[::-1]
    spoiled = np.where(out[:, None], 1e3, x).astype(np.float32)
    changed = replace(brains, subjects={"01": Brain("01", spoiled, table)})
    after = decoder.fit(changed, split.train, seed=0).scores(brains, split.test).matrix
    np.testing.assert_array_equal(after, before)


@names
def test_a_voxel_that_is_constant_in_training_breaks_nothing(decoder: Decoder):
    brains = blocks()
    x = brains.subjects["01"].x.copy()
    x[:, 3] = 5.0
    changed = replace(brains, subjects={"01": replace(brains.subjects["01"], x=x)})
    assert accuracy(decoder, changed) > 0.8


@names
def test_there_is_a_map_per_class_over_the_voxels_of_each_subject(decoder: Decoder):
    brains = blocks(subjects=2)
    maps = decoder.fit(brains, list(brains.table.index), seed=0).maps(brains)
    assert {subject: list(own) for subject, own in maps.items()} == {"01": CLASSES, "02": CLASSES}
    assert {len(values) for values in maps["02"].values()} == {41}


def test_two_classes_have_two_scores():
    brains = blocks()
    two = brains.only(list(brains.table.index[brains.table["label"].isin(["cat", "face"])]))
    two = replace(two, candidates=["cat", "face"])
    for decoder in (Logistic(), LinearSVM(), ShrinkageLDA(), Ridge()):
        assert accuracy(decoder, two) > 0.8


def test_a_class_that_one_subject_never_saw_scores_never():
    brains = blocks()
    train = [i for i in brains.table.index if brains.table.loc[i, "label"] != "cat"]
    scores = Ridge().fit(brains, train, seed=0).scores(brains, list(brains.table.index))
    assert (scores.matrix[:, CLASSES.index("cat")] == -np.inf).all()


def test_position_reads_the_order_of_classes_and_nothing_else():
    labels = CLASSES * 5
    run = [f"r{k // 4}" for k in range(20)]
    table = sample_table("01", run, [0.0] * 20, labels)
    noise = np.random.default_rng(0).standard_normal((20, 7)).astype(np.float32)
    brains = Brains("made", {"01": Brain("01", noise, table)}, [], CLASSES)
    assert accuracy(Position(), brains) == 1
    assert accuracy(Chance(), brains) == 0.25
    shifted = replace(brains, subjects={"01": replace(brains.subjects["01"], x=noise + 100)})
    assert accuracy(Position(), shifted) == 1


def test_a_subject_without_a_fit_is_named_with_the_remedy():
    brains = blocks(subjects=2)
    own = [i for i in brains.table.index if i.startswith("01/")]
    decoder = Ridge().fit(brains, own, seed=0)
    with pytest.raises(DataError, match=r"subject 02: Ridge has no fit for it \(only 01\); train on some"):
        decoder.scores(brains, ["02/run-1/0"])
    with pytest.raises(DataError, match="subject 01: Ridge needs two classes in training and found 1"):
        Ridge().fit(brains, own[:1], seed=0)


def test_correlations_of_a_constant_row_are_zero():
    a = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 4.0]])
    np.testing.assert_allclose(correlations(a, a), [[0, 0], [0, 1]], atol=1e-12)


class Volumes(BrainSource):
    """Three noisy volumes for each block mean of `brains`."""

    def __init__(self, brains: Brains, noise: float = 1.0):
        self.brains, self.noise = brains, noise

    def read(self) -> Brains:
        people = {}
        for subject, brain in self.brains.subjects.items():
            x = np.repeat(brain.x, 3, axis=0)
            x = x + self.noise * np.random.default_rng(0).standard_normal(x.shape)
            run, label = (np.repeat(brain.table[column].to_numpy(), 3).tolist() for column in ("run", "label"))
            people[subject] = Brain(subject, x.astype(np.float32), sample_table(subject, run, [0.0] * len(run), label))
        return replace(self.brains, name="volumes", subjects=people)


def test_learning_from_volumes_without_noise_is_learning_from_blocks():
    brains = blocks(signal=0.5, subjects=2)
    np.testing.assert_allclose(
        held_out(FromVolumes(Correlation(), Volumes(brains, 0.0)), brains, LeaveRunsOut().splits(brains)).matrix,
        held_out(Correlation(), brains, LeaveRunsOut().splits(brains)).matrix,
        atol=1e-5,
    )


def test_volumes_of_scored_runs_are_never_trained_on():
    brains = blocks()
    decoder = FromVolumes(Ridge(), Volumes(brains))
    assert accuracy(decoder, brains) > 0.7
    ids = list(brains.table.index)
    decoder.fit(brains, ids[1:], seed=0)
    with pytest.raises(DataError, match="run 01/run-1 is scored and its volumes were trained on"):
        decoder.scores(brains, ids[:1])
    other = Volumes(blocks(voxels=7))
    with pytest.raises(DataError, match="subject 01: 7 voxels in volumes and 40 in samples"):
        FromVolumes(Ridge(), other).fit(brains, ids, seed=0)


def test_the_nested_choice_takes_what_works_inside_training(tmp_path: Path):
    brains = blocks(signal=0.8)
    split = LeaveRunsOut().splits(brains)[0]
    nested = Nested({"chance": Chance(), "ridge": Ridge(), "position": Position()})
    scores = nested.fit(brains, split.train, seed=0, folder=tmp_path).scores(brains, split.test)
    assert nested.chosen == ("ridge",)
    alone = Ridge().fit(brains, split.train, seed=0).scores(brains, split.test)
    np.testing.assert_array_equal(scores.matrix, alone.matrix)
    assert nested.table.index[0] == "ridge"
    assert nested.maps(brains)["01"].keys() == set(CLASSES)


def test_the_nested_choice_never_sees_the_scored_run():
    """Whatever stands in the scored run, the choice and the scores of a fixed sample stay."""
    brains = blocks(signal=0.3)
    split = LeaveRunsOut().splits(brains)[0]
    nested = Nested({"correlation": Correlation(), "ridge": Ridge(), "LDA": ShrinkageLDA()}, together=2)
    before, table = nested.fit(brains, split.train, seed=0).chosen, nested.table
    brain = brains.subjects["01"]
    out = brain.table.index.isin(split.test)
    changed = replace(
        brains, subjects={"01": replace(brain, x=np.where(out[:, None], 9.0, brain.x).astype(np.float32))}
    )
    assert nested.fit(changed, split.train, seed=0).chosen == before
    assert nested.table.equals(table)


def test_a_choice_inside_a_single_training_run_is_refused_with_what_to_do():
    brains = blocks(runs=2)
    split = LeaveRunsOut().splits(brains)[0]
    with pytest.raises(DataError, match=r"cannot choose inside the 4 training samples: .* name one decoder"):
        Nested({"ridge": Ridge()}).fit(brains, split.train, seed=0)


def test_an_average_of_one_decoder_with_itself_ranks_as_it_does():
    brains = blocks(signal=0.5)
    scores = held_out(Ridge(), brains, LeaveRunsOut().splits(brains))
    both = average([scores, scores])
    assert (both.matrix.argmax(axis=1) == scores.matrix.argmax(axis=1)).all()
    np.testing.assert_allclose(both.matrix.std(axis=1), 1)


@pytest.mark.parametrize("voxels", [6, 60_000])
def test_where_nothing_is_shrunk_the_discriminants_are_the_least_ones(voxels: int):
    """Samples at plus and minus one vector of each class: the rule shrinks by 0, and the covariance is singular."""
    draw = np.random.default_rng(0)
    of, sign = np.arange(12) % 3, np.where(np.arange(12) < 6, 1.0, -1.0)
    means, along = draw.standard_normal((2, 3, voxels))
    x = means[of] + sign[:, None] * along[of]
    weights, _ = discriminants(x, of, 3)
    assert np.isfinite(weights).all()
    if voxels == 6:
        covariance = sum(np.outer(one, one) for one in along) / 3
        expected = np.linalg.lstsq(covariance, means.T, rcond=1e-10)[0]
        np.testing.assert_allclose(weights, expected, atol=1e-6)
