"""Every bad scan, mask or table: one line with file and remedy, or a counted skip; other subjects go on."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.brain.brain import Brains
from data.brain.clean import Cleaning
from data.brain.events import read_events, read_onsets, read_volume_labels
from data.brain.images import brain_mask, header_tr, open_bold, read_mask
from data.brain.nifti import NiftiBrains, RunTableBrains
from data.errors import DataError
from tests.data.brain_files import (
    FRAMES,
    LABELS,
    SHAPE,
    TR,
    events_table,
    series,
    write_events,
    write_image,
    write_mask,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good runs, their events and a mask."""
    for run in (1, 2):
        write_image(tmp_path / f"r{run}.nii", series(run))
        write_events(tmp_path / f"r{run}.tsv")
    write_mask(tmp_path / "mask.nii")
    return tmp_path


def brains(folder: Path, **options) -> Brains:
    settings = {"lag": 4.0, "mask": str(folder / "mask.nii")} | options
    runs = [str(folder / f"r{run}.nii") for run in (1, 2)]
    return NiftiBrains(runs, events=[str(folder / f"r{run}.tsv") for run in (1, 2)], **settings).load()


def test_two_good_runs_give_their_block_means(folder: Path):
    loaded = brains(folder)
    assert loaded.subjects["01"].x.shape == (8, np.prod(SHAPE))
    assert loaded.account == ["subject 01: 8 blocks of 2 classes in 2 runs, 24 voxels, lag 4 s"]


def test_a_copy_of_a_run_under_another_name_is_refused(folder: Path):
    write_image(folder / "r2.nii", series(1))
    with pytest.raises(DataError, match=r"r2\.nii: the same volumes as run-1; one of them would be trained on"):
        brains(folder)


def test_events_that_share_a_volume_are_counted(folder: Path):
    for run in (1, 2):
        write_events(folder / f"r{run}.tsv", events_table(block=30.0))
    assert any("events that share a volume with another" in line for line in brains(folder).account)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "three dimensions": (lambda f: write_image(f / "r1.nii", series()[..., 0]), r"r1\.nii: shape \(3, 4, 2\), one vol"),
    "five dimensions": (lambda f: write_image(f / "r1.nii", series()[..., None]), r"r1\.nii: shape .*5 dimensions"),
    "one volume": (lambda f: write_image(f / "r1.nii", series()[..., :1]), r"r1\.nii: 1 volume; a run is a series"),
    "truncated": (lambda f: cut(f / "r1.nii"), r"r1\.nii: the file ends before its data do .*copy it again"),
    "no image": (lambda f: (f / "r1.nii").write_text("hello"), r"r1\.nii: not a NIfTI image"),
    "missing": (lambda f: (f / "r1.nii").unlink(), r"r1\.nii: no such file"),
    "mask of another grid": (
        lambda f: write_image(f / "mask.nii", np.ones((3, 4, 3)), None),
        r"r1\.nii: has a grid of \(3, 4, 2\), the mask \(3, 4, 3\)\. Resample the mask .*mask\.nii",
    ),
    "mask elsewhere": (
        lambda f: write_mask(f / "mask.nii", shift=7.0),
        r"r1\.nii: has the grid of the mask, but lies up to 7 mm away",
    ),
    "empty mask": (lambda f: write_mask(f / "mask.nii", inside=np.zeros(SHAPE)), r"mask\.nii: no voxel above 0"),
    "mask with time": (lambda f: write_image(f / "mask.nii", series()), r"mask\.nii: shape .*a mask is 3-D"),
    "no TR": (lambda f: write_image(f / "r1.nii", series(), None), r"r1\.nii: no TR in the header.*give tr"),
    "milliseconds": (
        lambda f: write_image(f / "r1.nii", series(), 2000.0),
        r"r1\.nii: the header says TR 2000 s, which looks like milliseconds .*for example 2\)",
    ),
    "events beyond the scan": (
        lambda f: write_events(f / "r1.tsv", events_table().assign(onset=[4, 24, 80, 3000])),
        r"r1\.tsv: 2 of 4 events begin after the scan, which ends at 80 s \(the last at 3000 s\)",
    ),
    "no events file": (lambda f: (f / "r1.tsv").unlink(), r"r1\.tsv: no such file or folder"),
    "no class column": (
        lambda f: write_events(f / "r1.tsv", events_table().rename(columns={"trial_type": "kind"})),
        r"r1\.tsv: no column trial_type; there are onset, duration, kind",
    ),
    "no events": (lambda f: write_events(f / "r1.tsv", events_table()[:0]), r"r1\.tsv: no event; a run without"),
    "only rest": (
        lambda f: write_events(f / "r1.tsv", events_table(("rest",) * 4)),
        r"r1\.tsv: every event is one of rest, n/a, which are left out",
    ),
    "onset is text": (
        lambda f: write_events(
            f / "r1.tsv", events_table().astype({"onset": str}).replace({"onset": {"24.0": "late"}})
        ),
        r"r1\.tsv: onset 'late' in row 2 is not a number of seconds",
    ),
    "negative duration": (
        lambda f: write_events(f / "r1.tsv", events_table(block=-3.0)),
        r"r1\.tsv: a duration of -3 s",
    ),
    "every voxel constant": (
        lambda f: write_image(f / "r1.nii", np.full((*SHAPE, FRAMES), 7.0)),
        "subject 01: every voxel is NaN or constant in some run",
    ),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_spoiled_file_is_named_in_one_line(folder: Path, kind: str):
    spoil, said = SPOILED[kind]
    spoil(folder)
    with pytest.raises(DataError, match=said) as raised:
        brains(folder)
    assert "\n" not in str(raised.value)


