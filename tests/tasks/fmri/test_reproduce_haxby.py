"""The real block design: every published figure within its tolerance, and the bench's claims on small cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.brain.brain import Brain, Brains, sample_table
from data.brain.splits import LeaveRunsOut
from data.errors import DataError
from tasks.fmri import bench
from tasks.fmri.baselines import Ridge
from tasks.fmri.controls import lag_sweep, leakage
from tasks.fmri.permutation import ridge_null
from tasks.reproduce import haxby
from tests.tasks.fmri.made import CLASSES, blocks


def test_baselines_on_the_single_slice_are_as_published(shared_data: Path):
    outcome = haxby.run(shared_data / "fmri", small=True)
    assert [row["name"] for row in outcome["rows"] if not row["ok"]] == []
    ours = {row["name"]: row["ours"] for row in outcome["rows"]}
    assert ours["1slice: correlation"] == pytest.approx(0.677, abs=0.001)
    assert ours["1slice: ridge"] == pytest.approx(0.854, abs=0.001)
    assert ours["1slice: shrinkage LDA"] == pytest.approx(0.917, abs=0.001)
    assert ours["1slice: position only"] == pytest.approx(0.271, abs=0.001)
    notes = [row["note"] for row in outcome["rows"][:5]]
    assert all("permuted 95 %" in note and "chance .125" in note and "position only" in note for note in notes)


@pytest.mark.slow
def test_everything_holds_on_both_images(shared_data: Path):
    outcome = haxby.run(shared_data / "fmri", deep={})
    assert [row["name"] for row in outcome["rows"] if not row["ok"]] == []
    best = next(row for row in outcome["rows"] if "best of our models" in row["name"])
    assert best["ours"] >= 0.92


def test_permuting_real_labels_within_runs_gives_chance(shared_data: Path):
    brains = haxby.source(shared_data / "fmri", "25mm").load()
    null = ridge_null(brains, LeaveRunsOut().splits(brains), permutations=1000)
    assert null.drawn.mean() == pytest.approx(1 / 8, abs=0.005)
    assert null.p95 == pytest.approx(0.198, abs=0.03)
    assert null.p_value < 0.01


def test_missing_recordings_name_the_import(tmp_path: Path):
    with pytest.raises(DataError, match=r"no such file or folder; .*`fusion data import fmri --from FOLDER`"):
        haxby.run(tmp_path)


def test_a_sweep_has_a_row_per_lag_and_sees_the_wrong_one():
    right, wrong = blocks(signal=1.5), blocks(signal=0.0)
    table = lag_sweep({0.0: right, 5.0: wrong}.__getitem__, [0.0, 5.0], Ridge()).set_index("lag")
    assert table.loc[0.0, "value"] > table.loc[5.0, "value"] + 0.3
    assert (table["chance"] == 0.25).all()


def test_random_folds_gain_from_what_samples_of_a_run_share():
    """Every class is shown twice in a run and has a pattern of its own in each run: only a cut run can give it away."""
    draw = np.random.default_rng(0)
    labels = CLASSES * 2 * 6
    run = [f"run{k // 8}" for k in range(48)]
    own = draw.standard_normal((6, 4, 30))
    x = np.stack([own[k // 8, k % 4] for k in range(48)]) + 0.3 * draw.standard_normal((48, 30))
    brain = Brain("01", x.astype(np.float32), sample_table("01", run, [0.0] * 48, labels))
    table = leakage(Brains("made", {"01": brain}, [], CLASSES), Ridge()).set_index("split")["value"]
    assert table["whole runs"] < 0.4
    assert table["random folds (leaky)"] > 0.65


def test_the_null_of_the_bench_is_that_of_fitting_again():
    row = bench.bench_permutation(permutations=40, refits=3)
    assert "largest difference of an accuracy 0.0e+00" in row["note"]
    assert row["ratio"] < 0.2


def test_the_ridge_of_the_bench_is_that_of_its_peer():
    pytest.importorskip("himalaya")
    row = bench.bench_ridge(voxels=200, samples=100, features=20, repeats=1)
    assert float(row["note"].rsplit(" ", 1)[1]) < 1e-5


def test_a_run_is_read_as_nilearn_reads_it():
    row = bench.bench_reading(shape=(24, 24, 12, 40), repeats=1)
    assert float(row["note"].rsplit(" ", 1)[1]) < 1e-4
