"""`fmri BIDS OUT participant`: called as BIDS apps are, derivatives as BIDS has them, one line for a broken file."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from data.simulate.scans import SimulatedScans
from tasks.fmri.cli import bids_arguments
from tests.tasks.fmri.runs import fmri

QUICK = ("--set", "brains.derivatives=derivatives/fmriprep", "--set", "controls.permutations=50", "--quiet")
BROKEN = "sub-02_task-objects_run-2_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two participants, the second of whom has a truncated run."""
    root = SimulatedScans(subjects=("01", "02"), runs=3).write(tmp_path_factory.mktemp("bids") / "objects")
    broken = root / "derivatives" / "fmriprep" / "sub-02" / "func" / BROKEN
    broken.write_bytes(broken.read_bytes()[:4000])
    return root


@pytest.fixture(scope="module")
def decoded(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Both participants decoded: the derivatives and the exit code."""
    out = tmp_path_factory.mktemp("derivatives")
    with pytest.MonkeyPatch.context() as patch:
        code = fmri(patch, dataset, out, "participant", "--lag", "5", *QUICK, "--set", "controls.lags=[0.0, 5.0]")
    return out, code


def test_a_broken_participant_does_not_stop_the_others(decoded: tuple[Path, int]):
    out, code = decoded
    assert code == 1, "some failed"
    assert (out / "sub-01" / "func").is_dir()
    assert not (out / "sub-02").exists()


def test_derivatives_lie_where_bids_wants_them(decoded: tuple[Path, int], dataset: Path):
    out, _ = decoded
    described = json.loads((out / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    assert described["SourceDatasets"] == [{"URL": str(dataset.resolve())}]
    table = pd.read_csv(next((out / "sub-01" / "func").glob("*_decoding.tsv")), sep="\t")
    assert len(table) == 3 * table["truth"].nunique(), "three runs that show each class once"
    assert table["correct"].mean() > 0.5, "the effect is large and the lag is right"
    assert list((out / "sub-01" / "func").glob("sub-01_label-*_weights.nii.gz"))
    assert pd.read_csv(out / "sub-01_metrics.tsv", sep="\t")["chance"].notna().all()
    assert "5 s" in (out / "sub-01.html").read_text()
    assert "runs/" in (out / ".bidsignore").read_text()


def test_the_report_shows_whether_the_stated_lag_is_right(decoded: tuple[Path, int]):
    out, _ = decoded
    controls = out / "runs" / "fmri" / "sub-01" / "controls"
    evoked = pd.read_csv(controls / "evoked" / "evoked.csv")
    assert (evoked["lag"] == 5).all()
    sweep = pd.read_csv(controls / "lag-sweep" / "lag-sweep.csv").set_index("lag")["value"]
    assert sweep.loc[5.0] >= sweep.loc[0.0], "the simulated response peaks 5 s after the stimulus"
    page = (out / "sub-01.html").read_text()
    assert 'id="figure-evoked"' in page
    assert 'id="figure-lag-sweep"' in page


def test_one_label_written_in_two_ways_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """sub-1 beside sub-01 is most likely one person, who would count twice."""
    root = SimulatedScans(subjects=("01", "1"), runs=2).write(tmp_path / "objects")
    assert fmri(monkeypatch, root, tmp_path / "out", "participant", "--lag", "5", *QUICK) == 1
    said = capsys.readouterr().err
    assert "fmri: sub-1 left out: sub-01 has the same label but for zeros or case" in said
    assert (tmp_path / "out" / "sub-01.html").is_file()
    assert not (tmp_path / "out" / "sub-1.html").exists()


def test_the_only_participant_broken_is_bad_input_in_one_line(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    code = fmri(monkeypatch, dataset, tmp_path, "participant", "--participant-label", "02", "--lag", "5", *QUICK)
    said = capsys.readouterr()
    assert code == 2
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("fmri: sub-02: ")
    assert f"{BROKEN}: the file ends before its data do" in said.err
    assert said.out == ""


def test_new_images_are_decoded_volume_by_volume(
    decoded: tuple[Path, int], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = decoded[0] / "runs" / "fmri" / "sub-01"
    image = dataset / "derivatives" / "fmriprep" / "sub-01" / "func" / BROKEN.replace("sub-02", "sub-01")
    assert fmri(monkeypatch, "decode", run, "--bold", image, "-o", tmp_path) == 0
    table = pd.read_csv(next(tmp_path.glob("sub-01/func/*.tsv")), sep="\t")
    assert len(table) == SimulatedScans(subjects=("01", "02"), runs=3).frames
    assert "truth" not in table, "nobody said what was shown"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["BIDS", "OUT", "participant"], "--lag: say how many seconds after a labelled onset the response is decoded"),
        (["gone", "OUT", "participant", "--lag", "5"], "gone: no such folder; give a BIDS dataset"),
        (["EMPTY", "OUT", "participant", "--lag", "5"], "no sub-01, sub-02, ... here"),
        (["BIDS", "BIDS", "participant", "--lag", "5"], "results would go among the raw data; give an output folder"),
        (["BIDS", "OTHER", "participant", "--lag", "5"], "this data set was not made here and is left as it is"),
        (["BIDS", "OUT", "--participant-label", "01", "--lag", "5"], "Missing argument"),
        (["BIDS", "OUT", "participant", "--lag", "5", "--participant-label", "09"], "sub-09: objects: no subject 09"),
        (["BIDS", "OUT", "participant", "--lag", "5", "--participant-label", "01", "01"], "is given more than once"),
    ],
)
def test_bad_calls_are_one_line(
    dataset: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "dataset_description.json").write_text('{"Name": "fMRIPrep", "BIDSVersion": "1.8.0"}')
    places = {"BIDS": dataset, "OUT": tmp_path, "EMPTY": tmp_path / "empty", "OTHER": tmp_path / "other"}
    given = [str(places.get(word, word)) for word in arguments]
    assert fmri(monkeypatch, *given) == 2
    assert message in capsys.readouterr().err


def test_the_call_of_a_bids_app_is_told_from_our_commands():
    call = ["in", "out", "participant", "--participant-label", "01", "sub-02", "--lag", "-2.5"]
    label = "--participant-label"
    ours = ["bids-app", "in", "out", "participant", label, "01", label, "02", "--lag", "-2.5"]
    assert bids_arguments(call) == ours
    assert bids_arguments(["in", "out", "group", "--participant_label", "01"])[-2:] == ["--participant-label", "01"]
    for other in (["train", "-c", "participant"], ["evaluate", "group"], ["--help"], []):
        assert bids_arguments(other) == other
