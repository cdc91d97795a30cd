"""MIDI files -> tracks of notes in ticks, by symusic where it is installed, else by pretty_midi: the same notes."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mido
import numpy as np

from data.errors import DataError
from data.music.key import Key
from data.music.voices import Spans, struck

LONGEST = 5_000_000
"""Ticks a file may last: over an hour at 480 a quarter; pretty_midi holds an array of them."""


@dataclass(frozen=True)
class Track:
    """One instrument of a file.

    Attributes:
        name: empty where none is given
        program: MIDI instrument, 0 to 127
        drum: percussion, whose pitches are no pitches
        spans: start, end and pitch of each note, in ticks of the file, ordered by start, then pitch; see `struck`
    """

    name: str
    program: int
    drum: bool
    spans: Spans


@dataclass(frozen=True)
class Midi:
    """What a file says about its notes.

    Attributes:
        ticks: of the file, per quarter
        tracks: those with notes, in the file's order
        tempo: quarters per minute at the beginning; 120 where the file says nothing
        metres: (tick, upper, lower) in order
        keys: (tick, key) in order
        markers: (tick, text) in order
    """

    ticks: int
    tracks: list[Track]
    tempo: float
    metres: list[tuple[int, int, int]]
    keys: list[tuple[int, Key]]
    markers: list[tuple[int, str]]


Reader = Literal["symusic", "pretty_midi"]


def default_reader() -> Reader:
    """symusic where it is installed (extra `midi`), else pretty_midi."""
    return "symusic" if importlib.util.find_spec("symusic") else "pretty_midi"


def read_midi(path: Path, reader: Reader | None = None) -> Midi:
    """Read a file.

    Args:
        path: of the file
        reader: None = `default_reader()`

    Raises:
        DataError: no such file, or it is no MIDI file, or lasts more than `LONGEST` ticks
    """
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise DataError(f"{path}: {problem.strerror or problem}; correct the path") from None
    return parse_midi(content, str(path), reader)


def parse_midi(content: bytes, where: str, reader: Reader | None = None) -> Midi:
    """The same, of a file's bytes; `where` names it in errors."""
    parse: Callable[[bytes], Midi] = {"symusic": _by_symusic, "pretty_midi": _by_pretty_midi}[
        reader or default_reader()
    ]
    try:
        return parse(content)
    except DataError as fault:
        raise DataError(f"{where}: {fault}") from None
    except Exception as problem:
        # mido raises OSError, EOFError, KeyError and others on what is no MIDI file, symusic RuntimeError.
        said = re.sub(r"\s+", " ", str(problem))[:120] or type(problem).__name__
        raise DataError(f"{where}: not readable as MIDI ({said}); replace it") from None


def _by_symusic(content: bytes) -> Midi:
    import symusic

    score: Any = symusic.Score.from_midi(content)
    _check(int(score.end()), score.ticks_per_quarter)
    tracks = []
    for track in score.tracks:
        notes = track.notes.numpy()
        start = notes["time"].astype(np.int64)
        spans = np.column_stack([start, start + notes["duration"], notes["pitch"].astype(np.int64)])
        tracks.append(_track(track.name, track.program, track.is_drum, spans))
    return _midi(
        score.ticks_per_quarter,
        tracks,
        [(mark.time, mark.mspq) for mark in score.tempos],
        [(mark.time, mark.numerator, mark.denominator) for mark in score.time_signatures],
        [(mark.time, _key(mark.key, mark.tonality == 1)) for mark in score.key_signatures],
        [(mark.time, mark.text) for mark in score.markers],
    )


def _by_pretty_midi(content: bytes) -> Midi:
    import pretty_midi

    file = mido.MidiFile(file=io.BytesIO(content))
    if not file.tracks:
        raise DataError("no track in it; leave it out")
    _check(max(sum(event.time for event in track) for track in file.tracks), file.ticks_per_beat)
    with warnings.catch_warnings():
        # Tempo or key marks on another track than the first are against the standard, and common.
        warnings.simplefilter("ignore", RuntimeWarning)
        midi = pretty_midi.PrettyMIDI(mido_object=file)
    changes, tempi = midi.get_tempo_changes()
    per_second = tempi * midi.resolution / 60
    begins = np.r_[0, np.cumsum(np.rint(np.diff(changes) * per_second[:-1]))]
    tracks = []
    for own in midi.instruments:
        seconds = np.array([(note.start, note.end) for note in own.notes]).reshape(-1, 2)
        part = np.searchsorted(changes, seconds + 1e-9, side="right") - 1
        ticks = np.rint(begins[part] + (seconds - changes[part]) * per_second[part]).astype(np.int64)
        pitches = np.array([note.pitch for note in own.notes], np.int64)
        tracks.append(_track(own.name, int(own.program), own.is_drum, np.column_stack([ticks, pitches])))
    # pretty_midi has made the times of the events absolute.
    meta: dict[str, list[Any]] = {}
    for event in sorted((event for track in file.tracks for event in track if event.is_meta), key=lambda e: e.time):
        meta.setdefault(event.type, []).append(event)
    return _midi(
        midi.resolution,
        tracks,
        [(event.time, event.tempo) for event in meta.get("set_tempo", ())],
        [(event.time, event.numerator, event.denominator) for event in meta.get("time_signature", ())],
        [(event.time, Key.parse(event.key)) for event in meta.get("key_signature", ())],
        [(event.time, event.text) for event in meta.get("marker", ())],
    )


def _check(end: int, ticks: int) -> None:
    if ticks <= 0:
        raise DataError("its times are frames, not quarters (SMPTE); convert it")
    if end > LONGEST:
        raise DataError(f"it lasts {end} ticks, over {LONGEST}; it is damaged, or cut it")


def _track(name: str, program: int, drum: bool, spans: Spans) -> Track:
    return Track(_text(name), program, drum, struck(spans))


def _midi(
    ticks: int,
    tracks: Sequence[Track],
    tempi: Sequence[tuple[int, int]],
    metres: list[tuple[int, int, int]],
    keys: Sequence[tuple[int, Key]],
    markers: Sequence[tuple[int, str]],
) -> Midi:
    return Midi(
        ticks,
        [track for track in tracks if len(track.spans)],
        60e6 / max(tempi[0][1], 1) if tempi else 120.0,
        metres,
        list(keys),
        [(tick, _text(text)) for tick, text in markers],
    )


def _key(sharps: int, minor: bool) -> Key:
    gong = 7 * sharps % 12
    return Key((gong + 9) % 12, "min") if minor else Key(gong)


def _text(text: str) -> str:
    """UTF-8 where it is, else Latin-1, on one line."""
    with contextlib.suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    return re.sub(r"\s+", " ", text).strip("\0 ")
