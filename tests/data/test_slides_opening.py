"""Finding, opening and measuring slides: what is read, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from data.errors import DataError
from data.slides.catalogue import find_slides, slide_name
from data.slides.generated import ramp, stained, write_slide
from data.slides.opening import PlainImage, open_slide
from data.slides.resolution import read_mpp_table, resolution_of
from data.slides.tiled import TiledTiff

CMU, TCGA, KIDNEY = "CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs", "kidney-48-5.tif"


@pytest.mark.parametrize("name", [CMU, TCGA])
def test_tiles_decoded_here_are_the_pixels_openslide_gives(shared_data: Path, name: str):
    path = shared_data / "slides" / name
    rng = np.random.default_rng(5)
    with open_slide(path) as ours, open_slide(path, direct=False) as theirs:
        assert isinstance(ours, TiledTiff)
        for level in range(len(ours.levels)):
            for _ in range(4):
                x, y = int(rng.integers(0, ours.levels[level].width)), int(rng.integers(0, ours.levels[level].height))
                if level:  # OpenSlide blends between the pixels of a level except where level-0 integers meet them
                    x, y = 0, 0
                assert np.array_equal(ours.read(level, x, y, 300, 280), theirs.read(level, x, y, 300, 280))


def test_real_slides_say_what_their_sheet_says(shared_data: Path):
    with open_slide(shared_data / "slides" / CMU) as slide:
        assert (slide.width, slide.height, slide.resolution.mpp) == (2220, 2967, 0.499)
    with open_slide(shared_data / "slides" / TCGA) as slide:
        assert [level.down for level in slide.levels] == [1.0, 2.0]
        assert slide.resolution.mpp is None
    with open_slide(shared_data / "slides" / KIDNEY) as slide:
        assert isinstance(slide, PlainImage)
        assert (slide.width, slide.height) == (1493, 901)


@pytest.mark.parametrize("compression", [None, "deflate", "lzw", "jpeg"])
@pytest.mark.parametrize("style", ["aperio", "tiff"])
def test_codecs_and_styles_are_read_like_openslide(tmp_path: Path, compression: str | None, style: str):
    path = write_slide(tmp_path / "a.tif", stained(700, 500), (1.0, 2.0), 0.25, style, 256, compression)
    with open_slide(path) as ours, open_slide(path, direct=False) as theirs:
        assert isinstance(ours, TiledTiff)
        assert ours.resolution.mpp == pytest.approx(0.25, rel=1e-4)
        for level in (0, 1):
            assert np.array_equal(ours.read(level, 0, 0, 350, 250), theirs.read(level, 0, 0, 350, 250))


def test_an_ome_tiff_with_sub_resolutions_is_a_pyramid(tmp_path: Path):
    source, path = ramp(640, 512), tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        about = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        file.write(source, subifds=1, tile=(128, 128), photometric="rgb", metadata=about, compression="deflate")
        file.write(source[::2, ::2], subfiletype=1, tile=(128, 128), photometric="rgb", compression="deflate")
    with open_slide(path) as slide:
        assert slide.resolution.mpp == 0.25
        assert np.array_equal(slide.read(0, 10, 20, 200, 300), source[20:320, 10:210])
    assert find_slides(path)[0].slide_id == "a"


def test_plain_images_are_read_whole(tmp_path: Path):
    source = stained(200, 150)
    Image.fromarray(source).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png", mpp=0.5) as slide:
        assert np.array_equal(slide.read(0, 20, 30, 50, 40), source[30:70, 20:70])
        assert (slide.read(0, 190, 140, 20, 20)[10:, 10:] == 255).all()


def test_every_kind_of_bad_file_is_named_with_its_fault(tmp_path: Path):
    good = write_slide(tmp_path / "good.svs", stained(600, 600))
    (tmp_path / "text.svs").write_text("this is no slide\n" * 100)
    (tmp_path / "empty.svs").touch()
    (tmp_path / "cut.svs").write_bytes(good.read_bytes()[:20_000])
    for name, words in {
        "text.svs": "slide text.svs: no reader knows this file",
        "empty.svs": r"slide empty.svs: the file is empty \(0 bytes\)",
        "cut.svs": "slide cut.svs: .*truncated",
        "gone.svs": "slide gone.svs: the file is gone",
    }.items():
        with pytest.raises(DataError, match=words):
            open_slide(tmp_path / name)


def test_a_slide_cut_short_in_its_pixels_is_called_truncated(tmp_path: Path):
    path = write_slide(tmp_path / "a.svs", stained(600, 600), compression=None)
    with open_slide(path) as slide:
        assert isinstance(slide, TiledTiff)
        last = max(slide.pages[0].dataoffsets)
        data = bytearray(path.read_bytes())
        del data[last + 10 :]
        # Directories stay readable when they stand before the pixels, as scanners write them.
        path.write_bytes(data)
        with pytest.raises(
            DataError, match=r"slide a.svs: truncated, tile \d+ of level 0 ends \d+ bytes after the file"
        ):
            slide.read(0, 0, 0, 600, 600)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_slide(tmp_path / "a.svs", stained(300, 300))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"slide a.svs: no permission to read it .*chmod"):
        open_slide(path)


def test_a_plain_image_too_large_to_hold_is_told_how_to_be_read(tmp_path: Path):
    Image.new("1", (20100, 20100)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"slide a.png: a plain image of 20100 x 20100 pixels .* Make it tiled: `vips"):
        open_slide(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_pixels_of_16_bits_are_refused_not_clipped_to_white(name: str, tmp_path: Path):
    Image.fromarray(np.full((40, 40), 9000, np.uint16)).save(tmp_path / name)
    with pytest.raises(DataError, match=rf"slide {name}: expected 8-bit RGB pixels, found .*; convert it"):
        open_slide(tmp_path / name)


def test_only_the_true_suffix_is_taken_off():
    assert slide_name("vvss.svs") == "vvss"
    assert slide_name("TCGA-2F-A9KO-01Z-00-DX1.195576CF.svs") == "TCGA-2F-A9KO-01Z-00-DX1.195576CF"
    assert slide_name("a.ome.tiff") == "a"
    assert slide_name("A.TIFF") == "A"
    assert slide_name("case.1") == "case.1"
    assert slide_name(".svs") == ".svs"


def test_folders_are_searched_through_links_once(tmp_path: Path):
    inner = tmp_path / "slides" / "b"
    inner.mkdir(parents=True)
    for name in ("x.svs", "y.ndpi", "._x.svs", "note.txt"):
        (inner / name).touch()
    (tmp_path / "slides" / "loop").symlink_to(tmp_path / "slides")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "z.tif").touch()
    (tmp_path / "slides" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "slides" / "w.svs").symlink_to(tmp_path / "nowhere.svs")
    assert [slide.slide_id for slide in find_slides(tmp_path / "slides")] == ["w", "x", "y", "z"]


def test_images_beside_an_index_are_no_slides_and_dicom_files_are_grouped(tmp_path: Path):
    for name in ("a.vms", "a.jpg", "a(1).jpg"):
        (tmp_path / name).touch()
    assert [slide.path.name for slide in find_slides(tmp_path)] == ["a.vms"]
    folder = tmp_path / "series"
    folder.mkdir()
    for name in ("level0.dcm", "level1.dcm"):
        (folder / name).write_bytes(b"\0" * 128 + b"DICM" + b"\x20\x00\x0e\x00UI\x04\x001.2\0")
    assert [(s.slide_id, s.path.name) for s in find_slides(folder)] == [("series", "level0.dcm")]


def test_two_files_of_one_name_are_refused(tmp_path: Path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "s.svs").touch()
    with pytest.raises(
        DataError, match=r"slide s: found twice, .*a/s.svs and .*b/s.svs. Rename one, or give a CSV list"
    ):
        find_slides(tmp_path)


def test_a_list_gives_paths_and_resolutions(tmp_path: Path):
    (tmp_path / "list.csv").write_text("path,mpp\nin/a.svs,0.25\nb.tif,\n")
    found = find_slides(tmp_path / "list.csv")
    assert [(s.slide_id, s.path, s.mpp) for s in found] == [
        ("a", tmp_path / "in" / "a.svs", 0.25),
        ("b", tmp_path / "b.tif", None),
    ]
    (tmp_path / "bad.csv").write_text("name\na\n")
    with pytest.raises(DataError, match=r"slide list .*bad.csv: needs a column path, slide or slide_id, found name"):
        find_slides(tmp_path / "bad.csv")
    for row, fault in (
        ("a.svs,0", r"line 2: mpp '0': expected 0.02 to 20 micrometres per pixel"),
        ("a.svs,fine", r"line 2: mpp 'fine' is not a number"),
        (",0.5", r"line 2: column path is empty"),
        ("a.svs\n,", r"line 3: column path is empty"),
    ):
        (tmp_path / "bad.csv").write_text(f"path,mpp\n{row}\n")
        with pytest.raises(DataError, match=fault):
            find_slides(tmp_path / "bad.csv")
    (tmp_path / "bad.csv").write_text("mpp,path\n0.5\n")
    with pytest.raises(DataError, match=r"line 2: column path is empty"):
        find_slides(tmp_path / "bad.csv")
    (tmp_path / "bad.csv").write_bytes(b"path\n\xff\n")
    with pytest.raises(DataError, match=r"slide list .*bad.csv: cannot be read"):
        find_slides(tmp_path / "bad.csv")
    with pytest.raises(DataError, match="no such folder, list or slide"):
        find_slides(tmp_path / "nothing")


def test_resolution_comes_from_table_header_fallback_or_objective_and_says_so():
    header = {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25", "openslide.objective-power": "20"}
    assert resolution_of(header, 0.3, 0.4).mpp == 0.3
    assert resolution_of(header, None, 0.4).source == "header"
    assert resolution_of({}, None, 0.4).source == "source mpp"
    power = resolution_of({"openslide.objective-power": "40"})
    assert (power.mpp, power.source) == (0.25, "objective power")
    assert "0.25 taken from objective power 40x" in power.warnings[0]
    monitor = resolution_of({"openslide.mpp-x": "352.8", "openslide.mpp-y": "352.8"})
    assert monitor.mpp is None
    assert "not a microscope's" in monitor.warnings[0]
    uneven = resolution_of({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.27"})
    assert uneven.mpp == pytest.approx(0.26)
    assert "not square" in uneven.warnings[0]


def test_the_mpp_table_names_its_bad_row(tmp_path: Path):
    table = tmp_path / "mpp.csv"
    table.write_text("slide_id,mpp\na.svs,0.25\nb,0.5\n")
    assert read_mpp_table(table) == {"a": 0.25, "b": 0.5}
    table.write_text("slide_id,mpp\na.svs,40\n")
    with pytest.raises(DataError, match=r"a has mpp '40'; expected 0.02 to 20"):
        read_mpp_table(table)
    table.write_text("slide_id,mpp\na,0.25\na.svs,0.5\n")
    with pytest.raises(DataError, match=r"a has two values, 0.25 and 0.5"):
        read_mpp_table(table)
    table.write_text("slide,res\na,0.25\n")
    with pytest.raises(DataError, match="needs the columns slide_id and mpp, found slide, res"):
        read_mpp_table(table)
