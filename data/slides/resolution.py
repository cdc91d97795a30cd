"""Microns per pixel: from a table, the header, or the objective power, in this order; never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from data.errors import DataError
from data.slides.levels import Resolution

# A monitor's 72 dots per inch in a TIFF header would be 353 micrometres a pixel: not a microscope.
PLAUSIBLE = (0.02, 20.0)
EYEPIECE = 10.0  # objective x microns per pixel of the scanners that state both: 40x = 0.25, 20x = 0.5
ANISOTROPY = 0.01


def resolution_of(
    properties: Mapping[str, str], given: float | None = None, fallback: float | None = None
) -> Resolution:
    """Decide the resolution of level 0.

    Args:
        properties: OpenSlide-like keys `openslide.mpp-x`, `openslide.mpp-y`, `openslide.objective-power`
        given: micrometres from `--mpp-table`; wins over the header
        fallback: micrometres for slides whose header has neither (`--source-mpp`)
    """
    if given is not None:
        return Resolution(given, "mpp table")
    warnings: list[str] = []
    x, y = (_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
    if x and y:
        if PLAUSIBLE[0] <= x <= PLAUSIBLE[1] and PLAUSIBLE[0] <= y <= PLAUSIBLE[1]:
            if abs(x - y) > ANISOTROPY * max(x, y):
                warnings.append(f"pixels are not square ({x:g} x {y:g} micrometres); their mean is used")
            return Resolution((x + y) / 2, "header", tuple(warnings))
        warnings.append(f"the header's {x:g} micrometres per pixel is not a microscope's; ignored")
    if fallback is not None:
        return Resolution(fallback, "source mpp", tuple(warnings))
    power = _number(properties.get("openslide.objective-power"))
    if power and 1 <= power <= 100:
        warnings.append(f"no microns-per-pixel in the file; {EYEPIECE / power:g} taken from objective power {power:g}x")
        return Resolution(EYEPIECE / power, "objective power", tuple(warnings))
    return Resolution(None, "missing", tuple(warnings))


def checked_mpp(mpp: float | str, where: str) -> float:
    """Micrometres per pixel that a user gave.

    Raises:
        DataError: no number, or none of a microscope
    """
    try:
        value = float(mpp)
    except ValueError:
        raise DataError(f"{where} {mpp!r} is not a number") from None
    if not PLAUSIBLE[0] <= value <= PLAUSIBLE[1]:
        raise DataError(f"{where} {mpp!r}: expected {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g} micrometres per pixel")
    return value


def read_mpp_table(path: Path) -> dict[str, float]:
    """Read `slide_id,mpp` rows (CSV with a header; the identifier with or without its file suffix).

    Raises:
        DataError: a column is missing, a value is no plausible number, or an identifier has two values
    """
    from data.slides.catalogue import rows_of, slide_name

    table: dict[str, float] = {}
    for row in rows_of(path, "mpp table"):
        slide = row.get("slide_id")
        if slide is None or row.get("mpp") is None:
            raise DataError(f"mpp table {path}: needs the columns slide_id and mpp, found {', '.join(row)}")
        name, mpp = slide_name(slide.strip()), _number(row["mpp"])
        if mpp is None or not PLAUSIBLE[0] <= mpp <= PLAUSIBLE[1]:
            raise DataError(
                f"mpp table {path}: {name} has mpp {row['mpp']!r}; expected {PLAUSIBLE[0]} to {PLAUSIBLE[1]}"
            )
        if table.setdefault(name, mpp) != mpp:
            raise DataError(f"mpp table {path}: {name} has two values, {table[name]:g} and {mpp:g}; keep one row")
    return table


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