def test_a_truncated_gzip_is_named(tmp_path: Path):
    path = write_image(tmp_path / "r.nii.gz", series())
    path.write_bytes(path.read_bytes()[:2000])
    write_events(tmp_path / "r.tsv")
    write_mask(tmp_path / "m.nii")
    source = NiftiBrains([str(path)], 4.0, events=[str(tmp_path / "r.tsv")], mask=str(tmp_path / "m.nii"))
    with pytest.raises(DataError, match=r"r\.nii\.gz: the file ends before its data do"):
        source.load()
    path.write_bytes(gzip.compress(b"nothing"))
    with pytest.raises(DataError, match=r"r\.nii\.gz: not a NIfTI image"):
        open_bold(path)


def test_the_run_that_keeps_a_mask_from_being_computed_is_named(folder: Path):
    runs = [folder / "r1.nii", folder / "r2.nii"]
    cut(runs[1])
    with pytest.raises(DataError, match=r"r2\.nii: the file ends before its data do"):
        brain_mask(runs)
    write_image(runs[1], series()[:, :3])
    with pytest.raises(DataError, match=r"r2\.nii: another grid than .*r1\.nii; give runs of one space"):
        brain_mask(runs)


def test_surfaces_are_refused_with_what_to_do(tmp_path: Path):
    import nibabel

    path = tmp_path / "hemi-L_bold.func.gii"
    points = [nibabel.gifti.GiftiDataArray(np.zeros(9, np.float32)) for _ in range(3)]
    nibabel.save(nibabel.gifti.GiftiImage(darrays=points), path)
    with pytest.raises(DataError, match=r"func\.gii: GiftiImage, not a volume\. .*betas of vertices as arrays"):
        open_bold(path)


def test_nan_and_constant_voxels_are_counted_and_dropped_from_all_runs(folder: Path):
    values = series(1)
    values[0, 0, 0, 5], values[1, 1, 1, :] = np.nan, 3.0
    values[2, 2, 0, :] = np.linspace(0, 50, FRAMES)
    write_image(folder / "r1.nii", values)
    loaded = brains(folder)
    assert "subject 01: 3 voxels that are NaN or constant in some run, dropped" in loaded.account
    space = loaded.subjects["01"].space
    assert space is not None
    assert loaded.subjects["01"].x.shape == (8, 21)
    assert not space.mask[0, 0, 0]
    assert not space.mask[1, 1, 1]
    assert not space.mask[2, 2, 0]


def table_of_runs(folder: Path, subjects: dict[str, str]) -> Path:
    rows = [
        {"subject": s, "run": run, "bold": f"{stem}{run}.nii", "events": f"r{run}.tsv", "mask": "mask.nii"}
        for s, stem in subjects.items()
        for run in (1, 2)
    ]
    pd.DataFrame(rows).to_csv(folder / "runs.csv", index=False)
    return folder / "runs.csv"


@pytest.mark.parametrize("kind", [kind for kind in SPOILED if "mask" not in kind])
def test_other_subjects_go_on_and_the_account_says_who_does_not(folder: Path, kind: str):
    for run in (1, 2):
        write_image(folder / f"good{run}.nii", series(run + 5))
        write_events(folder / f"good{run}.tsv")
    table = pd.read_csv(table_of_runs(folder, {"bad": "r", "fine": "good"}))
    table.loc[table["subject"] == "fine", "events"] = ["good1.tsv", "good2.tsv"]
    table.to_csv(folder / "runs.csv", index=False)
    SPOILED[kind][0](folder)
    loaded = RunTableBrains(str(folder / "runs.csv"), 4.0).load()
    assert list(loaded.subjects) == ["fine"]
    assert loaded.account[0].startswith("subject bad left out: ")
    assert loaded.account[1] == "subject fine: 8 blocks of 2 classes in 2 runs, 24 voxels, lag 4 s"


