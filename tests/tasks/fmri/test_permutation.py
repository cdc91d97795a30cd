"""The null: closed form equals fitting again, labels stay in their runs, and no signal is chance."""

from __future__ import annotations

import numpy as np
import pytest

from data.brain.brain import Brain, Brains, sample_table
from data.brain.splits import CutRuns, LeaveRunsOut
from data.errors import DataError
from tasks.fmri.baselines import Correlation, Ridge, ShrinkageLDA
from tasks.fmri.decoder import held_out
from tasks.fmri.permutation import fixed_null, permuted_within_runs, refitted_null, ridge_null
from tests.tasks.fmri.made import blocks


@pytest.mark.parametrize("signal", [0.0, 0.4])
@pytest.mark.parametrize("subjects", [1, 2])
def test_closed_form_is_fitting_again(signal: float, subjects: int):
    brains = blocks(signal=signal, subjects=subjects)
    splits = LeaveRunsOut().splits(brains)
    closed = ridge_null(brains, splits, 30.0, permutations=12)
    again = refitted_null(Ridge(30.0), brains, splits, permutations=12)
    assert closed.observed == again.observed
    np.testing.assert_allclose(closed.drawn, again.drawn, atol=1e-12)


def test_a_null_drawn_in_parts_is_the_null():
    brains = blocks(signal=0.2)
    splits = LeaveRunsOut().splits(brains)
    whole = refitted_null(Correlation(), brains, splits, permutations=7)
    parts = [refitted_null(Correlation(), brains, splits, 7, draws=slice(a, b)) for a, b in ((0, 3), (3, 4), (4, 7))]
    np.testing.assert_array_equal(np.concatenate([part.drawn for part in parts]), whole.drawn)
    assert {part.observed for part in parts} == {whole.observed}


def test_labels_move_only_inside_their_run():
    brains = blocks(subjects=2)
    table = brains.table
    order = permuted_within_runs(table, 50)
    runs = (table["subject"] + table["run"]).to_numpy()
    assert (runs[order] == runs).all()
    assert (np.sort(order, axis=1) == np.arange(len(table))).all()
    assert len(np.unique(order, axis=0)) == 50


def test_every_order_within_a_run_is_as_likely():
    table = blocks(runs=1).table
    order = permuted_within_runs(table, 6000)
    _, counts = np.unique(order, axis=0, return_counts=True)
    assert len(counts) == 24
    assert counts.min() > 170
    assert counts.max() < 340


def test_no_signal_is_chance_and_signal_is_not():
    nothing, something = (blocks(runs=10, signal=s, seed=3) for s in (0.0, 0.6))
    for brains, lowest in ((nothing, 0.05), (something, 0.0)):
        null = ridge_null(brains, LeaveRunsOut().splits(brains), permutations=500)
        assert null.drawn.mean() == pytest.approx(0.25, abs=0.01)
        assert (null.p_value > 0.05) == bool(lowest)
    assert null.p_value == 1 / 501
    assert null.observed > null.p95


def test_fixed_predictions_have_the_null_of_a_guess():
    brains = blocks(runs=10, signal=0.6)
    for decoder in (Correlation(), ShrinkageLDA()):
        null = fixed_null(held_out(decoder, brains, LeaveRunsOut().splits(brains)), brains)
        assert null.drawn.mean() == pytest.approx(0.25, abs=0.01)
        assert null.p_value == pytest.approx(1 / 1001)


def test_p_values_are_uniform_without_signal():
    """Over many data sets without signal, about 5 % fall below .05."""
    p = []
    for seed in range(120):
        brains = blocks(runs=4, voxels=10, signal=0.0, seed=seed)
        p.append(ridge_null(brains, LeaveRunsOut().splits(brains), permutations=99).p_value)
    assert np.mean(np.array(p) <= 0.05) < 0.11
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.15)


def test_folds_that_cut_runs_work_too():
    brains = blocks(signal=0.5)
    splits = CutRuns(3).splits(brains)
    closed = ridge_null(brains, splits, permutations=5)
    np.testing.assert_allclose(closed.drawn, refitted_null(Ridge(), brains, splits, permutations=5).drawn)


def test_a_run_of_one_sample_cannot_be_permuted():
    table = sample_table("01", ["a", "b"], [0.0, 0.0], ["x", "y"])
    brains = Brains("made", {"01": Brain("01", np.eye(2, dtype=np.float32), table)}, [], ["x", "y"])
    with pytest.raises(DataError, match="every run has a single sample"):
        permuted_within_runs(brains.table, 3)
