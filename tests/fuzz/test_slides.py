"""Slides: damaged headers and directories, tiles cut short or spoilt, plain images; opened, surveyed, and read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import strategies as st
from PIL import Image

from data.errors import DataError
from data.slides import opening
from data.slides.generated import stained, write_slide
from data.slides.opening import open_slide
from data.slides.survey import GridSettings, survey
from data.slides.tissue import TissueSettings
from tests.fuzz.damage import damaged, files, odd_tags
from tests.fuzz.tried import Tried, law

WIDTH, HEIGHT, TILE, MOST = 96, 80, 16, 128
STYLES = {"svs": ("aperio", "jpeg"), "tif": ("tiff", "deflate"), "lzw.svs": ("aperio", "lzw")}
GRID, TISSUE = GridSettings(mpp=0.5, patch=32), TissueSettings()


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain image may have 400 megapixels, which a damaged header may ask for, and which take their time."""
    monkeypatch.setattr(opening, "PLAIN_LIMIT", 1 << 20)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good slides of every layout that is read, and of one that is not."""
    folder = tmp_path_factory.mktemp("slides")
    pixels = stained(WIDTH, HEIGHT)
    for ending, (style, packing) in STYLES.items():
        write_slide(folder / f"good.{ending}", pixels, (1.0, 2.0), 0.5, style, TILE, packing)
    with tifffile.TiffWriter(folder / "good.ome.tif", ome=True) as file:
        about = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        file.write(pixels, subifds=1, tile=(TILE, TILE), photometric="rgb", metadata=about, compression="lzw")
        file.write(pixels[::2, ::2], subfiletype=1, tile=(TILE, TILE), photometric="rgb", compression="lzw")
    tifffile.imwrite(
        folder / "good.big.tif", pixels, tile=(TILE, TILE), photometric="rgb", bigtiff=True, compression="deflate"
    )
    tifffile.imwrite(folder / "good.strips.tif", pixels, photometric="rgb", compression="deflate")
    for ending in ("png", "jpg"):
        Image.fromarray(pixels).save(folder / f"good.{ending}")
    return folder


def good(place: Path, ending: str) -> bytes:
    return (place / f"good.{ending}").read_bytes()


def used(path: Path, direct: bool) -> None:
    """Open a slide, lay its grid on its tissue and read every level's ends, as `survival features` does."""
    with open_slide(path, direct=direct) as slide:
        for number, level in enumerate(slide.levels):
            wide, high = min(level.width, MOST), min(level.height, MOST)
            for x, y in ((0, 0), (level.width - wide, level.height - high)):
                pixels = slide.read(number, x, y, wide, high)
                assert pixels.dtype == np.uint8
                assert pixels.shape == (high, wide, 3)
    if direct:
        survey(path, GRID, TISSUE, source_mpp=0.5)


TIFFS = ["svs", "tif", "lzw.svs", "ome.tif", "big.tif", "strips.tif"]


@law(data=st.data(), ending=st.sampled_from(TIFFS), direct=st.booleans())
def test_directories_of_slides(data: st.DataObject, ending: str, direct: bool, place: Path, tried: Tried):
    content = good(place, ending)
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        at = data.draw(st.sampled_from([0, *(page.offset for page in tiff.pages)]))
    head, rest = content[:at], data.draw(damaged([content[at:]], head=250))
    path = place / f"odd.{ending}"
    path.write_bytes(data.draw(odd_tags(content)) if data.draw(st.booleans()) else head + rest)
    tried(used, path, direct)


@law(data=st.data(), ending=st.sampled_from(TIFFS[:-1]), direct=st.booleans())
def test_tiles_of_slides(data: st.DataObject, ending: str, direct: bool, place: Path, tried: Tried):
    content = bytearray(good(place, ending))
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        tiles = [
            (start, size)
            for page in tiff.pages
            for start, size in zip(page.dataoffsets, page.databytecounts, strict=True)
        ]
    for _ in range(data.draw(st.integers(1, 3))):
        start, size = data.draw(st.sampled_from(tiles))
        at = start + data.draw(st.integers(0, size - 1))
        piece = data.draw(st.binary(min_size=1, max_size=16))
        content[at : at + len(piece)] = piece
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path = place / f"spoilt.{ending}"
    path.write_bytes(content)
    tried(used, path, direct)


@law(data=st.data(), ending=st.sampled_from(["png", "jpg", "strips.tif", "svs"]), name=st.sampled_from(["png", "svs"]))
def test_files_of_any_kind_as_slides(data: st.DataObject, ending: str, name: str, place: Path, tried: Tried):
    path = place / f"any.{name}"
    path.write_bytes(data.draw(files([good(place, ending)], head=100)))
    tried(used, path, True)


def test_good_slides_are_read(place: Path):
    for ending in (*TIFFS, "png", "jpg"):
        for direct in (True, False):
            used(place / f"good.{ending}", direct)
    with pytest.raises(DataError, match="the file is gone"):
        used(place / "gone.svs", True)