def test_duplicate_subjects_and_runs_are_refused(folder: Path):
    path = table_of_runs(folder, {"01": "r"})
    table = pd.read_csv(path, dtype=str)
    pd.concat([table, table[:1]]).to_csv(path, index=False)
    with pytest.raises(DataError, match="subject 01: run 1 occurs more than once"):
        RunTableBrains(str(path), 4.0).load()
    with pytest.raises(DataError, match="subjects: 01 is listed more than once"):
        RunTableBrains(str(path), 4.0, subjects=["01", "01"])
    with pytest.raises(DataError, match="no subject 09; there are 01"):
        RunTableBrains(str(path), 4.0, subjects=["09"]).load()


def test_header_and_table_that_disagree_on_the_tr_are_refused_unless_it_is_given(folder: Path):
    path = table_of_runs(folder, {"01": "r"})
    pd.read_csv(path, dtype=str).assign(tr=1.5).to_csv(path, index=False)
    with pytest.raises(DataError, match=r"r1\.nii: TR is 2 s in the header and 1\.5 s in the sidecar; correct one"):
        RunTableBrains(str(path), 4.0).load()
    assert RunTableBrains(str(path), 4.0, tr=2.0).load().table["onset"].iloc[1] == 24.0


def test_runs_tables_say_what_they_lack(folder: Path):
    path = table_of_runs(folder, {"01": "r"})
    pd.read_csv(path).drop(columns="events").to_csv(path, index=False)
    with pytest.raises(DataError, match=r"runs\.csv: no column events; a run table has subject, run, bold, events"):
        RunTableBrains(str(path), 4.0).load()
    path = table_of_runs(folder, {"01": "r"})
    pd.read_csv(path).assign(bold=[None, "r2.nii"]).to_csv(path, index=False)
    with pytest.raises(DataError, match=r"runs\.csv: an empty cell"):
        RunTableBrains(str(path), 4.0).load()


def test_events_that_give_no_sample_are_counted(folder: Path):
    late = events_table().assign(onset=[4.0, 24.0, 44.0, 72.0])
    late["duration"] = [10.0, 10.0, 0.5, 10.0]
    write_events(folder / "r1.tsv", late.assign(onset=[4.0, 24.0, 44.7, 72.0]))
    loaded = brains(folder, lag=7.9)
    assert sorted(loaded.table["run"].value_counts()) == [2, 4]
    assert "subject 01: 1 events whose response lies after the last volume, skipped" in loaded.account
    assert "subject 01: 1 events too short to hold a volume (use unit: trials), skipped" in loaded.account
    write_events(folder / "r1.tsv", events_table(block=0.0))
    with pytest.raises(DataError, match=r"no event gives a sample at lag 4 s \(4 events too short"):
        brains(folder)


def test_rest_is_left_out_and_counted(folder: Path):
    write_events(folder / "r1.tsv", events_table(("a", "rest", "b", None)))
    assert "subject 01: 2 events of rest or n/a, left out" in brains(folder).account


def test_the_lag_has_no_default(folder: Path):
    with pytest.raises(TypeError, match="lag"):
        NiftiBrains([str(folder / "r1.nii")], events=[str(folder / "r1.tsv")])  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"events": None}, "give events .* or labels"),
        ({"events": ["a", "b"]}, "events: 2 files for 1 runs"),
        ({"events": ["a"], "confounds": ["a", "b"]}, "confounds: 2 files for 1 runs"),
        ({"events": ["a"], "tr": 0.0}, "tr: expected seconds"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options: dict, said: str):
    with pytest.raises(ValueError, match=said):
        NiftiBrains(["x.nii"], 0.0, **options)


def test_a_header_without_time_says_no_tr(tmp_path: Path):
    for tr, unit, expected in ((None, "", None), (TR, "sec", TR), (1500.0, "msec", 1.5)):
        path = write_image(tmp_path / "r.nii", series(), tr, unit=unit)
        assert header_tr(open_bold(path), path) == expected


def test_a_mask_of_probabilities_is_cut_where_asked(tmp_path: Path):
    values = np.linspace(0, 1, np.prod(SHAPE)).reshape(SHAPE)
    values[0, 0, 1] = np.nan
    path = write_image(tmp_path / "p.nii", values[..., None], None)
    assert read_mask(path).mask.sum() == 22
    assert read_mask(path, 0.5).mask.sum() == 12


def test_without_a_mask_nilearn_finds_the_head(tmp_path: Path):
    values = np.random.default_rng(0).normal(1, 0.1, size=(12, 12, 10, 5))
    values[2:10, 2:10, 2:8] += 1000
    inside = brain_mask([write_image(tmp_path / "r.nii", values)]).mask
    assert inside[4:8, 4:8, 4:6].all()
    assert not inside[0].any()


