"""Melodies in Humdrum **kern, as the Essen collection's own edition uses it: one spine, `{` marks a phrase."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from data.errors import DataError
from data.music.abc import STEPS
from data.music.key import Key
from data.music.melody import Melody, parse_metre
from data.music.notation import Written, in_ticks, phrases_of_labels

_NOTE = re.compile(
    r"(?P<upper>\d+)(?:%(?P<lower>\d+))?(?P<dots>\.*)(?:(?P<rest>r)|(?P<name>[A-G]+|[a-g]+)(?P<sign>[#n-]*))"
)
_ABOUT = {"OTL": "title", "ARE": "origin", "AGN": "genre", "SCT": "code"}
_NOISE = re.compile(r"[{}\[\]_;JLkK/\\'`^~:,\"()xXyN$OsStTmMwW&<>@?!|u-z]*")


@dataclass
class _Line:
    """What has been read so far."""

    notes: list[Written] = field(default_factory=list)
    bars: list[Fraction] = field(default_factory=list)
    now: Fraction = Fraction(0)
    phrase: int = -1
    tied: bool = False


def read_kern(path: Path, spine: int | None = None) -> Melody:
    """The melody of a file with one **kern spine, or the one that is named.

    Args:
        path: of the file
        spine: number of the **kern spine from 0 on; None = the only one

    Raises:
        DataError: not readable, no or several **kern spines, a chord, or a token that is no note
    """
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as problem:
        raise DataError(f"{path}: {problem.strerror or problem}; correct the path") from None
    try:
        return parse_kern(text, path.stem, spine)
    except DataError as fault:
        raise DataError(f"{path}: {fault}") from None


def parse_kern(text: str, name: str, spine: int | None = None) -> Melody:
    """The same, of a file's text."""
    about: dict[str, str] = {}
    column: int | None = None
    line = _Line()
    metre, key = None, None
    for number, row in enumerate(text.splitlines(), 1):
        if row.startswith("!!!"):
            code, _, said = row[3:].partition(":")
            if (part := _ABOUT.get(re.split(r"[@\d]", code)[0])) and said.strip():
                about.setdefault(part, said.strip())
            continue
        cells = row.split("\t")
        if "**kern" in cells and column is None:
            column = _column(cells, spine)
            continue
        if not row or row.startswith("!") or column is None:
            continue
        if "*^" in cells or "*v" in cells:
            raise DataError(f"line {number}: a spine splits, one voice is read; keep one of them")
        token = cells[column].strip() if column < len(cells) else ""
        if token.startswith("*"):
            if re.fullmatch(r"\*M\d+/\d+", token) and metre is None:
                metre = parse_metre(token[2:])
            elif named := re.fullmatch(r"\*([A-Ga-g])([#-]?):.*", token):
                sign = named[2].replace("-", "b")
                key = key or Key.parse(f"{named[1].upper()}{sign}:{'min' if named[1].islower() else 'maj'}")
        elif token.startswith("="):
            if token[1:2] != "=" or line.now:
                line.bars.append(line.now)
        elif token not in ("", "."):
            _read(line, token, number)
    if column is None:
        raise DataError("no **kern spine in it; replace it")
    timed = in_ticks(line.notes, line.bars, metre)
    phrase = phrases_of_labels(line.notes) if line.phrase >= 0 else None
    return Melody(name, *timed, metre, key, phrase, about)


def _column(cells: list[str], spine: int | None) -> int:
    spines = [at for at, cell in enumerate(cells) if cell == "**kern"]
    if spine is None and len(spines) > 1:
        raise DataError(f"{len(spines)} **kern spines; choose a track: {', '.join(map(str, range(len(spines))))}")
    if spine is not None and not 0 <= spine < len(spines):
        raise DataError(f"no **kern spine {spine}; it has {len(spines)}, counted from 0")
    return spines[spine or 0]


def _read(line: _Line, token: str, number: int) -> None:
    if " " in token:
        raise DataError(f"line {number}: {token[:40]!r} is a chord, one voice is read; keep one note")
    if "q" in token or "Q" in token:
        return
    found = _NOTE.search(token)
    rest = "" if found is None else token[: found.start()] + token[found.end() :]
    if found is None or _NOISE.fullmatch(rest) is None or max(len(found["upper"]), len(found["dots"])) > 4:
        raise DataError(f"line {number}: {token[:40]!r} is no note; correct it")
    upper, lower = int(found["upper"]), int(found["lower"] or 1)
    if upper == 0 and found["lower"] is None:
        length = Fraction(8) * 2 ** (len(found["upper"]) - 1)  # 0 is a breve, 00 a long
    elif 0 in (upper, lower):
        raise DataError(f"line {number}: {token[:40]!r} has no length; correct it")
    else:
        length = Fraction(4 * lower, upper)
    length *= 2 - Fraction(1, 2 ** len(found["dots"]))
    if "{" in token:
        line.phrase += 1
    if found["name"]:
        letters = found["name"]
        if len(set(letters)) > 1:
            raise DataError(f"line {number}: {token[:40]!r} is no note; correct it")
        octave = len(letters) - 1 if letters[0].islower() else -len(letters)
        pitch = 60 + 12 * octave + STEPS[letters[0].upper()] + found["sign"].count("#") - found["sign"].count("-")
        if not 0 <= pitch <= 127:
            raise DataError(f"line {number}: {token[:40]!r} lies beyond MIDI's 0 to 127; correct it")
        if line.tied and line.notes and line.notes[-1].pitch == pitch:
            line.notes[-1] = line.notes[-1]._replace(length=line.notes[-1].length + length)
        else:
            line.notes.append(Written(pitch, line.now, length, line.phrase))
        line.tied = "[" in token or ("_" in token and "]" not in token)
    line.now += length
