"""Betas from npz and HDF5: one file per subject or a group each, with what is missing said by name."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from data.brain.arrays import ArrayBrains, ArrayKeys
from data.errors import DataError


def arrays(seed: int = 0, runs: int = 3, voxels: int = 6) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = np.array(["face", "house"] * runs)
    return {
        "x": draw.normal(size=(2 * runs, voxels)).astype(np.float32),
        "label": labels,
        "run": np.repeat(np.arange(1, runs + 1), 2),
        "stimulus": np.array([f"{label}{k // 2}" for k, label in enumerate(labels)]),
    }


def write(path: Path, **changes: np.ndarray | None) -> Path:
    content = {k: v for k, v in {**arrays(), **changes}.items() if v is not None}
    if path.suffix == ".npz":
        np.savez(path, **content)
    else:
        with h5py.File(path, "w") as file:
            for key, value in content.items():
                file[key] = value.astype("S") if value.dtype.kind == "U" else value
    return path


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_a_file_per_subject(tmp_path: Path, suffix: str):
    for subject, seed in (("sub-10", 1), ("sub-2", 0)):
        write(tmp_path / f"{subject}{suffix}", x=arrays(seed)["x"])
    brains = ArrayBrains(str(tmp_path)).load()
    assert list(brains.subjects) == ["2", "10"]
    assert brains.candidates == ["face", "house"]
    assert np.array_equal(brains.subjects["2"].x, arrays()["x"])
    assert list(brains.subjects["2"].table.index) == [f"2/{r}/{p}" for r in (1, 2, 3) for p in (0, 1)]
    assert brains.account[0] == "subject 10: 6 samples in 3 runs, 6 voxels"
    stimuli = ArrayBrains(str(tmp_path), truth="stimulus", subjects=["2"]).load()
    assert stimuli.candidates == ["face0", "face1", "face2", "house0", "house1", "house2"]


def test_a_group_per_subject_and_other_names(tmp_path: Path):
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for seed, subject in enumerate(("sub-01", "sub-02")):
            group = file.create_group(subject)
            group["betas"], group["label"] = arrays(seed)["x"], arrays()["label"].astype("S")
            group["session"] = arrays()["run"]
    brains = ArrayBrains(str(tmp_path / "all.h5"), keys=ArrayKeys(x="betas", run="session")).load()
    assert list(brains.subjects) == ["01", "02"]
    assert brains.name == "all"


def test_voxels_that_say_nothing_are_dropped_and_the_others_keep_their_place(tmp_path: Path):
    x = arrays()["x"].copy()
    x[0, 1], x[:, 4] = np.nan, 2.0
    mask = np.zeros((2, 2, 3), dtype=bool)
    mask.ravel()[[0, 2, 3, 7, 8, 11]] = True
    write(tmp_path / "sub-01.npz", x=x, mask=mask, affine=np.eye(4))
    brains = ArrayBrains(str(tmp_path)).load()
    brain = brains.subjects["01"]
    assert brain.space is not None
    assert np.flatnonzero(brain.space.mask.ravel()).tolist() == [0, 3, 7, 11]
    assert brains.account[1] == "subject 01: 2 voxels that are NaN or constant, dropped"


def test_runs_can_be_standardised_each_by_itself(tmp_path: Path):
    x = arrays(runs=3)["x"] + np.repeat([0.0, 50.0, -9.0], 2)[:, None].astype(np.float32)
    write(tmp_path / "sub-01.npz", x=x)
    brain = ArrayBrains(str(tmp_path), standardise="run").load().subjects["01"]
    for run in brain.runs:
        rows = (brain.table["run"] == run).to_numpy()
        assert np.allclose(brain.x[rows].mean(axis=0), 0, atol=1e-4)
        assert np.allclose(brain.x[rows].std(axis=0), 1, atol=1e-3)


BROKEN = {
    "no runs": ({"run": None}, r"sub-01\.npz: no array 'run' \(what is held out whole\); there are x, label"),
    "no labels": ({"label": None}, r"sub-01\.npz: no array 'label'"),
    "wrong shape": ({"x": np.zeros(6)}, r"x is float64 of shape \(6,\); expected numbers, samples by voxels"),
    "text": ({"x": np.array([["a"]] * 6)}, r"x is <U1 of shape"),
    "too few labels": ({"label": np.array(["face"])}, "1 values in label for 6 rows of x"),
    "too few onsets": ({"onset": np.zeros(2)}, "2 values in onset for 6 rows of x"),
    "constant": ({"x": np.zeros((6, 2))}, "every voxel is NaN or constant; check x"),
    "mask": ({"mask": np.ones((1, 1, 5)), "affine": np.eye(4)}, "a mask of shape .* with 5 voxels"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named_and_other_subjects_go_on(tmp_path: Path, kind: str):
    changes, said = BROKEN[kind]
    write(tmp_path / "sub-01.npz", **changes)
    with pytest.raises(DataError, match=said) as raised:
        ArrayBrains(str(tmp_path)).load()
    assert "\n" not in str(raised.value)
    write(tmp_path / "sub-02.npz")
    brains = ArrayBrains(str(tmp_path)).load()
    assert list(brains.subjects) == ["02"]
    assert any(line.startswith("subject 01 left out: ") for line in brains.account)


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_a_truncated_file_is_named_and_other_subjects_go_on(tmp_path: Path, suffix: str):
    path = write(tmp_path / f"sub-01{suffix}")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=rf"sub-01\{suffix}: cannot be read"):
        ArrayBrains(str(tmp_path)).load()
    write(tmp_path / "sub-02.npz")
    brains = ArrayBrains(str(tmp_path)).load()
    assert list(brains.subjects) == ["02"]
    assert brains.account[0].startswith(f"left out: {path}: cannot be read")


def test_a_subject_in_two_files_is_refused(tmp_path: Path):
    for name in ("sub-01.npz", "sub-01_beta.npz"):
        write(tmp_path / name)
    with pytest.raises(DataError, match=r"sub-01_beta\.npz: subject 01 is in .*sub-01\.npz too; remove one"):
        ArrayBrains(str(tmp_path)).load()


def test_one_person_under_two_labels_counts_once(tmp_path: Path):
    for subject, seed in (("1", 0), ("01", 1), ("2", 1), ("3", 2)):
        write(tmp_path / f"sub-{subject}.npz", x=arrays(seed)["x"])
    brains = ArrayBrains(str(tmp_path)).load()
    assert list(brains.subjects) == ["01", "3"]
    assert brains.account[-2:] == [
        "subject 1 left out: subject 01 has the same label but for zeros or case, so one person may count as two; "
        "rename one of them, or name one in subjects",
        "subject 2 left out: its run 1 holds the same samples as run 1 of subject 01, so one person would count as "
        "two; remove the copy",
    ]


def test_places_without_arrays_are_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"no \.npz, \.h5 or \.hdf5 here"):
        ArrayBrains(str(tmp_path)).load()
    (tmp_path / "x.csv").write_text("1")
    with pytest.raises(DataError, match=r"x\.csv: not \.npz, \.h5 or \.hdf5"):
        ArrayBrains(str(tmp_path / "x.csv")).load()
    write(tmp_path / "sub-01.npz")
    with pytest.raises(DataError, match="no subject 09; there are 01"):
        ArrayBrains([str(tmp_path / "sub-01.npz")], subjects=["01", "09"]).load()
    write(tmp_path / "sub-01.npz", stimulus=None)
    with pytest.raises(DataError, match="no array 'stimulus', and stimuli are to be retrieved"):
        ArrayBrains([str(tmp_path / "sub-01.npz")], truth="stimulus").load()


def test_targets_come_sorted_with_their_names(tmp_path: Path):
    write(tmp_path / "sub-01.npz")
    target = tmp_path / "targets" / "t.npz"
    target.parent.mkdir()
    np.savez(target, names=["house", "cat", "face"], embedding=np.array([[1.0, 0], [2, 0], [3, 0]]))
    brains = ArrayBrains(str(tmp_path), targets=str(target)).load()
    assert brains.candidates == ["cat", "face", "house"]
    assert brains.targets is not None
    assert brains.targets[:, 0].tolist() == [2, 3, 1]
    for content, said in (
        ({"names": ["house", "cat"], "embedding": np.zeros((2, 1))}, "no embedding of face"),
        ({"names": ["house", "face"], "embedding": np.zeros((3, 1))}, "expected one finite row per name"),
        ({"names": ["face", "face"], "embedding": np.zeros((2, 1))}, "face is named more than once"),
        ({"words": ["face"]}, "expected arrays names and embedding; there are words"),
    ):
        np.savez(target, **content)
        with pytest.raises(DataError, match=said):
            ArrayBrains(str(tmp_path), targets=str(target)).load()
