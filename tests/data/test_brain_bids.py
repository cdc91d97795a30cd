"""BIDS and its derivatives: what is found by name, what a run inherits, and what must be said when it is ambiguous."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.brain.bids import BidsBrains
from data.brain.clean import Cleaning
from data.brain.layouts import BidsFile
from data.brain.openfmri import OpenFmriBrains
from data.errors import DataError
from data.simulate.scans import SimulatedScans
from tests.data.brain_files import TR, series, write_events, write_image, write_mask

FMRIPREP = "derivatives/fmriprep"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SimulatedScans(runs=2, seed=1).write(tmp_path_factory.mktemp("scans") / "bids")


@pytest.fixture
def bids(pristine: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(pristine, tmp_path / "bids"))


def source(folder: Path, **options) -> BidsBrains:
    return BidsBrains(str(folder), **({"lag": 4.0, "derivatives": FMRIPREP} | options))


def test_derivatives_bring_masks_and_confounds_and_the_raw_folder_events(pristine: Path):
    brains = source(pristine, cleaning=Cleaning(confounds=["motion", "cosine"])).load()
    assert list(brains.subjects) == ["01", "02"]
    assert brains.candidates == ["bottle", "face", "house"]
    assert brains.subjects["01"].x.shape == (6, 320)
    assert brains.subjects["01"].runs == ["run-1", "run-2"]
    assert brains.account[0] == "subject 01: 6 blocks of 3 classes in 2 runs, 320 voxels, lag 4 s"


def test_raw_runs_get_a_computed_mask_and_one_may_be_given(pristine: Path):
    computed = source(pristine, derivatives=None, subjects=["sub-02"]).load()
    assert list(computed.subjects) == ["02"]
    func = f"{FMRIPREP}/sub-02/func/sub-02_task-objects_run-1_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz"
    given = source(pristine, derivatives=None, mask=func, subjects=["02"]).load()
    own = source(pristine, subjects=["02"]).load()
    assert np.array_equal(given.subjects["02"].x, own.subjects["02"].x)
    assert computed.subjects["02"].x.shape[1] < 320


def test_stimuli_come_from_a_column_of_their_own(pristine: Path):
    brains = source(pristine, stimulus="stim_file", truth="stimulus").load()
    assert brains.candidates == sorted(f"{kind}_{run}.png" for kind in ("bottle", "face", "house") for run in (1, 2))
    assert set(brains.table["label"]) == {"bottle", "face", "house"}


def test_volumes_carry_their_event_s_label(pristine: Path):
    volumes, blocks = (source(pristine, unit=unit).load() for unit in ("volumes", "blocks"))
    table = volumes.table
    assert len(table) == 2 * 2 * 3 * 6
    assert list(table["position"][:18]) == list(range(18))
    assert list(table["label"][::6]) == list(blocks.table["label"])
    means = volumes.subjects["01"].x.reshape(6, 6, -1).mean(axis=1)
    assert np.allclose(means, blocks.subjects["01"].x, atol=1e-5)


def test_the_evoked_response_shows_the_delay_that_was_built_in(pristine: Path):
    right, wrong = (source(pristine, lag=lag).evoked() for lag in (6.0, -4.0))
    assert [response.subject for response in right] == ["01", "02"]
    for response, late in zip(right, wrong, strict=True):
        assert response.rise == pytest.approx(response.expected_rise, abs=1.5)
        assert response.best_lag in (4.0, 6.0)
        assert np.array_equal(response.mean, late.mean)
        assert late.caught(late.lag) < 0.4 * response.caught(response.lag)
        assert list(response.table()) == ["seconds", "mean", "error"]


def sidecar(value: object) -> Callable[[Path], object]:
    return lambda f: (f / "task-objects_bold.json").write_text(json.dumps({"RepetitionTime": value}))


def rename_task(folder: Path) -> None:
    for path in list(folder.rglob("sub-01_task-objects_run-2*")):
        path.rename(path.with_name(path.name.replace("task-objects", "task-rest")))


def second_space(folder: Path) -> None:
    for path in list((folder / FMRIPREP).rglob("sub-01*run-1_space*preproc*")):
        shutil.copy(path, path.with_name(path.name.replace("MNI152NLin2009cAsym", "T1w")))


def echoes(folder: Path) -> None:
    for path in list(folder.glob("sub-*/func/*bold.nii.gz")):
        for echo in (1, 2):
            shutil.copy(path, path.with_name(path.name.replace("_bold", f"_echo-{echo}_bold")))
        path.unlink()


def surfaces(folder: Path) -> None:
    for path in list(folder.rglob("*bold.nii.gz")):
        path.rename(path.with_name(path.name.replace("bold.nii.gz", "bold.func.gii")))


def twice(folder: Path) -> None:
    pd.DataFrame({"participant_id": ["sub-01", "sub-02", "sub-01"]}).to_csv(
        folder / "participants.tsv", sep="\t", index=False
    )


SPOILED: dict[str, tuple[Callable[[Path], object], dict[str, object], str]] = {
    "TR disagrees": (sidecar(1.5), {}, r"bold\.nii\.gz: TR is 2 s in the header and 1\.5 s in the sidecar"),
    "TR is text": (sidecar("two"), {}, "the sidecar's RepetitionTime is 'two'; expected seconds"),
    "sidecar broken": (
        lambda f: (f / "task-objects_bold.json").write_text("{"),
        {},
        r"task-objects_bold\.json: not readable as JSON",
    ),
    "two tasks": (rename_task, {}, r"runs of 2 tasks \(objects, rest\); say which one \(task: \.\.\.\)"),
    "no such task": (lambda f: None, {"task": "faces"}, "no run of task faces; there are objects"),
    "two spaces": (second_space, {}, r"runs of 2 spaces .*T1w\); say which one \(space: \.\.\.\)"),
    "echoes": (echoes, {"derivatives": None}, "2 echoes of each run; combine them first"),
    "participant twice": (twice, {}, r"participants\.tsv: participant sub-01 occurs more than once"),
    "no subject": (lambda f: None, {"subjects": ["07"]}, "no subject 07; there are 01, 02"),
    "no runs": (
        lambda f: [shutil.rmtree(p) for p in f.glob("sub-*")],
        {"derivatives": None},
        r"no sub-\*/func/\*_bold\.nii\.gz here",
    ),
    "surfaces only": (
        surfaces,
        {"derivatives": None},
        r"runs on the surface only\. Surface data are not read as scans: give volumes",
    ),
    "no events": (
        lambda f: [p.unlink() for p in f.rglob("*events.tsv")],
        {},
        r"no events\.tsv for any of the 4 runs; give the raw BIDS folder as folder and the preprocessed one as",
    ),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_what_is_wrong_or_ambiguous_is_said_in_one_line(bids: Path, kind: str):
    spoil, options, said = SPOILED[kind]
    spoil(bids)
    with pytest.raises(DataError, match=said) as raised:
        source(bids, **options).load()
    assert "\n" not in str(raised.value)


def test_one_subject_s_bad_file_stops_that_subject_alone(bids: Path):
    path = next((bids / FMRIPREP).rglob("sub-01*run-2*preproc_bold.nii.gz"))
    path.write_bytes(path.read_bytes()[:1000])
    brains = source(bids).load()
    assert list(brains.subjects) == ["02"]
    assert brains.account[0].startswith(f"subject 01 left out: {path}: the file ends before its data do")


@pytest.mark.parametrize("label", ["1", "03"])
def test_the_files_of_a_subject_under_another_label_count_once(bids: Path, label: str):
    said = "its run-1 holds the same samples as run-1 of subject 01, so one person would count as two"
    for root in (bids, bids / FMRIPREP):
        for path in sorted((root / "sub-01").rglob("*")):
            copied = Path(str(path).replace("sub-01", f"sub-{label}"))
            copied.mkdir(parents=True) if path.is_dir() else shutil.copy(path, copied)
    brains = source(bids).load()
    assert sorted(brains.subjects) == ["01", "02"]
    line = next(line for line in brains.account if "left out" in line)
    assert line == f"subject {label} left out: {said}; remove the copy"
    assert list(source(bids, subjects=[label]).load().subjects) == [label], "alone it is one person"


def test_one_subject_s_broken_sidecar_stops_that_subject_alone(bids: Path):
    (bids / "sub-01/func/sub-01_task-objects_run-1_bold.json").write_text("{")
    brains = source(bids).load()
    assert list(brains.subjects) == ["02"]
    assert len(brains.account) == 2
    assert brains.account[0].startswith("subject 01 left out: ")
    assert "run-1_bold.json: not readable as JSON" in brains.account[0]


def test_runs_and_participants_without_events_are_counted(bids: Path):
    (bids / "sub-01/func/sub-01_task-objects_run-2_events.tsv").unlink()
    pd.DataFrame({"participant_id": ["sub-01", "sub-02", "sub-03"]}).to_csv(
        bids / "participants.tsv", sep="\t", index=False
    )
    brains = source(bids).load()
    assert brains.account[:2] == [
        "subject 01: 1 runs without events, skipped",
        "subject 03: in participants.tsv, but without runs and events",
    ]
    assert brains.subjects["01"].runs == ["run-1"]


def test_masks_of_two_spaces_are_refused(bids: Path):
    path = next((bids / FMRIPREP).rglob("sub-01*run-2*brain_mask.nii.gz"))
    write_image(path, np.ones((10, 12, 8)), tr=None, shift=50.0)
    brains = source(bids).load()
    assert f"subject 01 left out: {path}: another space than" in brains.account[0]


def test_nearer_files_win_and_wider_ones_apply(tmp_path: Path):
    """TR in a sidecar at the top, a session's own events, and a task-wide events file for the other session."""
    for session in ("1", "2"):
        func = tmp_path / "sub-x" / f"ses-{session}" / "func"
        write_image(func / f"sub-x_ses-{session}_task-t_bold.nii.gz", series(int(session)), tr=None)
    write_mask(tmp_path / "mask.nii")
    (tmp_path / "bold.json").write_text(json.dumps({"RepetitionTime": 9.0}))
    (tmp_path / "task-t_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    write_events(tmp_path / "task-t_events.tsv")
    own = pd.DataFrame({"onset": [4.0, 24.0], "duration": 10.0, "trial_type": ["a", "c"]})
    write_events(tmp_path / "sub-x/ses-2/func/sub-x_ses-2_task-t_events.tsv", own)
    brains = BidsBrains(str(tmp_path), 4.0, mask="mask.nii").load()
    assert brains.subjects["x"].runs == ["ses-1", "ses-2"]
    assert list(brains.table["label"]) == ["a", "b", "a", "b", "a", "c"]


def test_slice_timing_shifts_the_clock(bids: Path):
    """fMRIPrep says in StartTime to which moment a volume was corrected."""
    path = next((bids / FMRIPREP).rglob("sub-01*run-1*preproc_bold.nii.gz"))
    plain = source(bids, lag=4.5).load()
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps({"StartTime": 1.0}))
    moved = source(bids, lag=4.5).load()
    expected = source(bids, lag=3.5).load()
    assert not np.array_equal(plain.subjects["01"].x[:3], moved.subjects["01"].x[:3])
    assert np.array_equal(moved.subjects["01"].x[:3], expected.subjects["01"].x[:3])
    assert np.array_equal(moved.subjects["01"].x[3:], plain.subjects["01"].x[3:])


