"""Melodies as JSON, the layout of the data set's Essen files: read and written, one file or many songs."""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import DataError
from data.music.key import Key
from data.music.melody import LONGEST, TICKS, Melody, bars_of, parse_metre

ABOUT = ("title", "origin", "genre", "split", "code", "tempo", "octave_wrap")
FINEST = 1_000_000
"""Ticks a quarter at most."""
_NUMBERS = ("onset", "dur", "pitch")


def read_json(path: Path) -> Any:
    """What a JSON file holds, packed by xz or not.

    Raises:
        DataError: it is neither
    """
    try:
        packed = path.read_bytes()
        if packed[:6] == b"\xfd7zXZ\0":
            packed = lzma.decompress(packed)
        return json.loads(packed)
    except (OSError, lzma.LZMAError, ValueError, RecursionError) as problem:
        raise DataError(f"{path}: not readable as JSON ({problem}); replace it") from None


def read_songs(path: Path) -> list[Melody]:
    """The songs of a JSON file: `{"ticks_per_quarter": 24, "songs": [...]}`, or one song alone.

    A song holds `id`, `onset`, `dur`, `pitch`, and where known `bars` (written barlines), `metre`, `key`, `phrase` and
    texts (title, origin, genre, split). Times in other ticks are brought to 24 a quarter where they fit exactly.

    Raises:
        DataError: names the file, the song and what is wrong
    """
    content = read_json(path)
    if not isinstance(content, Mapping):
        raise DataError(f"{path}: expected an object with songs, not {type(content).__name__}; see docs/melody-data.md")
    songs = content.get("songs", [content])
    ticks = content.get("ticks_per_quarter", TICKS)
    if not isinstance(songs, Sequence) or not isinstance(ticks, int) or not 1 <= ticks <= FINEST:
        raise DataError(
            f"{path}: songs must be a list and ticks_per_quarter a whole number to {FINEST:,}; see docs/melody-data.md"
        )
    return [song_of(song, ticks, f"{path}: song {row}") for row, song in enumerate(songs)]


def song_of(song: object, ticks: int, where: str) -> Melody:
    """One song of a JSON file.

    Args:
        song: what the file says
        ticks: a quarter has in the file
        where: for errors
    """
    if not isinstance(song, Mapping):
        raise DataError(f"{where} is no object; see docs/melody-data.md")
    name = str(song.get("id", song.get("name", "melody")))
    try:
        columns = {column: _whole(song[column]) for column in _NUMBERS}
        lines = _whole(song.get("bars", []))
        phrase = None if song.get("phrase") is None else _whole(song["phrase"])
    except KeyError as missing:
        raise DataError(f"{where} ({name}) has no {missing}; see docs/melody-data.md") from None
    except (ValueError, TypeError, OverflowError):
        raise DataError(f"{where} ({name}): onset, dur, pitch, bars and phrase must be whole numbers") from None
    onset = columns["onset"]
    if not len(onset):
        raise DataError(f"{where} ({name}) has no note; leave it out")
    try:
        onset, duration, lines = (_in_ticks(times, ticks) for times in (onset, columns["dur"], lines))
        metre, key = parse_metre(str(song.get("metre") or "none")), song.get("key")
        return Melody(
            name,
            onset,
            duration,
            columns["pitch"],
            bars_of(int(onset[0]), int(onset[-1]) + int(duration[-1:].sum()), lines, metre),
            metre,
            Key.parse(str(key)) if key else None,
            phrase,
            {part: str(song[part]) for part in ABOUT if song.get(part)},
        )
    except DataError as fault:
        raise DataError(f"{where}: {fault}") from None


def write_songs(path: Path, songs: Sequence[Melody]) -> None:
    """Write songs as `read_songs` reads them."""
    content = {"ticks_per_quarter": TICKS, "songs": [as_json(song) for song in songs]}
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def as_json(song: Melody) -> dict[str, Any]:
    """A song as an object of numbers and texts."""
    return {
        "id": song.name,
        **dict(song.about),
        "metre": "none" if song.metre is None else f"{song.metre[0]}/{song.metre[1]}",
        "key": None if song.key is None else str(song.key),
        "onset": song.onset.tolist(),
        "dur": song.duration.tolist(),
        "pitch": song.pitch.tolist(),
        "phrase": None if song.phrase is None else song.phrase.tolist(),
        "bars": song.bars.tolist(),
    }


def _whole(values: object) -> np.ndarray:
    found = np.asarray(values)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise ValueError(values)
    return found.astype(np.int64)


def _in_ticks(times: np.ndarray, ticks: int) -> np.ndarray:
    if (np.abs(times) > LONGEST * ticks).any():
        raise DataError(f"a time lies over {LONGEST} quarters away; correct it")
    scaled = times * TICKS
    if (scaled % ticks).any():
        raise DataError(f"times in {ticks} a quarter do not fit {TICKS} a quarter; quantise them")
    return scaled // ticks
