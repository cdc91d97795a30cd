"""Keys: a tonic and a mode, major, minor or one of the five pentatonic modes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from data.errors import DataError

MODES = {"maj": 0, "min": 9, "gong": 0, "shang": 2, "jue": 4, "zhi": 7, "yu": 9}
"""Mode -> semitones of its tonic above the gong, the first degree of the major scale it shares its notes with."""
PENTATONIC = (0, 2, 4, 7, 9)
DIATONIC = (0, 2, 4, 5, 7, 9, 11)
TONICS = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11, "H": 11, "ES": 3, "AS": 8}
_SIGNS = {"#": 1, "♯": 1, "b": -1, "♭": -1}
_KEY = re.compile(r"(?P<letter>[Ee]s|[Aa]s|[A-Ha-h])(?P<signs>[#♯b♭]*)\s*(?:[: -]\s*)?(?P<mode>[a-zA-Z]*)")
_MODE_NAMES = {"": "maj", "m": "min", "major": "maj", "minor": "min", "dur": "maj", "moll": "min"}


@dataclass(frozen=True)
class Key:
    """A tonic and a mode.

    Attributes:
        tonic: pitch class, 0 = C to 11 = B
        mode: maj, min, or gong, shang, jue, zhi, yu (the pentatonic mode on degree 1, 2, 3, 5, 6)
    """

    tonic: int
    mode: str = "maj"

    def __post_init__(self) -> None:
        if not 0 <= self.tonic < 12 or self.mode not in MODES:
            raise DataError(
                f"key {self.tonic}:{self.mode}: expected a tonic from 0 to 11 and one of {', '.join(MODES)}"
            )

    @classmethod
    def parse(cls, text: str) -> Key:
        """`D:zhi`, `Gb:maj`, `A` (major), `Am`, `F# minor`; H and Es are German for B and Eb.

        Raises:
            DataError: it is none
        """
        found = _KEY.fullmatch(text.strip())
        mode = None if found is None else found["mode"]
        mode = None if mode is None else _MODE_NAMES.get(mode if mode == "m" else mode.lower(), mode.lower())
        if found is None or mode not in MODES:
            raise DataError(
                f"key {text!r} is not known; write a tonic and a mode such as D:zhi, Gb:maj or A:min "
                f"(modes: {', '.join(MODES)})"
            )
        shift = sum(_SIGNS[sign] for sign in found["signs"])
        return cls((_LETTERS[found["letter"].upper()] + shift) % 12, mode)

    def __str__(self) -> str:
        return f"{TONICS[self.tonic]}:{self.mode}"

    @property
    def gong(self) -> int:
        """Pitch class of degree 1 of the major scale with the same notes: G for D:zhi, C for A:min."""
        return (self.tonic - MODES[self.mode]) % 12

    @property
    def pentatonic(self) -> tuple[int, ...]:
        """The five pitch classes without half steps, from the gong up."""
        return tuple((self.gong + step) % 12 for step in PENTATONIC)

    @property
    def scale(self) -> tuple[int, ...]:
        """The seven pitch classes, from the gong up."""
        return tuple((self.gong + step) % 12 for step in DIATONIC)

    def transposed(self, semitones: int) -> Key:
        return Key((self.tonic + semitones) % 12, self.mode)
