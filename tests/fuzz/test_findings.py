"""What fuzzing and killing found, each as its smallest case, with what is said now."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from data.brain.dissimilarity import read_rdms
from data.brain.events import read_volume_labels
from data.brain.images import header_tr, open_bold, read_mask
from data.brain.openfmri import OpenFmriBrains
from data.cohort.read import read_table
from data.cohort.splits import published_splits
from data.cohort.tables import TableCohort
from data.errors import DataError
from data.genes.groups import read_groups
from data.music.abc import tunes
from data.music.essen import EssenSongs
from data.pairs.arrays import Vectors
from data.pairs.pictures import check_pictures, read_picture
from data.slides import opening
from data.slides.catalogue import find_slides
from data.slides.feature_files import read_features
from data.slides.generated import stained, write_slide
from data.slides.journal import Journal, Record
from data.slides.opening import open_slide
from data.slides.resolution import read_mpp_table
from data.text.tokenizer import Tokenizer
from tasks.experiment.config import overlay
from tasks.experiment.saved import Damaged, read_saved
from tasks.experiment.units import Unit
from tasks.retrieval import index_folder
from tasks.retrieval.index import Index, Settings
from tests.fuzz.damage import with_tag, zipped


def file(name: str, content: bytes, read: Callable[[Path], object]) -> Callable[[Path], object]:
    """A reader of a file with this content."""

    def use(folder: Path) -> object:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return read(path)

    return use


def array(folder: Path, values: Any) -> Path:
    np.save(folder / "v.npy", values)
    return folder / "v.npy"


def bold(folder: Path, field: str, value: int) -> Path:
    image = nibabel.Nifti1Image(np.ones((2, 2, 2, 3), np.float32), np.eye(4))
    content = bytearray(image.to_bytes())
    at = {"datatype": 70, "xyzt_units": 123}[field]
    content[at : at + 1] = bytes([value])
    (folder / "b.nii").write_bytes(content)
    return folder / "b.nii"


def slide(folder: Path, page: int, tag: str, part: str, value: bytes, tiled: bool = True) -> Path:
    """A small slide with other bytes in one entry of a directory."""
    path = folder / "s.tif"
    if tiled:
        write_slide(path, np.zeros((80, 96, 3), np.uint8), (1.0, 2.0), 0.5, "tiff", 16)
    else:
        tifffile.imwrite(path, np.zeros((80, 96, 3), np.uint8), photometric="rgb", compression="deflate")
    path.write_bytes(with_tag(path.read_bytes(), page, tag, part, value))
    return path


def songs(at: int, value: bytes) -> Callable[[Path], object]:
    """A reader of a zip of ABC files with other bytes in its list of members."""
    content = bytearray(zipped({"han1.abc": b"X:1\nK:C\nCDEF|\n"}))
    begins = content.index(b"PK\x01\x02")
    content[begins + at : begins + at + len(value)] = value
    return file("e.zip", bytes(content), lambda path: EssenSongs(notes=str(path)).load())


def vectors(path: Path) -> object:
    return Vectors(str(path)).read()


def openfmri(folder: Path) -> object:
    run = folder / "sub001" / "BOLD" / "task001_run001"
    run.mkdir(parents=True)
    (run / "bold.nii.gz").touch()
    (folder / "models" / "model001").mkdir(parents=True)
    (folder / "models" / "model001" / "condition_key.txt").write_text("task001 cond001\n")
    return OpenFmriBrains(str(folder), 0.0).recordings([])


FINDINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "songs in a zip of an unknown packing": (songs(10, b"\x63\x00"), "not readable as a zip of ABC files"),
    "songs in a zip of an unknown version": (songs(6, b"\x94\x00"), "not readable as a zip of ABC files"),
    "songs in a zip whose member is locked": (songs(8, b"\x01\x00"), "not readable as a zip of ABC files"),
    "a picture of no width": (
        lambda folder: open_slide(slide(folder, 0, "ImageWidth", "value", bytes(4), tiled=False)),
        "slide s.tif: expected 8-bit RGB pixels, found uint8 of shape",
    ),
    "strips that do not unpack": (
        lambda folder: open_slide(slide(folder, 0, "StripOffsets", "value", b"\x10\x00\x00\x00", tiled=False)),
        "slide s.tif: no reader knows this file",
    ),
    "a slide whose width is no number": (
        lambda folder: open_slide(slide(folder, 0, "ImageWidth", "count", bytes(4))),
        "slide s.tif: ",
    ),
    "more places of tiles than sizes of them": (
        lambda folder: open_slide(slide(folder, 0, "TileByteCounts", "count", b"\x02\x00\x00\x00")),
        "slide s.tif: a level of 96 x 80 pixels needs 30 tiles and has 30 places and 2 sizes of them; damaged",
    ),
    "a slide taller than its tiles, over which OpenSlide ends the process": (
        lambda folder: open_slide(slide(folder, 0, "ImageLength", "value", b"\xff\x7f\x00\x00")),
        "slide s.tif: a level of 96 x 32767 pixels needs 12288 tiles and has 30 places and 30 sizes of them; damaged",
    ),
    "tiles of 100 GB, over which OpenSlide ends the process": (
        lambda folder: open_slide(slide(folder, 0, "TileLength", "value", b"\xff\xff\xff\x7f")),
        "slide s.tif: a level of 96 x 80 pixels needs 6 tiles|in tiles of 16 x 2147483647; damaged",
    ),
    "an array header that is no Python": (
        file("v.npy", b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8'{".ljust(128) + b"\n", vectors),
        "cannot be read as arrays",
    ),
    "one number where rows should be": (
        lambda folder: vectors(array(folder, 3.0)),
        r"float64 of shape \(\) with 0 ids",
    ),
    "complex vectors": (lambda folder: vectors(array(folder, np.ones((2, 2), complex))), "expected numbers"),
    "folds without a byte": (
        file("splits_0.csv", b"", lambda p: published_splits(p.parent)),
        "not readable as a table",
    ),
    "folds with a longer row": (
        file("splits_0.csv", b"train,val\na,b\nc,d,e,f\n", lambda p: published_splits(p.parent)),
        "not readable as a table",
    ),
    "gene sets that are no text": (file("s.gmt", b"\x80\tx\ty\n", read_groups), "cannot be read as text"),
    "a slide list without a header": (file("s.csv", b"\na.svs\n", find_slides), "needs a column path"),
    "resolutions without a header": (
        file("m.csv", b"\na.svs,1\n", read_mpp_table),
        "needs the columns slide_id and mpp",
    ),
    "a zip whose member has no name": (
        file("t.csv.zip", zipped({"": b"case\nP1\n"}), lambda p: read_table(p, ["case_id"], {})),
        "case_id",
    ),
    "Parquet cut short": (
        file("t.parquet", b"PAR1PAR1", lambda p: read_table(p, ["case_id"], {})),
        "cannot be read as Parquet|needs pyarrow",
    ),
    "a scan of an unknown type": (
        lambda folder: read_mask(bold(folder, "datatype", 77)),
        "not a NIfTI image|ends before",
    ),
    "labels with a hole": (
        file("l.txt", b"label run\na 0\nb\n", read_volume_labels),
        "volume 2 has no label or no run",
    ),
    "a condition without a name": (openfmri, "line 1 names no condition"),
    "a tune without a number": (lambda _: tunes("X:one\nK:C\nC\n"), "'?one'? is no number of a tune"),
    "a unit length that is none": (lambda _: tunes("X:1\nL:x\nK:C\nC\n")[1].notes(), "L:x is no length"),
    "a note through nothing": (lambda _: tunes("X:1\nK:C\nC/0\n")[1].notes(), "has no length"),
    "a note below hearing": (lambda _: tunes("X:1\nK:C\nC,,,,,,,,,\n")[1].notes(), "lies beyond MIDI's 0 to 127"),
    "a note for ever": (lambda _: tunes("X:1\nK:C\nC999999\n")[1].notes(), "is no note"),
    "a vocabulary that doubles and doubles": (
        lambda _: Tokenizer.restored({"merges": [[98, 98], *([256 + k, 256 + k] for k in range(1, 40))]}),
        "a piece longer than any word",
    ),
    "a vocabulary that is none": (lambda _: Tokenizer.restored([1]), "not the vocabulary of a tokenizer"),
    "a parent that is a number": (
        file("c.yaml", b"extends: 3\n", lambda p: overlay([p])),
        "extends 3; expected the name",
    ),
    "a name that YAML takes for yes": (file("c.yaml", b"on: 1\n", lambda p: overlay([p])), "put it in quotes"),
    "genes without one value": (
        file(
            "t.csv",
            b"case_id,slide_id,survival_months,censorship,A_rnaseq\nP,P.svs,1,0,\nQ,Q.svs,2,1,\n",
            lambda p: TableCohort(str(p), groups="none").load(),
        ),
        "1 gene columns and not one value in them",
    ),
    "dissimilarities that are bytes": (
        lambda folder: read_rdms(array(folder, np.full((1, 2, 2), b"a"))),
        "could not convert",
    ),
    "a date that is none": (file("c.yaml", b"a: 2026-13-45\n", lambda p: overlay([p])), "not readable as YAML"),
}


@pytest.mark.parametrize("name", list(FINDINGS))
def test_what_was_found_is_one_line_now(name: str, tmp_path: Path):
    use, said = FINDINGS[name]
    with pytest.raises(ValueError, match=said) as refused:
        use(tmp_path)
    assert type(refused.value).__name__ in ("DataError", "ConfigError")


def test_a_journal_line_of_another_shape_is_passed_over(tmp_path: Path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(Record("s0", "done", files=("a.h5",)))
    line = journal.path.read_text()
    for hole in ("files", "warnings"):
        journal.path.write_text(line + json.dumps({**json.loads(line), "slide_id": "s1", hole: None}) + "\n")
        assert list(journal.latest()) == ["s0"]


@pytest.mark.filterwarnings("error")
def test_damage_around_readable_pixels_is_no_warning(tmp_path: Path):
    Image.new("RGB", (9, 7), (255, 0, 0)).save(tmp_path / "p.tiff")
    content = bytearray((tmp_path / "p.tiff").read_bytes())
    last = struct.unpack_from("<I", content, 4)[0] + 2 + 12 * 9
    struct.pack_into("<HHII", content, last, 284, 3, 10_000, 300)  # a tag whose values lie beyond the file
    (tmp_path / "p.tiff").write_bytes(content)
    assert read_picture(tmp_path / "p.tiff", 4)[0].min() > 250


def test_pixels_without_a_value_are_dark_and_a_picture_of_them_is_none(tmp_path: Path):
    grey = np.full((8, 8), 2.0, np.float32)
    grey[0], grey[4:] = np.nan, 5.0
    Image.fromarray(grey).save(tmp_path / "p.tiff")
    seen = read_picture(tmp_path / "p.tiff", 8)[0]
    assert seen[0].max() == seen[2].max() == 0
    assert seen[6].min() == 255
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "p.tiff")
    with pytest.raises(DataError, match="no pixel has a value"):
        read_picture(tmp_path / "p.tiff", 8)


def test_a_frame_far_outside_its_picture_is_refused(tmp_path: Path):
    content = b"GIF87a\t\x00\x07\x00\x81\x00\x00\x01" + bytes(11) + b",\xa0\xc8\xeb\x85\xf3\xcc\xe1\x7f\x00\x08\x0f"
    content += b"\x00\x01\x08\x1cH\xb0\xa0\xc1\x83\x08\x13*D\x18\x10\x00;"
    (tmp_path / "p.gif").write_bytes(content)
    with pytest.raises(DataError, match=r"p\.gif: not readable as a picture"):
        read_picture(tmp_path / "p.gif", 4)


@pytest.mark.parametrize("direct", [True, False])
def test_a_slide_that_is_refused_late_is_closed(direct: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise DataError("no resolution")

    write_slide(tmp_path / "s.svs", stained(96, 80), (1.0, 2.0), 0.5)
    monkeypatch.setattr(opening, "resolution_of", refuse)
    with pytest.raises(DataError, match="no resolution"):
        open_slide(tmp_path / "s.svs", direct=direct)
    open_files = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
    assert str((tmp_path / "s.svs").resolve()) not in open_files


def test_an_animation_whose_later_frames_are_damaged_is_a_picture(tmp_path: Path):
    Image.new("RGB", (9, 7), 3).save(tmp_path / "p.gif", save_all=True, append_images=[Image.new("RGB", (9, 7), 9)])
    content = (tmp_path / "p.gif").read_bytes()
    second = content.rindex(b",") + 2
    (tmp_path / "p.gif").write_bytes(content[:second])
    seen = check_pictures([tmp_path / "p.gif"], 4)
    assert (seen.good, seen.faults, seen.notes) == ([tmp_path / "p.gif"], [], [])


def test_an_unknown_unit_of_time_is_no_time(tmp_path: Path):
    path = bold(tmp_path, "xyzt_units", 0x3F)
    assert header_tr(open_bold(path), path) is None


def test_an_attribute_that_is_no_number_says_nothing_about_a_patch(tmp_path: Path):
    with h5py.File(tmp_path / "s.h5", "w") as made:
        made["features"], made["coords"] = np.ones((2, 3), np.float32), np.zeros((2, 2), np.int64)
        made["coords"].attrs["patch_size_level0"] = "wide"
    assert read_features(tmp_path / "s.h5").sides == (None,)


def test_a_flipped_bit_does_not_pass_for_a_weight(tmp_path: Path):
    path = tmp_path / "w.pt"
    torch.save({"w": torch.zeros(1000)}, path)
    content = bytearray(path.read_bytes())
    at = content.find(bytes(4000))
    content[at + 1999] ^= 64
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["w"].any(), "torch itself does not see it"
    with pytest.raises(Damaged, match="differs from its check sum"):
        read_saved(path)


@pytest.mark.parametrize(("part", "value"), [("count", bytes(4)), ("kind", b"\x02\x00")])
@pytest.mark.parametrize("tag", ["ResolutionUnit", "XResolution"])
def test_a_resolution_that_is_no_number_is_no_resolution(tag: str, part: str, value: bytes, tmp_path: Path):
    with open_slide(slide(tmp_path, 0, tag, part, value), direct=False) as native:
        pixels = native.read(0, 0, 0, 96, 80)
    with open_slide(tmp_path / "s.tif", source_mpp=0.5) as found:
        assert np.array_equal(found.read(0, 0, 0, 96, 80), pixels)


def nothing(folder: Path) -> None:
    return None


def test_a_done_file_of_another_kind_is_not_done(tmp_path: Path):
    for content in ("[1]", "null", "3", "[" * 100_000):
        (tmp_path / "done.json").write_text(content)
        assert not Unit(tmp_path, nothing, {}).done


@pytest.fixture
def index(tmp_path: Path) -> Path:
    made = Index(Settings("abc", 4))
    made.add(["a"], np.eye(4, dtype=np.float32)[:1])
    index_folder.save(made, tmp_path / "idx")
    return tmp_path / "idx"


def test_a_first_save_that_was_killed_does_not_block_the_next(index: Path, tmp_path: Path):
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / ".manifest.json.999999999.tmp").write_text("{")
    (fresh / "items-000001").mkdir()
    index_folder.save(index_folder.load(index), fresh)
    assert index_folder.verify(fresh) == []
    assert not list(fresh.glob(".*.tmp"))


@pytest.mark.parametrize(
    "change", [{"arrays": "../elsewhere"}, {"files": {"../../up.npy": {"bytes": 1, "sha256": ""}}}, {"items": "many"}]
)
def test_a_manifest_names_files_and_places_none(change: dict[str, Any], index: Path):
    manifest = json.loads((index / "manifest.json").read_text())
    (index / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(DataError, match=r"manifest\.json: not readable"):
        index_folder.load(index)
