"""The K field of ABC: sharps and flats of a key in any mode, and the key it stands for."""

from __future__ import annotations

import re

from data.errors import DataError
from data.music.key import Key

SHARPS = "FCGDAEB"
# Number of sharps of the major key on a tonic; H, Es and As are German.
_FIFTHS = {"C": 0, "G": 1, "D": 2, "A": 3, "E": 4, "B": 5, "H": 5, "F": -1, "Es": -3, "As": -4}
_MODES = {
    "": 0,
    "maj": 0,
    "ion": 0,
    "m": -3,
    "min": -3,
    "aeo": -3,
    "mix": -1,
    "dor": -2,
    "phr": -4,
    "lyd": 1,
    "loc": -5,
}
_KEY = re.compile(r"(Es|As|[A-H])([#b♯♭]?)\s*([A-Za-z]*)")


def _read(key: str) -> tuple[int, str]:
    """Sharps (negative: flats), and the mode."""
    found = _KEY.match(key.strip())
    mode = "?" if found is None else found[3] if found[3] in ("", "m") else found[3][:3].lower()
    if found is None or (mode not in _MODES and mode not in ("exp", "cle")):
        raise DataError(f"key {key!r} is not known; correct the line")
    mode = mode if mode in _MODES else ""
    fifths = _FIFTHS[found[1]] + {"": 0, "#": 7, "♯": 7, "b": -7, "♭": -7}[found[2]] + _MODES[mode]
    if abs(fifths) > len(SHARPS):
        raise DataError(f"key {key!r} is not known; correct the line")
    return fifths, mode


def signature_of(key: str) -> dict[str, int]:
    """Sharps (1) and flats (-1) by note name.

    Args:
        key: `G`, `Am`, `Bb`, `D dorian`, `Amix`; `none`, `HP` and the empty text have no sharps

    Raises:
        DataError: it is no key
    """
    if key.strip() in ("", "none", "HP"):
        return {}
    fifths, _ = _read(key)
    return dict.fromkeys(SHARPS[:fifths], 1) if fifths >= 0 else dict.fromkeys(SHARPS[fifths:], -1)


def key_of(key: str) -> Key | None:
    """Major and minor as they are, other modes as the major key of the same notes; None for no key."""
    if key.strip() in ("", "none", "HP"):
        return None
    fifths, mode = _read(key)
    gong = 7 * fifths % 12
    return Key((gong + 9) % 12, "min") if _MODES[mode] == -3 else Key(gong)
