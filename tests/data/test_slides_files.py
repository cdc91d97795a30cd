"""Feature files in both layouts, whole files, locks and the journal."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from data.slides.feature_files import feature_shape, read_features
from data.slides.feature_layouts import Layout, SlideFeatures, write_features
from data.slides.grid import Grid
from data.slides.journal import Journal, Record, why_again
from data.slides.levels import Level
from data.slides.locks import try_lock, whole, write_whole

GRID = Grid(256, 32, 0.5, 1, 1.0, 512, 448, 0.25, 5000, 4000)


def made(patches: int = 70, precision: str = "float32") -> SlideFeatures:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(patches, 24)).astype(precision)
    return SlideFeatures("S.1", GRID, Level(2500, 2000, 2.0, 2.0), GRID.all()[:patches], features, "mine", "header")


def test_trident_files_have_every_attribute_of_the_layout(tmp_path: Path):
    patches, features = write_features(tmp_path, made(), "trident")
    assert patches == tmp_path / "20x_256px_32px_overlap" / "patches" / "S.1_patches.h5"
    assert features == tmp_path / "20x_256px_32px_overlap" / "features_mine" / "S.1.h5"
    for path in (patches, features):
        with h5py.File(path) as file:
            coords = file["coords"]
            assert coords.dtype == np.int64
            said = dict(coords.attrs)
            assert {
                "patch_size": 256,
                "patch_size_level0": 512,
                "level0_magnification": 40,
                "target_magnification": 20,
                "overlap": 32,
                "name": "S.1",
                "savetodir": "20x_256px_32px_overlap/patches",
                "level0_width": 5000,
                "level0_height": 4000,
            }.items() <= said.items()
            assert said["level0_mpp"] == 0.25
            assert said["step_level0"] == 448
    with h5py.File(features) as file:
        assert dict(file["features"].attrs) == {
            "name": "S.1",
            "savetodir": "20x_256px_32px_overlap/features_mine",
            "encoder": "mine",
        }


def test_clam_files_have_every_attribute_of_the_layout(tmp_path: Path):
    patches, features, tensor = write_features(tmp_path, made(), "clam")
    with h5py.File(patches) as file:
        coords = file["coords"]
        said = dict(coords.attrs)
        assert coords.chunks == (32, 2)
        assert coords.maxshape == (None, 2)
        assert (said["patch_size"], said["patch_level"], said["name"]) == (256, 1, "S.1")
        assert list(said["downsample"]) == [2.0, 2.0]
        assert list(said["downsampled_level_dim"]) == [2500, 2000]
        assert list(said["level_dim"]) == [5000, 4000]
        assert said["save_path"] == "patches"
        assert np.array_equal(coords, made().coords)
    with h5py.File(features) as file:
        assert set(file) == {"features", "coords"}
        assert not dict(file["features"].attrs)
    saved = torch.load(tensor, weights_only=True)
    assert torch.equal(saved, torch.from_numpy(made().features))


@pytest.mark.parametrize("layout", ["trident", "clam"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_what_is_written_is_read_back(tmp_path: Path, layout: Layout, precision: str):
    given = made(precision=precision)
    for path in write_features(tmp_path, given, layout)[1:]:
        bag = read_features(path)
        assert torch.equal(bag.features, torch.from_numpy(given.features.astype(np.float32)))
        if path.suffix == ".h5":
            assert bag.grid is not None
            assert torch.equal(bag.grid, torch.from_numpy(given.coords).float())


@pytest.mark.parametrize("layout", ["trident", "clam"])
def test_equal_features_are_equal_bytes_wherever_they_are_written(tmp_path: Path, layout: Layout):
    one = write_features(tmp_path / "one", made(), layout)
    two = write_features(tmp_path / "another" / "place", made(), layout)
    assert [a.read_bytes() for a in one] == [b.read_bytes() for b in two]


@pytest.mark.parametrize("layout", ["trident", "clam"])
def test_equal_features_are_equal_bytes_while_something_else_holds_on_to_the_datasets(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = write_features(tmp_path / "plain", made(), layout)
    held, create = [], h5py.File.create_dataset

    def create_and_hold(*arguments: object, **options: object) -> h5py.Dataset:
        held.append(create(*arguments, **options))
        return held[-1]

    monkeypatch.setattr(h5py.File, "create_dataset", create_and_hold)
    watched = write_features(tmp_path / "watched", made(), layout)
    assert held
    assert [a.read_bytes() for a in plain] == [b.read_bytes() for b in watched]


def test_a_slide_without_tissue_is_a_valid_file(tmp_path: Path):
    path = write_features(tmp_path, made(patches=0), "trident")[1]
    assert feature_shape(path).patches == 0
    assert feature_shape(path).width == 24
    with h5py.File(path) as file:
        assert file["coords"].shape == (0, 2)


def test_a_magnification_between_the_usual_ones_is_named_as_it_is(tmp_path: Path):
    given = made()
    odd = replace(given, grid=replace(GRID, mpp=0.6, overlap=0))
    assert write_features(tmp_path, odd, "trident")[0].parts[-3] == "16.6667x_256px_0px_overlap"


def test_ranks_write_the_same_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "prepared.json"
    monkeypatch.setenv("LOCAL_RANK", "0")
    with whole(path) as first:
        first.write_text("alike")
        monkeypatch.setenv("LOCAL_RANK", "1")
        write_whole(path, "alike")
    assert path.read_text() == "alike"
    assert os.listdir(tmp_path) == ["prepared.json"]


def test_a_file_is_whole_or_the_old_one(tmp_path: Path):
    path = tmp_path / "a" / "b.txt"
    write_whole(path, "old")

    def half() -> None:
        with whole(path) as temporary:
            temporary.write_text("half")
            raise OSError(28, "the disk is full")

    with pytest.raises(OSError, match="full"):
        half()
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_a_lock_excludes_while_it_is_held_and_leaves_nothing(tmp_path: Path):
    path = tmp_path / "locks" / "s.lock"
    with try_lock(path) as mine:
        assert mine
        with try_lock(path) as second:
            assert not second
        assert str(os.getpid()) in path.read_text()
    assert not path.exists()
    with try_lock(path) as again:
        assert again


def test_a_killed_holder_leaves_its_lock_free(tmp_path: Path):
    path = tmp_path / "s.lock"
    code = (
        "import sys, time; from pathlib import Path; from data.slides.locks import try_lock\n"
        "with try_lock(Path(sys.argv[1])) as held: print(held, flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline().strip() == "True"
        with try_lock(path) as held:
            assert not held
        holder.kill()
        holder.wait()
    assert path.exists()
    with try_lock(path) as held:
        assert held
    assert not path.exists()


def test_the_journal_keeps_the_last_word_and_forgives_a_cut_line(tmp_path: Path):
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.latest() == {}
    assert journal.last("a") is None
    journal.append(Record("a", "failed", "why"))
    journal.append(Record("a", "done", patches=3, files=("x.h5",), slide=("a.svs", 1, 2), settings={"mpp": 0.5}))
    with journal.path.open("a") as file:
        file.write('{"slide_id":"a","state":"fai')
    journal.append(Record("b", "empty"))
    assert {name: record.state for name, record in journal.latest().items()} == {"a": "done", "b": "empty"}
    assert journal.last("a") == journal.latest()["a"]


def test_a_slide_is_done_again_only_for_a_reason_that_is_told(tmp_path: Path):
    (tmp_path / "x.h5").touch()
    mark = ("a.svs", 10, 20)
    record = Record("a", "done", settings={"mpp": 0.5, "patch": 256}, slide=mark, files=("x.h5",))
    assert why_again(None, {}, mark, tmp_path) == "new"
    assert why_again(record, {"mpp": 0.5, "patch": 256}, mark, tmp_path) is None
    assert why_again(record, {"mpp": 0.5, "patch": 512}, mark, tmp_path) == "made with other settings: patch 256 -> 512"
    assert why_again(record, {"mpp": 0.5, "patch": 256}, ("a.svs", 11, 20), tmp_path) == "the slide file has changed"
    assert why_again(replace(record, state="failed"), {}, mark, tmp_path) == "failed before"
    (tmp_path / "x.h5").unlink()
    assert why_again(record, {"mpp": 0.5, "patch": 256}, mark, tmp_path) == "x.h5 is missing"
