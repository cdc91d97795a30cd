"""Tunes in ABC notation -> notes, as far as the Essen collection uses it: one voice, no chords, no triplets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from data.errors import DataError

Notes = Float32[np.ndarray, "_ 3"]
"""MIDI pitch, start and length in quarters; a rest is a gap."""
STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
SHARPS = "FCGDAEB"
# Number of sharps of the major key on a tonic; negative = flats. H and Es are German.
FIFTHS = {"C": 0, "G": 1, "D": 2, "A": 3, "E": 4, "B": 5, "H": 5, "F#": 6, "F": -1, "Bb": -2, "Eb": -3, "Es": -3}
FIFTHS |= {"Ab": -4, "Db": -5, "Gb": -6}
_NOTE = re.compile(
    r"(?P<sharp>\^+|_+|=)?(?P<name>[A-Ga-gzx-])(?P<octave>[',]*)(?P<times>\d{0,5})(?P<over>/\d{0,5})?(?P<tie>-?)"
)
_NUMBER = re.compile(r"\d{1,9}")
_FRACTION = re.compile(r"(\d{1,5})/(\d{1,5})")
_FIELD = re.compile(r"^[A-Za-z]:")


@dataclass(frozen=True)
class Tune:
    """One tune of a file.

    Attributes:
        number: its X field
        fields: letter -> what stands there, several lines joined by a blank
        body: lines of notes
    """

    number: int
    fields: dict[str, str]
    body: list[str]

    def notes(self) -> Notes:
        """The melody; tied notes are one.

        Raises:
            DataError: an unknown key, sign or length
        """
        unit = 4 * _fraction(self.fields.get("L", "1/8"), self.number)
        signature = _signature(self.fields.get("K", "C"))
        found: list[list[float]] = []
        now, tied = 0.0, False
        # The barline at the end of a line is not written; the files count an accidental on to the next one that is.
        for bar in " ".join(self.body).split("|"):
            changed: dict[tuple[str, int], int] = {}
            for sign in _signs(bar, self.number):
                length = unit * _length(sign, self.number)
                name = sign["name"]
                if name == "-":
                    tied = True
                    continue
                if name in "zx":
                    now, tied = now + length, False
                    continue
                octave = (1 if name.islower() else 0) + sign["octave"].count("'") - sign["octave"].count(",")
                place = (name.upper(), octave)
                if sign["sharp"]:
                    changed[place] = sign["sharp"].count("^") - sign["sharp"].count("_")
                pitch = 60 + 12 * octave + STEPS[place[0]] + changed.get(place, signature.get(place[0], 0))
                if not 0 <= pitch <= 127:
                    raise DataError(f"tune {self.number}: a note of pitch {pitch}; expected 0 to 127, correct the line")
                if tied and found and found[-1][0] == pitch:
                    found[-1][2] += length
                else:
                    found.append([float(pitch), now, length])
                now, tied = now + length, bool(sign["tie"])
        return np.array(found, np.float32).reshape(-1, 3)


def tunes(text: str) -> dict[int, Tune]:
    """The tunes of a file by their number.

    Raises:
        DataError: a tune without a number
    """
    found: dict[int, Tune] = {}
    for part in re.split(r"^X:", text, flags=re.MULTILINE)[1:]:
        first, *lines = part.splitlines() or [""]
        if (number := _NUMBER.fullmatch(first.strip())) is None:
            raise DataError(f"X:{first.strip()[:20]} is no number of a tune; correct the line")
        fields: dict[str, str] = {}
        body: list[str] = []
        for line in lines:
            if _FIELD.match(line):
                known = fields.get(line[0])
                fields[line[0]] = line[2:].strip() if known is None else f"{known} {line[2:].strip()}"
            elif line.strip() and not line.startswith("%"):
                body.append(line.strip())
        found[int(number[0])] = Tune(int(number[0]), fields, body)
    return found


def _signs(bar: str, number: int) -> Iterator[dict[str, str]]:
    at = 0
    while at < len(bar):
        if bar[at].isspace():
            at += 1
            continue
        match = _NOTE.match(bar, at)
        if match is None:
            raise DataError(f"tune {number}: {bar[at]!r} in '{bar.strip()}' is no note; correct the line")
        yield {key: value or "" for key, value in match.groupdict().items()}
        at = match.end()


def _length(sign: dict[str, str], number: int) -> float:
    over = sign["over"]
    return _fraction(f"{sign['times'] or 1}/{over[1:] or 2 if over else 1}", number)


def _fraction(said: str, number: int) -> float:
    match = _FRACTION.fullmatch(said)
    if match is None or not int(match[2]):
        raise DataError(f"tune {number}: {said!r} is no length; expected a fraction such as 1/8")
    return int(match[1]) / int(match[2])


def _signature(key: str) -> dict[str, int]:
    """Sharps (1) and flats (-1) of a key."""
    tonic = (key.split() or ["C"])[0]
    minor = tonic.endswith("m")
    tonic = tonic.removesuffix("m")
    if tonic not in FIFTHS:
        raise DataError(f"key {key!r} is not known; correct the line")
    fifths = FIFTHS[tonic] - (3 if minor else 0)
    return dict.fromkeys(SHARPS[:fifths], 1) if fifths >= 0 else dict.fromkeys(SHARPS[fifths:], -1)
