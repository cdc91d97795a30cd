"""Open a slide with whatever reads it best: tiles straight from a TIFF, OpenSlide, or a plain image."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openslide
import tifffile
from PIL import Image

from data.errors import DataError
from data.slides.levels import WHITE, Level, Pixels, Resolution, Slide, pyramid
from data.slides.resolution import resolution_of
from data.slides.tiled import TiledTiff, refuse_invented, tiled_pages

# A plain image is held whole: 400 megapixels are 1.2 GB.
PLAIN_LIMIT = 400_000_000
Image.MAX_IMAGE_PIXELS = None  # ours says what to do, Pillow's speaks of attacks and is lower
EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
# Vendors whose levels are whole, upright TIFF pages; the others (Ventana, Philips, ...) need OpenSlide's arithmetic.
PAGED_VENDORS = {"aperio", "generic-tiff"}
ALIGN = 50
MICROMETRES = {2: 25_400.0, 3: 10_000.0}  # TIFF resolution unit: inch, centimetre


def open_slide(path: Path, mpp: float | None = None, source_mpp: float | None = None, direct: bool = True) -> Slide:
    """Open a slide.

    Args:
        path: anything OpenSlide opens, an OME-TIFF, or a plain image
        mpp: micrometres per level-0 pixel from a table; wins over the header
        source_mpp: the same, for headers that say nothing
        direct: decode tiles of a TIFF directly where possible; False leaves everything OpenSlide opens to OpenSlide

    Raises:
        DataError: missing, empty, unreadable or not an image
    """
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise DataError(f"slide {path.name}: the file is gone ({path})") from None
    except PermissionError:
        raise DataError(f"slide {path.name}: no permission to read it ({path}); chmod it or run as its owner") from None
    except OSError as error:
        raise DataError(f"slide {path.name}: cannot be read ({error})") from error
    if empty:
        raise DataError(f"slide {path.name}: the file is empty (0 bytes). Copy or download it again")
    refuse_invented(path)
    try:
        vendor = openslide.OpenSlide.detect_format(str(path))
        native = openslide.OpenSlide(str(path)) if vendor else None
    except openslide.OpenSlideError as error:
        raise DataError(
            f"slide {path.name}: {vendor or 'OpenSlide'} cannot open it ({error}); truncated or damaged?"
        ) from error
    with ExitStack() as unless_kept:
        if native is not None:
            unless_kept.callback(native.close)
        if native is None or (direct and vendor in PAGED_VENDORS):
            found = _open_pages(path, native, mpp, source_mpp)
            if found is not None:
                return found
        if native is not None:
            properties = dict(native.properties)
            native.set_cache(openslide.OpenSlideCache(96 << 20))
            levels = _levels(path, list(native.level_dimensions))
            slide = NativeSlide(path, levels, resolution_of(properties, mpp, source_mpp), properties, native=native)
            unless_kept.pop_all()
            return slide
    return _open_plain(path, mpp, source_mpp)


@dataclass
class NativeSlide(Slide):
    """A slide read by OpenSlide."""

    native: openslide.OpenSlide = field(kw_only=True)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        down = self.native.level_downsamples[level]
        left, top = _aligned(x, down), _aligned(y, down)
        start, size = (round(left * down), round(top * down)), (width + x - left, height + y - top)
        try:
            region = self.native.read_region(start, level, size)
        except openslide.OpenSlideError as error:
            raise DataError(f"slide {self.path.name}: level {level} at ({x}, {y}) cannot be read ({error})") from error
        pixels = np.asarray(region)[y - top :, x - left :]
        alpha = pixels[..., 3:]
        if alpha.min() == 255:
            return pixels[..., :3]
        blended = pixels[..., :3].astype(np.uint16) * alpha + np.uint16(WHITE) * (255 - alpha)
        return ((blended + 127) // 255).astype(np.uint8)

    def close(self) -> None:
        self.native.close()


def _aligned(start: int, down: float) -> int:
    """The nearest pixel at or before `start` that begins on a whole level-0 pixel.

    OpenSlide takes level-0 integers and blends neighbours where these fall between pixels of the level.
    """

    def off(before: int) -> float:
        at = (start - before) * down
        return abs(at - round(at))

    return start - next((k for k in range(ALIGN) if off(k) < 0.02), min(range(ALIGN), key=off))


@dataclass
class PlainImage(Slide):
    """An image held whole in memory, one level."""

    pixels: Pixels = field(kw_only=True)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        if level:
            raise ValueError(f"slide {self.path.name}: a plain image has level 0 only, asked for level {level}")
        out = np.full((height, width, 3), WHITE, np.uint8)
        left, top = max(x, 0), max(y, 0)
        inside = self.pixels[top : max(y + height, 0), left : max(x + width, 0)]
        out[top - y : top - y + inside.shape[0], left - x : left - x + inside.shape[1]] = inside
        return out

    def close(self) -> None:
        pass


def _levels(path: Path, sizes: list[tuple[int, int]]) -> tuple[Level, ...]:
    """The levels of these `(width, height)`.

    Raises:
        DataError: one is empty, or larger than the first
    """
    for width, height in sizes:
        if not (0 < width <= sizes[0][0] and 0 < height <= sizes[0][1]):
            first = "{} x {}".format(*sizes[0])
            raise DataError(
                f"slide {path.name}: a level of {width} x {height} pixels beside a first one of {first}; damaged? "
                "Copy it again"
            )
    return pyramid(sizes)


def _open_pages(
    path: Path, native: openslide.OpenSlide | None, mpp: float | None, source_mpp: float | None
) -> TiledTiff | None:
    opened = tiled_pages(path, list(native.level_dimensions) if native is not None else None)
    if opened is None:
        return None
    tiff, pages = opened
    with ExitStack() as unless_kept:
        unless_kept.callback(tiff.close)
        properties = dict(native.properties) if native is not None else {}
        properties |= _ome_resolution(tiff) if "openslide.mpp-x" not in properties else {}
        levels = _levels(path, [(page.imagewidth, page.imagelength) for page in pages])
        resolution = resolution_of(properties, mpp, source_mpp)
        slide = TiledTiff(path, levels, resolution, properties, tiff=tiff, pages=pages)
        unless_kept.pop_all()
        return slide


def _ome_resolution(tiff: tifffile.TiffFile) -> dict[str, str]:
    """Physical pixel size of an OME-TIFF in micrometres, or the TIFF resolution tags; of damaged ones nothing."""
    try:
        described = list(ElementTree.fromstring(tiff.ome_metadata).iter()) if tiff.ome_metadata else []
    except ElementTree.ParseError:
        described = []
    for node in described:
        if node.tag.endswith("}Pixels") and node.get("PhysicalSizeXUnit", "µm") == "µm" and node.get("PhysicalSizeX"):
            x, y = node.get("PhysicalSizeX", ""), node.get("PhysicalSizeY", "")
            return {"openslide.mpp-x": x, "openslide.mpp-y": y or x}
    tags = tiff.pages.first.tags
    said = tags["ResolutionUnit"].value if "ResolutionUnit" in tags else None
    unit = MICROMETRES.get(int(said)) if isinstance(said, int) else None
    sizes = [tags[name].value for name in ("XResolution", "YResolution") if name in tags]
    fractions = [size for size in sizes if isinstance(size, tuple) and len(size) == 2 and all(size)]
    if unit is None or len(fractions) < 2:
        return {}
    return {
        f"openslide.mpp-{axis}": f"{unit * under / over:.6g}"
        for axis, (over, under) in zip("xy", fractions, strict=True)
    }


def _open_plain(path: Path, mpp: float | None, source_mpp: float | None) -> PlainImage:
    """Read a whole image: TIFF through tifffile (its resolution tags count), the rest through Pillow."""
    properties: dict[str, str] = {}
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            with tifffile.TiffFile(path) as tiff:
                page = tiff.pages.first
                _refuse_large(path, page.imagewidth, page.imagelength)
                pixels = page.asarray()
                properties = _ome_resolution(tiff)
        else:
            with Image.open(path) as image:
                _refuse_large(path, *image.size)
                if image.mode not in EIGHT_BIT:
                    raise DataError(f"slide {path.name}: expected 8-bit RGB pixels, found {image.mode}; convert it")
                pixels = np.asarray(image.convert("RGB"))
    except DataError:
        raise
    except Exception as error:  # every reader and codec has its own exception types, none shared
        raise DataError(f"slide {path.name}: no reader knows this file ({error})") from error
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise DataError(
            f"slide {path.name}: expected 8-bit RGB pixels, found {pixels.dtype} of shape {pixels.shape}; convert it"
        )
    rgb = np.ascontiguousarray(pixels[..., :3])
    levels = _levels(path, [(rgb.shape[1], rgb.shape[0])])
    resolution: Resolution = resolution_of(properties, mpp, source_mpp)
    return PlainImage(path, levels, resolution, properties, pixels=rgb)


def _refuse_large(path: Path, width: int, height: int) -> None:
    if width * height > PLAIN_LIMIT:
        raise DataError(
            f"slide {path.name}: a plain image of {width} x {height} pixels does not fit in memory ("
            f"limit {PLAIN_LIMIT // 1_000_000} megapixels). Make it tiled: `vips tiffsave in out --tile --pyramid`"
        )
