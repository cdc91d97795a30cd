"""Scans, events, confounds, sidecars and tables of runs."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import strategies as st

from data.brain.bids import BidsBrains
from data.brain.brain import VoxelSpace
from data.brain.clean import confounds_of, read_confounds
from data.brain.dissimilarity import read_conditions
from data.brain.events import check_within, read_events, read_onsets, read_volume_labels, stretches
from data.brain.images import check_same_space, header_tr, masked, open_bold, read_mask, repetition_time
from data.brain.layouts import participants, read_json, seconds_of
from data.brain.nifti import NiftiBrains, RunTableBrains
from data.brain.openfmri import OpenFmriBrains
from tests.fuzz.damage import ODD_TEXT, files, json_files, table_files, text_of
from tests.fuzz.tried import Tried, law

SPACE = VoxelSpace(np.ones((3, 3, 2), bool), np.diag([3.0, 3.0, 3.0, 1.0]))
EVENTS = [["onset", "duration", "trial_type"], *([str(4 * k), "4", "ab"[k % 2]] for k in range(4))]
MOTION = [["rot_x", "trans_x"], *(["0.1", str(k)] for k in range(12))]
SIDECAR = {"RepetitionTime": 2.0, "StartTime": 0.5, "TaskName": "faces", "SliceTiming": [0.0, 1.0]}
RUNS = [["subject", "run", "bold", "events", "tr"], *([f"0{k}", "1", "run.nii", "events.tsv", "2"] for k in (1, 2))]


def scan(frames: int = 12) -> bytes:
    """An uncompressed run of 3 x 3 x 2 voxels."""
    values = np.random.default_rng(frames).standard_normal((3, 3, 2, frames)).astype(np.float32)
    image = nibabel.Nifti1Image(values[..., 0] if frames == 1 else values, np.diag([3.0, 3.0, 3.0, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    if frames > 1:
        image.header["pixdim"][4] = 2.0
    return bytes(image.to_bytes())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brain")
    (folder / "run.nii").write_bytes(scan())
    (folder / "ones.nii").write_bytes(bytes(nibabel.Nifti1Image(SPACE.mask.astype(np.uint8), SPACE.affine).to_bytes()))
    (folder / "events.tsv").write_text(text_of(EVENTS, "\t"))
    return folder


@st.composite
def scans(draw: st.DrawFn, frames: int) -> tuple[str, bytes]:
    """A nearly good image and its ending; what is packed is damaged before it is packed, and sometimes after."""
    content = draw(files([scan(frames)], head=352))
    if draw(st.booleans()):
        return ".nii", content
    packed = gzip.compress(content, 1)
    return ".nii.gz", draw(files([packed])) if draw(st.integers(0, 3)) == 0 else packed


@law(made=scans(12))
def test_runs(made: tuple[str, bytes], place: Path, tried: Tried):
    path = place / f"odd{made[0]}"
    path.write_bytes(made[1])

    def read() -> None:
        image = open_bold(path)
        check_same_space(image, path, SPACE, "mask")
        repetition_time(path, header_tr(image, path), None, None)
        masked(image, path, SPACE.mask)

    tried(read)


@law(made=scans(1))
def test_masks(made: tuple[str, bytes], place: Path, tried: Tried):
    path = place / f"odd-mask{made[0]}"
    path.write_bytes(made[1])
    tried(read_mask, path)


@law(made=scans(12))
def test_brains_from_scans(made: tuple[str, bytes], place: Path, tried: Tried):
    path = place / f"whole{made[0]}"
    path.write_bytes(made[1])
    source = NiftiBrains([str(path)], 0.0, events=[str(place / "events.tsv")], mask=str(place / "ones.nii"))
    tried(source.read)


@law(made=table_files(EVENTS[0], EVENTS[1:], [".tsv"]), label=st.sampled_from(["trial_type", "onset"]))
def test_events(made: tuple[str, bytes], label: str, place: Path, tried: Tried):
    path = place / "odd-events.tsv"
    path.write_bytes(made[1])
    tried(lambda: check_within(read_events(path, label, "trial_type"), 12, 2.0, path))


@law(content=files([b"a 0\na 0\nb 0\nrest 1\n", b"labels chunks\na 0\nb 1\n"]))
def test_labels_of_volumes(content: bytes, place: Path, tried: Tried):
    path = place / "labels.txt"
    path.write_bytes(content)
    tried(lambda: stretches(read_volume_labels(path)["run"], 2.0))


@law(content=files([b"0 4 1\n8\t4\t1\n", b"0.5 0 1\n"]))
def test_onset_files(content: bytes, place: Path, tried: Tried):
    (place / "onsets").mkdir(exist_ok=True)
    (place / "onsets" / "cond001.txt").write_bytes(content)
    tried(read_onsets, place / "onsets", {"cond001": "faces"})


@law(
    made=st.one_of(
        table_files(MOTION[0], MOTION[1:], [".tsv"]), files([b"1 2 3 4 5 6\n" * 3]).map(lambda c: (".txt", c))
    )
)
def test_confounds(made: tuple[str, bytes], place: Path, tried: Tried):
    path = place / f"confounds{made[0]}"
    path.write_bytes(made[1])
    tried(lambda: confounds_of(read_confounds(path), ["rot_x"], 12, path))


@law(content=json_files(SIDECAR))
def test_sidecars(content: bytes, place: Path, tried: Tried):
    path = place / "sidecar.json"
    path.write_bytes(content)
    tried(lambda: repetition_time(path, None, seconds_of(read_json(path), "RepetitionTime", path), None))


@law(made=table_files(["participant_id", "age"], [["sub-01", "30"], ["sub-02", "n/a"]], [".tsv"]))
def test_participants(made: tuple[str, bytes], place: Path, tried: Tried):
    (place / "participants.tsv").write_bytes(made[1])
    tried(participants, place)


@law(made=table_files(["category", "number"], [["face", "1"], ["house", "2"]], [".tsv"]))
def test_conditions(made: tuple[str, bytes], place: Path, tried: Tried):
    path = place / "conditions.tsv"
    path.write_bytes(made[1])
    tried(read_conditions, path)


@law(made=table_files(RUNS[0], RUNS[1:], [".csv", ".tsv"]))
def test_tables_of_runs(made: tuple[str, bytes], place: Path, tried: Tried):
    path = place / f"runs{made[0]}"
    path.write_bytes(made[1])
    tried(lambda: RunTableBrains(str(path), 0.0).recordings([]))


@law(content=json_files(SIDECAR), made=table_files(EVENTS[0], EVENTS[1:], [".tsv"]), name=ODD_TEXT)
def test_bids_folders(content: bytes, made: tuple[str, bytes], name: str, place: Path, tried: Tried):
    folder = place / "bids" / "sub-01" / "func"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sub-01_task-faces_bold.nii").write_bytes(scan())
    (folder / "sub-01_task-faces_bold.json").write_bytes(content)
    (folder / "sub-01_task-faces_events.tsv").write_bytes(made[1])
    tried(BidsBrains(str(place / "bids"), 0.0, mask=str(place / "ones.nii"), label=name or "trial_type").read)


@law(key=files([b"task001 cond001 faces\ntask001 cond002 houses\n"]), scan_key=files([b"TR 2.0\n"]))
def test_keys_of_openfmri(key: bytes, scan_key: bytes, place: Path, tried: Tried):
    root = place / "openfmri"
    run = root / "sub001" / "BOLD" / "task001_run001"
    for folder in (run, root / "models" / "model001", root / "sub001/model/model001/onsets/task001_run001"):
        folder.mkdir(parents=True, exist_ok=True)
    (run / "bold.nii").write_bytes(scan())
    (root / "models" / "model001" / "condition_key.txt").write_bytes(key)
    (root / "scan_key.txt").write_bytes(scan_key)
    (root / "sub001/model/model001/onsets/task001_run001/cond001.txt").write_text("0 4 1\n8 4 1\n")
    tried(OpenFmriBrains(str(root), 0.0, bold="bold.nii", mask=str(place / "ones.nii")).read)
