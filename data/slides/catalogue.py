"""Which slides there are: a folder, a list or one file -> named slide files."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data.errors import DataError
from data.slides.resolution import checked_mpp

WHOLE_SLIDE = (".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".bif", ".svslide", ".czi", ".dcm")
PLAIN_IMAGE = (".png", ".jpg", ".jpeg", ".bmp")
COMPOUND = (".ome.tiff", ".ome.tif")
NAMED_AFTER_SLIDES = (".sdpc", ".h5", ".pt")  # not read as slides here, but tables and folders name slides by them
# These formats keep their pixels in images beside the index file; those are not slides of their own.
INDEX_OF_IMAGES = (".vms", ".vmu")
# A folder with one of these holds features, ours or TRIDENT's; the images in these folders of it are no slides.
FEATURES_MADE_HERE = {"journal.jsonl", ".locks", "contours_geojson"}
PICTURES_OF_SLIDES = ("thumbnails", "contours")
SERIES_INSTANCE_UID = b"\x20\x00\x0e\x00UI"


@dataclass(frozen=True)
class SlideFile:
    """A slide to be read.

    Attributes:
        slide_id: file name without its true suffix
        path: as found (symlinks are not resolved)
        mpp: micrometres per level-0 pixel given by a list, None = ask the header
    """

    slide_id: str
    path: Path
    mpp: float | None = None


def slide_name(identifier: str) -> str:
    """A name without the suffix of its file, and only its suffix: `A.B.svs` is `A.B`, `vvss.svs` is `vvss`."""
    for suffix in (*COMPOUND, *WHOLE_SLIDE, *PLAIN_IMAGE, *NAMED_AFTER_SLIDES):
        if identifier.lower().endswith(suffix) and len(identifier) > len(suffix):
            return identifier[: -len(suffix)]
    return identifier


def find_slides(source: Path) -> list[SlideFile]:
    """Find slides.

    Args:
        source: a folder (searched recursively, symlinks followed; the pictures of a folder of features are left out),
            a `.csv` list (column path, slide or slide_id; optional mpp; relative paths start at the list), or one slide

    Raises:
        DataError: nothing there, or two files with one identifier
    """
    if source.is_dir():
        found = [SlideFile(name, path) for name, path in _in_folder(source)]
        if not found:
            kinds = " ".join((*WHOLE_SLIDE, *PLAIN_IMAGE))
            raise DataError(f"{source}: no slide found. Expected files ending in {kinds}")
    elif source.suffix.lower() == ".csv" and source.is_file():
        found = _in_list(source)
    elif source.exists():
        found = [SlideFile(slide_name(source.name), source)]
    else:
        raise DataError(f"{source}: no such folder, list or slide")
    refuse_duplicates(found)
    return sorted(found, key=lambda slide: slide.slide_id)


def refuse_duplicates(slides: Iterable[SlideFile]) -> None:
    """Two files of one name would write one feature file.

    Raises:
        DataError: naming both
    """
    seen: dict[str, Path] = {}
    for slide in slides:
        if slide.slide_id in seen:
            raise DataError(
                f"slide {slide.slide_id}: found twice, {seen[slide.slide_id]} and {slide.path}. "
                "Rename one, or give a CSV list with the files you mean"
            )
        seen[slide.slide_id] = slide.path


def _in_folder(source: Path) -> Iterable[tuple[str, Path]]:
    visited: set[str] = set()
    closed: list[Path] = []
    for folder, below, names in os.walk(source, onerror=lambda e: closed.append(Path(e.filename)), followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            below.clear()
            continue
        visited.add(real)
        pictures = PICTURES_OF_SLIDES if FEATURES_MADE_HERE & {*below, *names} else ()
        below[:] = sorted(name for name in below if name not in pictures)
        shown = sorted(name for name in names if not name.startswith("."))
        indexed = any(name.lower().endswith(INDEX_OF_IMAGES) for name in shown)
        kinds = WHOLE_SLIDE if indexed else (*WHOLE_SLIDE, *PLAIN_IMAGE)
        dicom = [Path(folder) / name for name in shown if name.lower().endswith(".dcm")]
        yield from _dicom_series(dicom)
        for name in shown:
            if name.lower().endswith(kinds) and not name.lower().endswith(".dcm"):
                yield slide_name(name), Path(folder) / name
    for place in closed:  # reading it fails with the reason, so that what lies in it is not missing in silence
        yield "_".join(place.relative_to(source).parts) or place.name, place


def _dicom_series(files: list[Path]) -> Iterable[tuple[str, Path]]:
    """A DICOM slide is a folder of files, one per level; OpenSlide opens the series from any of them."""
    series: dict[bytes, list[Path]] = {}
    for path in files:
        try:
            with path.open("rb") as file:
                head = file.read(1 << 16)
        except OSError:
            head = b""
        at = head.find(SERIES_INSTANCE_UID)
        size = int.from_bytes(head[at + 6 : at + 8], "little")
        uid = head[at + 8 : at + 8 + size] if at >= 0 else str(path).encode()
        series.setdefault(uid, []).append(path)
    for members in series.values():
        alone = len(series) == 1 and len(members) > 1
        yield (members[0].parent.name if alone else slide_name(members[0].name)), members[0]


def rows_of(path: Path, what: str) -> list[dict[str, str | None]]:
    """The rows of a small CSV file by column; None where a row is short.

    Raises:
        DataError: it cannot be read
    """
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{what} {path}: cannot be read ({error}); expected CSV in UTF-8") from error
    return [{str(name): cell for name, cell in row.items() if name is not None} for row in rows]


def _in_list(source: Path) -> list[SlideFile]:
    rows = rows_of(source, "slide list")
    column = next((c for c in ("path", "slide", "slide_id", "wsi") if rows and c in rows[0]), None)
    if column is None:
        have = ", ".join(rows[0]) if rows else "no rows"
        raise DataError(f"slide list {source}: needs a column path, slide or slide_id, found {have}")
    found = []
    for number, row in enumerate(rows, start=2):
        named = (row[column] or "").strip()
        if not named:
            raise DataError(f"slide list {source}, line {number}: column {column} is empty")
        path = source.parent / named
        given = row.get("mpp")
        mpp = checked_mpp(given, f"slide list {source}, line {number}: mpp") if given else None
        found.append(SlideFile(slide_name(path.name), path, mpp))
    return found
