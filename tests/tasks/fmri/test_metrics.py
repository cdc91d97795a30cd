"""Laws of the numbers: definitions, ties, transposes, chance, and intervals over units."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from data.brain.splits import LeaveRunsOut
from data.errors import DataError
from tasks.fmri.baselines import Chance, Ridge
from tasks.fmri.decoder import Scores, held_out
from tasks.fmri.metrics import (
    MEASURES,
    backward,
    by_group,
    compare_judged,
    confusion,
    forward,
    judge,
    places,
    retrieval,
    retrieved,
    summary,
    top_k,
    two_way,
)
from tests.tasks.fmri.made import CLASSES, blocks, geometry


def drawn(n: int = 200, k: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.standard_normal((n, k)), draw.integers(0, k, n)


def test_accuracy_and_top_k_are_those_of_scikit_learn():
    matrix, truth = drawn()
    assert top_k(matrix, truth).mean() == accuracy_score(truth, matrix.argmax(axis=1))
    for k in (2, 5):
        assert top_k(matrix, truth, k).mean() == top_k_accuracy_score(truth, matrix, k=k, labels=range(8))


def test_two_way_is_the_share_of_pairs_won():
    matrix, truth = drawn(30)
    for row, right, value in zip(matrix, truth, two_way(matrix, truth), strict=True):
        assert value == pytest.approx(np.mean([row[right] > row[j] for j in range(8) if j != right]))


def test_scores_that_are_all_alike_get_exactly_chance():
    matrix, truth = np.zeros((5, 8)), np.array([0, 3, 7, 1, 2])
    assert top_k(matrix, truth).tolist() == [1 / 8] * 5
    assert top_k(matrix, truth, 5).tolist() == [5 / 8] * 5
    assert two_way(matrix, truth).tolist() == [0.5] * 5


def test_a_tie_is_the_mean_over_ways_to_break_it():
    matrix, truth = np.array([[2.0, 1.0, 1.0, 1.0, 0.0]]), np.array([2])
    assert top_k(matrix, truth, 1)[0] == 0
    assert top_k(matrix, truth, 2)[0] == pytest.approx(1 / 3)
    assert top_k(matrix, truth, 4)[0] == 1


def test_measures_do_not_depend_on_the_order_of_candidates():
    matrix, truth = drawn()
    order = np.random.default_rng(1).permutation(8)
    moved = np.argsort(order)[truth]
    for measure in (top_k, two_way):
        np.testing.assert_array_equal(measure(matrix[:, order], moved), measure(matrix, truth))


def test_backward_is_forward_of_the_transpose():
    matrix = np.random.default_rng(0).standard_normal((40, 40)) + np.eye(40)
    for k in (1, 5):
        assert backward(matrix, k) == forward(matrix.T, k)
    assert forward(np.eye(7)) == backward(np.eye(7)) == 1


def test_retrieval_of_random_unit_vectors_is_one_in_n():
    draw = np.random.default_rng(0)
    found = []
    for _ in range(400):
        a, b = (draw.standard_normal((20, 16)) for _ in range(2))
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        found.append((forward(a @ b.T), backward(a @ b.T), forward(a @ b.T, 5)))
    np.testing.assert_allclose(np.mean(found, axis=0), [1 / 20, 1 / 20, 5 / 20], atol=0.012)


def test_retrieval_takes_the_tested_stimuli_of_each_subject_as_gallery():
    brains = geometry(people=2)
    run = brains.table["run"] == "run-2"
    ids = list(brains.table.index[run])
    column = {name: k for k, name in enumerate(brains.candidates)}
    matrix = np.zeros((len(ids), len(column)))
    for row, name in enumerate(brains.table.loc[ids, "stimulus"]):
        matrix[row, column[name]] = 1.0
    found = retrieval(Scores(ids, matrix, brains.candidates), brains.table)
    assert len(found) == 2 * 2 * 2
    assert (found["value"] == 1).all()
    assert (found["n"] == 30).all()
    assert found["chance"].tolist() == [1 / 30, 5 / 30] * 4


def test_every_sample_of_a_gallery_is_found_or_not_in_both_directions():
    """The mean of the hits is the retrieval; turned around, forward and backward change places, sample by sample."""
    brains = geometry(people=1, stimuli=7)
    ids = list(brains.table.index[:7])
    shown = list(brains.table.loc[ids, "stimulus"])
    matrix = np.random.default_rng(3).standard_normal((7, 7))
    hits = retrieved(Scores(ids, matrix, shown), brains.table)
    assert len(hits) == 7 * 2 * 2
    assert hits["value"].isin([0.0, 1.0]).all()
    means = retrieval(Scores(ids, matrix, shown), brains.table).set_index(["direction", "k"])["value"]
    assert hits.groupby(["direction", "k"])["value"].mean().to_dict() == means.to_dict()
    turned = retrieved(Scores(ids, matrix.T, shown), brains.table)
    for one, other in (("forward", "backward"), ("backward", "forward")):
        found = (table.loc[table["direction"] == d, "value"].tolist() for table, d in ((hits, one), (turned, other)))
        assert next(found) == next(found)


def test_retrieval_refuses_repeats():
    brains = geometry(people=1)
    ids = list(brains.table.index)
    scores = Scores(ids, np.zeros((len(ids), len(brains.candidates))), brains.candidates)
    with pytest.raises(DataError, match=r"subject 01: stimulus 'image.*tested more than once.*average repeats"):
        retrieval(scores, brains.table)


def test_summary_holds_chance_units_and_an_interval_around_the_value():
    brains = blocks(signal=0.4)
    judged = judge(held_out(Ridge(), brains, LeaveRunsOut().splits(brains)), brains.table)
    table = summary(judged, 4).set_index("metric")
    assert list(table.index) == list(MEASURES)
    assert table["chance"].tolist() == [0.25, 0.5, 1.0]
    assert (table["units"] == 6).all()
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    assert table.loc["accuracy", "value"] == judged["accuracy"].mean()


def test_whole_units_are_resampled():
    """One run right, one run wrong: the interval over runs reaches from 0 to 1, that over samples does not."""
    table = pd.DataFrame({"subject": "01", "run": ["a"] * 50 + ["b"] * 50, "accuracy": [1.0] * 50 + [0.0] * 50})
    judged = table.assign(two_way=table["accuracy"], top5=1.0)
    by_run = summary(judged, 4, unit="run").set_index("metric").loc["accuracy"]
    by_sample = summary(judged, 4, unit="sample").set_index("metric").loc["accuracy"]
    assert (by_run["low"], by_run["high"]) == (0, 1)
    assert by_sample["low"] > 0.3
    assert by_sample["high"] < 0.7


def test_an_arm_does_not_differ_from_itself_and_beats_chance():
    brains = blocks()
    splits = LeaveRunsOut().splits(brains)
    ridge, chance = (judge(held_out(d, brains, splits), brains.table) for d in (Ridge(), Chance()))
    same = compare_judged("ridge", "ridge", ridge, ridge)
    assert (same.difference.value, same.difference.low, same.difference.high) == (0, 0, 0)
    better = compare_judged("ridge", "chance", ridge, chance)
    assert better.difference.excludes_zero
    assert "ridge is better than chance" in better.sentence


def test_confusion_counts_every_sample_and_has_hits_on_its_diagonal():
    brains = blocks(signal=0.4)
    judged = judge(held_out(Ridge(), brains, LeaveRunsOut().splits(brains)), brains.table)
    counts = confusion(judged, CLASSES)
    assert list(counts.index) == list(counts.columns) == CLASSES
    assert counts.to_numpy().sum() == len(judged)
    assert np.trace(counts.to_numpy()) == judged["accuracy"].sum()
    assert by_group(judged, "label").loc["cat", "accuracy"] == counts.loc["cat", "cat"] / counts.loc["cat"].sum()


def test_what_is_wrong_with_scores_is_said():
    with pytest.raises(DataError, match=r"scores \(2, 3\) for 2 samples and 2 candidates"):
        Scores(["a", "b"], np.zeros((2, 3)), ["x", "y"])
    with pytest.raises(DataError, match="sample a stands more than once"):
        Scores(["a", "a"], np.zeros((2, 2)), ["x", "y"])
    with pytest.raises(DataError, match="sample b has a score that is not a number"):
        Scores(["a", "b"], np.array([[0.0, 0.0], [0.0, np.nan]]), ["x", "y"])
    scores = Scores(["a", "b"], np.eye(2), ["x", "y"])
    with pytest.raises(DataError, match="sample b: its truth 'z' is not among the 2 candidates"):
        places(scores, ["x", "z"])
    with pytest.raises(DataError, match="no candidate 'z'"):
        scores.among(["z"])
    with pytest.raises(DataError, match="sample c was not scored"):
        scores.of(["c"])
    assert scores.of(["b", "a"]).matrix.tolist() == [[0, 1], [1, 0]]
    assert scores.among(["y"]).matrix.tolist() == [[0], [1]]
