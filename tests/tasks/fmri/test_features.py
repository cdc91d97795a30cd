"""Models of what was shown beside the brains: encoding, geometry and Brain-Score by a config, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from data.simulate.brains import SimulatedBrains
from tasks.fmri.feature_units import TOGETHER, assembly
from tests.tasks.fmri.runs import ARMS, fmri, written

NOISE = {f"class{k:02d}-{j:02d}": [float(v) for v in row] for (k, j), row in zip(
    [(c, 3 * c + s) for c in range(5) for s in range(3)],
    np.random.default_rng(0).standard_normal((15, 8)), strict=True)}  # fmt: skip


def config(runs: Path, **over: object) -> dict:
    """Two people, 15 stimuli of 5 classes in 4 runs, and two models of the stimuli: the truth and noise."""
    return {
        "task": "fmri",
        "name": "featured",
        "runs": str(runs),
        "brains": {
            "class_path": "SimulatedBrains",
            "init_args": {
                "subjects": 2, "classes": 5, "stimuli": 3, "runs": 4, "noise": 1.0, "truth": "stimulus",
                "individual": 0.0, "voxels": [40, 60],
            },
        },
        "split": {"class_path": "LeaveRunsOut"},
        "model": ARMS["Ridge"],
        "features": {
            "truth": {"class_path": "GivenTargets"},
            "noise": {"class_path": "Attributes", "init_args": {"of": NOISE}},
        },
        "controls": {"permutations": 100, "leakage": False},
    } | over  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("featured")
    with pytest.MonkeyPatch.context() as patch:
        assert fmri(patch, "train", "-c", written(folder, config(folder / "runs")), "--quiet") == 0
    return folder / "runs" / "fmri" / "featured"


def table(run: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(run / "controls" / name / f"{name}.csv", dtype={"subject": str})


def test_the_model_that_is_true_predicts_voxels_and_noise_does_not(run: Path):
    rows = table(run, "encoding").set_index(["subject", "features"])
    for subject in ("01", "02"):
        assert rows.loc[(subject, "truth"), "significant"] > 0.8 * rows.loc[(subject, "truth"), "voxels"]
        true, noise = rows.loc[(subject, "truth")], rows.loc[(subject, "noise")]
        assert true["mean"] > true["shuffled"] + 0.05
        assert noise["shuffled"] > noise["p95"] / 2, "all runs show the same stimuli, and noise tells them apart"
        assert noise["mean"] - noise["shuffled"] < true["mean"] - true["shuffled"]
    pytest.importorskip("himalaya")
    assert rows.loc[("01", TOGETHER), "mean"] > 0.9 * rows.loc[("01", "truth"), "mean"]


def test_correlations_of_voxels_are_bids_derivatives(run: Path):
    path = run / "derivatives" / "sub-01" / "func" / "sub-01_label-truth_desc-encoding_statmap.nii.gz"
    values = nibabel.load(path).get_fdata()
    inside = nibabel.load(path.with_name("sub-01_desc-decoded_mask.nii.gz")).get_fdata() > 0
    mean = table(run, "encoding").set_index(["subject", "features"]).loc[("01", "truth"), "mean"]
    assert values[inside].mean() == pytest.approx(mean, abs=1e-5)
    assert (values[~inside] == 0).all()
    for name in ("encoding", "modelrsa", "brainscore", "geometry"):
        assert (run / "derivatives" / f"{name}.json").is_file()


def test_the_geometry_of_the_true_model_reaches_the_ceiling(run: Path):
    rows = table(run, "model-rsa").set_index(["between", "model"])
    assert set(rows.index.get_level_values(0)) == {"runs of subject 01", "runs of subject 02", "subjects"}
    true, noise = rows.loc[("subjects", "truth")], rows.loc[("subjects", "noise")]
    assert true["value"] > 0.8 * true["ceiling_low"]
    assert true["p"] < 0.05
    assert noise["value"] < noise["p95"]


def test_brain_score_of_the_true_model_is_near_one_and_falls_when_stimuli_are_shuffled(run: Path):
    rows = table(run, "brain-score").set_index(["subject", "features"])
    for subject in ("01", "02"):
        row = rows.loc[(subject, "truth")]
        assert row["score"] > 0.7
        assert row["shuffled"] < 0.3
        assert (row["stimuli"], row["repeats"]) == (15, 4)
        assert rows.loc[(subject, "noise"), "score"] < 0.3


def test_the_page_shows_all_of_it(run: Path):
    page = (run / "report.html").read_text()
    for words in ("Features of what was shown", "Encoding: how well", "Geometry: Spearman", "Brain-Score: partial"):
        assert words in page
    assert "Where features predict the brain, subject 01" in page


def test_what_data_do_not_allow_is_said_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    few = {"class_path": "SimulatedBrains", "init_args": {"subjects": 1, "classes": 4, "runs": 2, "voxels": [20, 20]}}
    only = {"classes": {"class_path": "OneHot"}}
    given = written(tmp_path, config(tmp_path / "runs", brains=few, features=only))
    assert fmri(monkeypatch, "train", "-c", given, "--quiet") == 0
    page = (tmp_path / "runs" / "fmri" / "featured" / "report.html").read_text()
    assert "encoding chooses its penalties on held-out runs and found one run only" in page
    assert "classes: sets all candidates equally far apart" in page
    assert "4 stimuli; Brain-Score needs at least 10" in page


def test_features_made_of_the_brains_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    circular = {"others": {"class_path": "GroupGeometry"}}
    given = written(tmp_path, config(tmp_path / "runs", features=circular))
    assert fmri(monkeypatch, "train", "-c", given, "--quiet") == 2
    assert "features.others: GroupGeometry is made of the brains it would be compared with" in capsys.readouterr().err


def test_an_assembly_has_as_many_repeats_as_the_rarest_candidate():
    brains = SimulatedBrains(subjects=1, classes=4, runs=3, voxels=(20, 20)).load()
    responses, seen = assembly(brains.subjects["01"], brains)
    assert responses.shape == (4, 3, 20)
    assert seen == [0, 1, 2, 3]
    gone = brains.table.index[
        (brains.table["label"] == "class01") & (brains.table["run"] != brains.table["run"].iloc[0])
    ]
    fewer = brains.only([i for i in brains.table.index if i not in set(gone)])
    assert assembly(fewer.subjects["01"], fewer)[0].shape == (4, 20)
