"""Tunes in ABC notation -> one voice, with bars and phrases: what the Essen collection and tune books use of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from data.errors import DataError
from data.music.abc_key import key_of, signature_of
from data.music.melody import TICKS, Melody, Metre, Notes, bar_ticks, parse_metre
from data.music.notation import Written, in_ticks, phrases_of_labels

STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SIGN = re.compile(
    r"""(?P<skip>\s+|"[^"]*"|![^!\s]+!|\{[^}]*\}|[~.HLMOPRSTuvy`)\\]|\((?!\d))
    |(?P<field>\[(?P<letter>[A-Za-z]):(?P<value>[^\]]*)\])
    |(?P<bar>\[\||:*\|[|:\]]*(?:\[?\d)?|::|\[\d)
    |(?P<tuplet>\((?P<p>\d)(?::(?P<q>\d?)(?::(?P<r>\d?))?)?)
    |(?P<tie>-)
    |(?P<broken>>+|<+)
    |(?P<note>(?P<sharp>\^{1,2}|_{1,2}|=)?(?P<name>[A-Ga-gzxZ])(?P<octave>[',]*)(?P<times>\d{0,4})(?P<over>/+\d{0,4})?)
    """,
    re.VERBOSE,
)
_FIELD = re.compile(r"^[A-Za-z]:")
_TUPLETS = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}
_REPEAT = re.compile(r":\||\|:|::")


@dataclass(frozen=True)
class Tune:
    """One tune of a file.

    Attributes:
        number: its X field
        fields: letter -> what stands there, several lines joined by a blank
        body: lines of notes, and fields between them
    """

    number: int
    fields: dict[str, str]
    body: list[str]

    def notes(self) -> Notes:
        """The melody in quarters; tied notes are one.

        Raises:
            DataError: an unknown key or sign
        """
        notes = [(pitch, float(at), float(long)) for pitch, at, long, _ in self._read().notes]
        return np.array(notes, np.float32).reshape(-1, 3)

    def melody(self, name: str, phrases: bool = True) -> Melody:
        """The melody in ticks. Repeats are not unfolded: `about` says that a tune has some.

        Args:
            name: of the melody
            phrases: a line of notes is a phrase, as in the Essen collection

        Raises:
            DataError: an unknown key, metre or sign, chords or several voices, or no note
        """
        read = self._read()
        try:
            timed = in_ticks(read.notes, read.bars, read.first_metre)
        except DataError as fault:
            raise DataError(f"tune {self.number}: {fault}") from None
        phrase = phrases_of_labels(read.notes) if phrases else None
        key = key_of(self.fields.get("K", ""))
        return Melody(name, *timed, read.first_metre, key, phrase, self._about())

    def _read(self) -> _Reading:
        try:
            return _Reading(self)
        except DataError as fault:
            raise DataError(f"tune {self.number}: {fault}") from None

    def _about(self) -> dict[str, str]:
        names = {"T": "title", "O": "origin", "R": "genre", "N": "notes"}
        about = {names[letter]: text.rstrip("]").strip() for letter, text in self.fields.items() if letter in names}
        if any(_REPEAT.search(line) for line in self.body):
            about["repeats"] = "as written, not unfolded"
        return {name: text for name, text in about.items() if text}


@dataclass
class _Reading:
    """What a tune's body says; the label of a note is its line."""

    tune: Tune
    notes: list[Written] = field(default_factory=list)
    bars: list[Fraction] = field(default_factory=list)
    now: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        fields = self.tune.fields
        self.metre: Metre | None = parse_metre(fields.get("M", "none"))
        self.first_metre = self.metre
        self.unit = self._unit(fields["L"]) if "L" in fields else self._usual_unit()
        self.signature = signature_of(fields.get("K", "C"))
        self.changed: dict[tuple[str, int], int] = {}
        self.tied = False
        self.stretch: list[Fraction] = []
        self.open_end: Fraction | None = None
        self._voices: set[str] = set()
        for number, line in enumerate(self.tune.body):
            if _FIELD.match(line):
                self._set(line[0], line[2:].strip())
                continue
            for sign in self._signs(line):
                self._read(sign, number, line)
            if not line.rstrip().endswith("\\"):
                self._end_of_line()

    def _signs(self, line: str) -> Iterator[re.Match[str]]:
        line = line.split("%")[0]
        at = 0
        while at < len(line):
            match = _SIGN.match(line, at)
            if match is None:
                what = "is a chord, one voice is read" if line[at] == "[" else "is no note"
                raise DataError(f"{line[at]!r} in '{line.strip()[:60]}' {what}; correct the line")
            at = match.end()
            if match["skip"] is None:
                yield match

    def _read(self, sign: re.Match[str], number: int, line: str) -> None:
        if sign["field"]:
            self._set(sign["letter"], sign["value"].strip())
        elif sign["bar"]:
            self._bar()
            self.changed = {}
        elif sign["tuplet"]:
            p = int(sign["p"])
            compound = self.metre is not None and self.metre[1] == 8 and self.metre[0] % 3 == 0
            q = int(sign["q"] or _TUPLETS.get(p, 3 if compound else 2))
            if 0 in (p, q):
                raise DataError(f"{sign[0]!r} in '{line.strip()[:60]}' is no tuplet; correct the line")
            self.stretch = [Fraction(q, p)] * int(sign["r"] or p)
        elif sign["tie"]:
            self.tied = True
        elif sign["broken"]:
            self._break(sign["broken"])
        else:
            self._note(sign, number)

    def _note(self, sign: re.Match[str], number: int) -> None:
        length = self._length(sign)
        name, tied = sign["name"], self.tied
        self.tied = False
        if name in "zxZ":
            self.now += length
            return
        octave = (1 if name.islower() else 0) + sign["octave"].count("'") - sign["octave"].count(",")
        place = (name.upper(), octave)
        if sign["sharp"]:
            self.changed[place] = sign["sharp"].count("^") - sign["sharp"].count("_")
        pitch = 60 + 12 * octave + STEPS[place[0]] + self.changed.get(place, self.signature.get(place[0], 0))
        if not 0 <= pitch <= 127:
            raise DataError(f"{sign[0]!r} lies beyond MIDI's 0 to 127; correct the line")
        if tied and self.notes and self._ends_here(pitch):
            self.notes[-1] = self.notes[-1]._replace(length=self.notes[-1].length + length)
        elif length:
            self.notes.append(Written(pitch, self.now, length, number))
        self.now += length

    def _ends_here(self, pitch: int) -> bool:
        last = self.notes[-1]
        return last.pitch == pitch and last.start + last.length == self.now

    def _length(self, sign: re.Match[str]) -> Fraction:
        if sign["name"] == "Z":
            bar = Fraction(bar_ticks(self.metre), TICKS) if self.metre else Fraction(4)
            return bar * int(sign["times"] or 1)
        over = sign["over"] or ""
        under = int(over.lstrip("/") or 2 ** len(over)) if over else 1
        if under == 0 or len(over) > 8:
            raise DataError(f"{sign[0]!r} has no length; correct the line")
        stretch = self.stretch.pop() if self.stretch else Fraction(1)
        return self.unit * Fraction(int(sign["times"] or 1), under) * stretch

    def _break(self, broken: str) -> None:
        """`a>b`: the note before is dotted and the next one halved, `a<b` the other way round."""
        if not self.notes or not self._ends_here(self.notes[-1].pitch) or len(broken) > 3:
            raise DataError(f"{broken!r} has no note before it; correct the line")
        length, part = self.notes[-1].length, Fraction(1, 2 ** len(broken))
        longer = length * (2 - part if broken[0] == ">" else part)
        self.notes[-1] = self.notes[-1]._replace(length=longer)
        self.now += longer - length
        self.stretch = [part if broken[0] == ">" else 2 - part]

    def _bar(self) -> None:
        """A written barline; the line end before it gets one too where the bar would otherwise be too long."""
        self._repair(self.now)
        if not self.bars or self.bars[-1] != self.now:
            self.bars.append(self.now)
        self.open_end = None

    def _end_of_line(self) -> None:
        self._repair(self.now)
        self.open_end = self.now

    def _repair(self, until: Fraction) -> None:
        """The Essen files leave out the barline at the end of a line: put it back unless the bar goes on after it."""
        last = self.bars[-1] if self.bars else Fraction(0)
        if self.open_end is None or self.metre is None or not last < self.open_end < until:
            return
        if TICKS * (until - last) > bar_ticks(self.metre):
            self.bars.append(self.open_end)

    def _set(self, letter: str, value: str) -> None:
        if letter == "M":
            self.metre = parse_metre(value)
        elif letter == "L":
            self.unit = self._unit(value)
        elif letter == "K":
            self.signature = signature_of(value)
        elif letter == "V":
            self._voices.add(value.split()[0] if value else "")
            if len(self._voices) > 1:
                raise DataError(f"several voices ({', '.join(sorted(self._voices))}); leave one of them")

    def _unit(self, text: str) -> Fraction:
        over, _, under = text.partition("/")
        if not (re.fullmatch(r"\d{1,3}", over.strip()) and re.fullmatch(r"\d{0,3}", under.strip())) or 0 in (
            int(over),
            int(under or 1),
        ):
            raise DataError(f"L:{text} is no length; write L:1/8")
        return Fraction(4 * int(over), int(under or 1))

    def _usual_unit(self) -> Fraction:
        """The standard's default: an eighth, a 16th where the metre is below 3/4."""
        return Fraction(1, 4) if self.metre and 4 * self.metre[0] < 3 * self.metre[1] else Fraction(1, 2)


def tunes(text: str) -> dict[int, Tune]:
    """The tunes of a file by their number.

    Raises:
        DataError: a tune has no number
    """
    found: dict[int, Tune] = {}
    for part in re.split(r"^X:", text, flags=re.MULTILINE)[1:]:
        first, *lines = part.splitlines() or [""]
        number = re.match(r"\s*(\d{1,9})\s*(?:%|$)", first, re.ASCII)
        if number is None:
            raise DataError(f"X:{first[:20]} is no number of a tune; write X:1")
        fields: dict[str, str] = {}
        body: list[str] = []
        for line in lines:
            if _FIELD.match(line) and not body and "K" not in fields:
                value = line[2:].split("%")[0].strip()
                known = fields.get(line[0])
                fields[line[0]] = value if known is None else f"{known} {value}"
            elif line.strip() and not line.startswith("%"):
                body.append(line.strip())
        found[int(number[1])] = Tune(int(number[1]), fields, body)
    return found