def test_names_are_taken_apart():
    file = BidsFile.named(Path("sub-01_ses-2_task-t_run-03_space-MNI_res-2_desc-preproc_bold.nii.gz"))
    assert (file.suffix, file.extension, file.run, file.space) == ("bold", ".nii.gz", "ses-2_run-03", "MNI:res-2")
    assert BidsFile.named(Path("task-t_bold.json")).fits(file)
    assert not BidsFile.named(Path("task-u_bold.json")).fits(file)
    assert BidsFile.named(Path("sub-01_task-t_bold.nii")).run == "run-1"


def test_an_openfmri_folder_that_lacks_something_says_what(tmp_path: Path):
    with pytest.raises(DataError, match="no sub001, sub002"):
        OpenFmriBrains(str(tmp_path), 0.0).load()
    run = tmp_path / "sub001/BOLD/task001_run001"
    write_image(run / "other.nii.gz", series())
    with pytest.raises(DataError, match=r"no BOLD/task001_run\*/bold\.nii\.gz of any subject; name bold and task"):
        OpenFmriBrains(str(tmp_path), 0.0).load()
    write_mask(run / "m.nii")
    given = {"bold": "other.nii.gz", "mask": "BOLD/task001_run001/m.nii"}
    with pytest.raises(DataError, match=r"no cond001\.txt here and no events\.tsv beside the run"):
        OpenFmriBrains(str(tmp_path), 0.0, **given).load()
    write_events(run / "bold_events.tsv")
    (tmp_path / "scan_key.txt").write_text("TR 3.0\n")
    with pytest.raises(DataError, match=r"TR is 2 s in the header and 3 s in the sidecar"):
        OpenFmriBrains(str(tmp_path), 0.0, **given).load()
    (tmp_path / "scan_key.txt").write_text("TR fast\n")
    with pytest.raises(DataError, match=r"scan_key\.txt: TR fast is not a number"):
        OpenFmriBrains(str(tmp_path), 0.0, **given).load()
    (tmp_path / "scan_key.txt").unlink()
    (tmp_path / "sub001/BOLD/task001_run002").mkdir()
    brains = OpenFmriBrains(str(tmp_path), 0.0, **given).load()
    assert brains.account[0] == "subject 001: 1 runs without other.nii.gz, skipped"


def test_simulated_scans_are_not_written_over(pristine: Path):
    with pytest.raises(DataError, match="exists already"):
        SimulatedScans().write(pristine)
