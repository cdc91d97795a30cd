"""How numbers are written for readers: fixed digits, a true minus sign, and words where there is no number."""

from __future__ import annotations

import math
import re

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def decimal(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """A number with fixed digits; `undefined` for None and NaN."""
    if value is None or math.isnan(value):
        return "undefined"
    if round(value, digits) == 0:
        value = 0.0
    return f"{value:{'+' if signed and value else ''}.{digits}f}".replace("-", "−")


def chance_share(value: float) -> str:
    """What chance reaches, with a digit more where three would show nothing."""
    return decimal(value, 4 if value < 0.01 else 3)


def interval(low: float | None, high: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """`0.610 to 0.676`; empty when either end is unknown."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f"{decimal(low, digits, signed=signed)} to {decimal(high, digits, signed=signed)}"


def p_value(p: float | None) -> str:
    """`p = 0.011` or `p = 6.6 × 10⁻⁴`, always two significant digits."""
    if p is None or math.isnan(p):
        return "p undefined"
    if p == 0:
        return "p < 10⁻³⁰⁰"
    if p >= 0.995:
        return "p = 1.0"
    mantissa, exponent = f"{p:.1e}".split("e")
    if int(exponent) >= -3:
        return f"p = {p:.{1 - int(exponent)}f}"
    return f"p = {mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def count(number: int, thing: str, things: str | None = None) -> str:
    """`1 patient`, `2 patients`, `1,204 patients`."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def sentence(text: str) -> str:
    """A full stop at the end, and differences written like every other number of a page: `+.019` as `+0.019`."""
    return re.sub(r"(?<![\w.])([+-])(?=\.?\d)(\.?)", _sign, text) + ("" if text.endswith(".") else ".")


def _sign(found: re.Match[str]) -> str:
    return found[1].replace("-", "−") + ("0." if found[2] else "")