def test_onset_and_label_files_that_cannot_be_used_are_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"no cond001\.txt here"):
        read_onsets(tmp_path, {})
    (tmp_path / "cond001.txt").write_text("1 2 1\n")
    with pytest.raises(DataError, match=r"condition_key\.txt does not name cond001"):
        read_onsets(tmp_path, {})
    (tmp_path / "cond001.txt").write_text("one two\n")
    with pytest.raises(DataError, match="expected onset, duration and weight"):
        read_onsets(tmp_path, {"cond001": "a"})
    (tmp_path / "l.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="1 column; expected a label and a run"):
        read_volume_labels(tmp_path / "l.txt")


def test_labels_per_volume_must_match_the_volumes_and_keep_runs_together(folder: Path):
    def source(runs: list[int]) -> NiftiBrains:
        labels = folder / "l.txt"
        labels.write_text("labels chunks\n" + "".join(f"{'ab'[k // 5 % 2]} {run}\n" for k, run in enumerate(runs)))
        return NiftiBrains([str(folder / "r1.nii")], 0.0, labels=str(labels), mask=str(folder / "mask.nii"))

    assert list(source([0] * 20 + [1] * 20).load().table["run"].unique()) == ["run-0", "run-1"]
    with pytest.raises(DataError, match=r"39 labels for the 40 volumes of .*r1\.nii"):
        source([0] * 39).load()
    with pytest.raises(DataError, match="run 0 comes back after another run"):
        source([0] * 10 + [1] * 20 + [0] * 10).load()


def test_stimuli_without_a_name_are_refused(folder: Path):
    write_events(folder / "r1.tsv", events_table().assign(file=["x", None, "y", "z"]))
    with pytest.raises(DataError, match="line 3 has no file; name every stimulus"):
        read_events(folder / "r1.tsv", stimulus="file")
    write_events(folder / "r1.tsv", events_table().assign(file=list("wxyz")))
    assert list(read_events(folder / "r1.tsv", stimulus="file")["stimulus"]) == list("wxyz")
    assert list(read_events(folder / "r1.tsv")["label"]) == list(LABELS)


def test_confounds_that_do_not_fit_are_refused(folder: Path):
    motion = pd.DataFrame(np.random.default_rng(0).normal(size=(FRAMES, 6)), columns=None)
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    paths = [str(folder / f"c{run}.tsv") for run in (1, 2)]

    def load(table: pd.DataFrame, wanted: list[str]) -> Brains:
        for path in paths:
            table.to_csv(path, sep="\t", index=False, na_rep="n/a")
        return brains(folder, confounds=paths, cleaning=Cleaning(confounds=wanted))

    motion.columns = names
    assert len(load(motion, ["motion"]).table) == 8
    with pytest.raises(DataError, match=r"c1\.tsv: no column csf \(asked for by csf\); strategies are motion"):
        load(motion, ["csf"])
    with pytest.raises(DataError, match=r"c1\.tsv: 39 rows for a run of 40 volumes"):
        load(motion[:39], ["motion"])
    with pytest.raises(DataError, match=r"c1\.tsv: column rot_z has gaps after the first volumes"):
        load(motion.assign(rot_z=motion["rot_z"].where(motion.index < 20)), ["motion"])
    assert len(load(motion.assign(rot_z=motion["rot_z"].where(motion.index > 0)), ["motion"]).table) == 8
    wide = pd.DataFrame(np.random.default_rng(1).normal(size=(FRAMES, 38))).add_prefix("cosine")
    with pytest.raises(DataError, match="38 confounds for 40 volumes leave nothing"):
        load(wide, ["cosine"])
    with pytest.raises(DataError, match=r"r1\.nii: no confounds beside it; leave cleaning"):
        brains(folder, cleaning=Cleaning(confounds=["motion"]))


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"unit": "scans"}, "unit: expected volumes, blocks or trials"),
        ({"hrf": "square"}, "hrf: expected glover or spm"),
    ],
)
def test_choices_that_do_not_exist_are_refused(options: dict, said: str):
    with pytest.raises(ValueError, match=said):
        NiftiBrains(["x.nii"], 0.0, events=["a"], **options)


def test_voxels_without_a_number_are_counted_where_the_mask_is_computed(tmp_path: Path):
    values = np.random.default_rng(0).normal(1, 0.1, size=(12, 12, 10, FRAMES))
    values[2:10, 2:10, 2:8] += 1000
    values[5, 5, 5, 3] = np.nan
    for run in (1, 2):
        write_image(tmp_path / f"r{run}.nii", values + run)
        write_events(tmp_path / f"r{run}.tsv")
    loaded = brains(tmp_path, mask=None)
    assert "subject 01: 1 voxels without a number, which the computed mask leaves out" in loaded.account
