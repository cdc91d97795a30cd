"""Picture files -> bytes of one size: upright, on white, first frame; what cannot be read says so in one line."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from data.errors import DataError

Fit = Literal["crop", "pad"]
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff"})
WHITE = (255, 255, 255)
Progress = Callable[[int, int], None]
"""Told how many are done, and of how many."""
Picture = UInt8[np.ndarray, "3 y x"]


class Checked(NamedTuple):
    """What a first look at picture files found.

    Attributes:
        good: files that can be read, in the order given
        faults: one line for each that cannot
        notes: one line for each of which only a part is used
    """

    good: list[Path]
    faults: list[str]
    notes: list[str]


def decoded(content: bytes) -> Picture:
    """A picture as it is, RGB on white."""
    with Image.open(io.BytesIO(content)) as picture:
        return _planes(_on_white(picture))


def read_picture(path: Path, side: int, fit: Fit = "crop") -> Picture:
    """A picture file as a square.

    Args:
        path: any format that Pillow reads; of an animation the first frame
        side: pixels
        fit: "crop" fills the square and cuts what stands out on both sides, "pad" keeps everything and adds white

    Raises:
        DataError: no such file, or it is no picture, or it is damaged
    """
    # Pillow warns of damage around pixels that it can read, and of a size that is refused here.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with Image.open(path) as picture:
            if Image.MAX_IMAGE_PIXELS is not None and picture.width * picture.height > Image.MAX_IMAGE_PIXELS:
                raise ValueError(f"{picture.width} x {picture.height} pixels, more than {Image.MAX_IMAGE_PIXELS}")
            # JPEG is decoded at an eighth, a quarter or a half where that is still large enough.
            picture.draft("RGB", (2 * side, 2 * side))
            upright = ImageOps.exif_transpose(_on_white(picture))
    except FileNotFoundError:
        raise DataError(f"{path}: no such picture") from None
    except Exception as problem:  # of a damaged file Pillow lets through whatever its decoders raise
        raise DataError(f"{path}: not readable as a picture ({_first_line(problem)}); replace or remove it") from None
    if fit == "crop":
        return _planes(ImageOps.fit(upright, (side, side), Image.Resampling.BICUBIC))
    return _planes(ImageOps.pad(upright, (side, side), Image.Resampling.BICUBIC, color=WHITE))


def frames(path: Path) -> int:
    """How many frames a picture file has; 1 for a still picture, and where what follows the first is damaged."""
    try:
        with Image.open(path) as picture:
            return int(getattr(picture, "n_frames", 1))
    except Exception:  # Pillow lets through whatever its decoders raise; the first frame has been read already
        return 1


def check_pictures(paths: Sequence[Path], side: int, progress: Progress | None = None) -> Checked:
    """Decode every file once, so that none fails hours later.

    Args:
        paths: files
        side: pixels they will be read at
        progress: told how many are done, and of how many
    """
    good: list[Path] = []
    faults: list[str] = []
    notes: list[str] = []
    with ThreadPoolExecutor() as readers:
        for done, (path, fault, note) in enumerate(readers.map(lambda path: _looked_at(path, side), paths), start=1):
            if fault is None:
                good.append(path)
            else:
                faults.append(fault)
            if note is not None:
                notes.append(note)
            if progress is not None:
                progress(done, len(paths))
    return Checked(good, faults, notes)


def _looked_at(path: Path, side: int) -> tuple[Path, str | None, str | None]:
    try:
        read_picture(path, side)
    except DataError as fault:
        return path, str(fault), None
    count = frames(path)
    return path, None, f"{path}: animated, the first of {count} frames is used" if count > 1 else None


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        clear = picture.convert("RGBA")
        ground = Image.new("RGBA", clear.size, (*WHITE, 255))
        opaque = Image.alpha_composite(ground, clear).convert("RGB")
        opaque.info.update({key: value for key, value in picture.info.items() if key == "exif"})
        return opaque
    if picture.mode.startswith(("I", "F")):
        return _stretched(picture)
    return picture.convert("RGB")


def _stretched(picture: Image.Image) -> Image.Image:
    """16-bit and float grey levels, from darkest to brightest; what is no number is as dark as the darkest."""
    grey = np.asarray(picture, dtype=np.float64)
    known = grey[np.isfinite(grey)]
    if not known.size:
        raise ValueError("no pixel has a value")
    low, high = float(known.min()), float(known.max())
    grey = np.nan_to_num(grey, nan=low, posinf=high, neginf=low)
    return Image.fromarray(((grey - low) * (255 / max(high - low, 1e-12))).round().astype(np.uint8)).convert("RGB")


def _planes(picture: Image.Image) -> Picture:
    return np.ascontiguousarray(np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1))


def _first_line(problem: BaseException) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]
