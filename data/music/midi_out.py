"""A melody -> a MIDI file: tracks "melody" and "skeleton", metre, key and a marker per phrase, exact in ticks."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import mido
import numpy as np
from jaxtyping import Bool, Int

from data.errors import DataError
from data.music.key import Key
from data.music.melody import TICKS, Melody, Metre, bar_ticks

PER_QUARTER = 480
"""Ticks a quarter has in the file: what most programs expect."""
Event = tuple[int, mido.Message | mido.MetaMessage]
"""Tick of the melody and what happens."""
TEMPO = 100.0
"""Quarters a minute where a melody names no tempo."""
_SCALE = PER_QUARTER // TICKS
_MAJOR = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_MINOR = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B")


def tempo_of(melody: Melody) -> float:
    """Quarters per minute: its own, else `TEMPO`."""
    try:
        tempo = float(melody.about.get("tempo", TEMPO))
    except ValueError:
        tempo = TEMPO
    return tempo if 4 <= tempo <= 1000 else TEMPO


def write_midi(
    path: Path, melody: Melody, skeleton: Bool[np.ndarray, " n"] | Melody | None = None, tempo: float | None = None
) -> None:
    """Write a type 1 file at 480 ticks a quarter.

    The bar in which the first note lies begins at tick 0, so that a pickup keeps its place in the bar. Bars of another
    length get a time signature of their own; a pentatonic mode gets the key signature of its gong.

    Args:
        path: of the file
        melody: what is written
        skeleton: which of its notes, or notes of their own; None = no second track
        tempo: quarters per minute; None = `tempo_of(melody)`

    Raises:
        DataError: the folder is not there or not writable
    """
    _save(midi_file(melody, skeleton, tempo), path)


def midi_file(
    melody: Melody, skeleton: Bool[np.ndarray, " n"] | Melody | None = None, tempo: float | None = None
) -> mido.MidiFile:
    """The file as an object; see `write_midi`."""
    shift = -int(melody.bars[melody.bar_of[0]])
    file = mido.MidiFile(type=1, ticks_per_beat=PER_QUARTER)
    file.tracks.append(_conductor(melody, shift, tempo or tempo_of(melody)))
    file.tracks.append(_notes("melody", 0, melody.onset + shift, melody.duration, melody.pitch))
    if isinstance(skeleton, Melody):
        file.tracks.append(_notes("skeleton", 1, skeleton.onset + shift, skeleton.duration, skeleton.pitch))
    elif skeleton is not None:
        chosen = (melody.onset[skeleton] + shift, melody.duration[skeleton], melody.pitch[skeleton])
        file.tracks.append(_notes("skeleton", 1, *chosen))
    return file


def write_voices(path: Path, voices: Sequence[Melody], tempo: float | None = None) -> None:
    """Write a type 1 file with one track per voice, named as the voice, at 480 ticks a quarter.

    Args:
        path: of the file
        voices: at least one; bars, metre and key are those of the first, and bars begin at tick 0 or later
        tempo: quarters per minute; None = that of the first

    Raises:
        DataError: the folder is not there or not writable
    """
    file = mido.MidiFile(type=1, ticks_per_beat=PER_QUARTER)
    file.tracks.append(_conductor(voices[0], 0, tempo or tempo_of(voices[0])))
    for channel, voice in enumerate(voices):
        file.tracks.append(_notes(voice.name, channel, voice.onset, voice.duration, voice.pitch))
    _save(file, path)


def _save(file: mido.MidiFile, path: Path) -> None:
    try:
        file.save(str(path))
    except OSError as problem:
        raise DataError(f"{path}: {problem.strerror or problem}; name another place") from None


def _conductor(melody: Melody, shift: int, tempo: float) -> mido.MidiTrack:
    events: list[Event] = [
        (0, mido.MetaMessage("track_name", name=_latin(melody.about.get("title", melody.name)))),
        (0, mido.MetaMessage("set_tempo", tempo=round(60e6 / tempo))),
    ]
    for tick, (upper, lower) in signatures(melody):
        events.append((tick + shift, mido.MetaMessage("time_signature", numerator=upper, denominator=lower)))
    if melody.key is not None:
        events.append((0, mido.MetaMessage("key_signature", key=_signature(melody.key))))
    if melody.phrase is not None:
        for first in np.r_[0, np.flatnonzero(melody.interiors) + 1]:
            marker = mido.MetaMessage("marker", text=f"phrase {int(melody.phrase[first]) + 1}")
            events.append((int(melody.onset[first]) + shift, marker))
    events.sort(key=lambda event: event[0])
    return _track(events)


def signatures(melody: Melody) -> list[tuple[int, Metre]]:
    """(tick, metre) wherever the length of the bars changes, from the bar of the first note on.

    The melody's metre is kept where its bars have that length; other bars are counted in the largest unit from a
    quarter to a 32nd that fits. The last bar has no known length and keeps what is before it.
    """
    bars = melody.bars[melody.bar_of[0] :]
    found: list[tuple[int, Metre]] = []
    now: Metre | None = melody.metre
    if now is not None:
        found.append((int(bars[0]), now))
    for begin, length in zip(bars[:-1].tolist(), np.diff(bars).tolist(), strict=True):
        if now is not None and bar_ticks(now) == length:
            continue
        fitting = melody.metre if melody.metre is not None and bar_ticks(melody.metre) == length else _metre(length)
        if fitting is not None and fitting != now:
            now = fitting
            found = [*(mark for mark in found if mark[0] != begin), (begin, fitting)]
    return found


def _metre(length: int) -> Metre | None:
    for lower in (4, 8, 16, 32):
        beats = Fraction(length * lower, 4 * TICKS)
        if beats.denominator == 1 and beats <= 255:
            return int(beats), lower
    return None


def _notes(
    name: str,
    channel: int,
    onset: Int[np.ndarray, " n"],
    duration: Int[np.ndarray, " n"],
    pitch: Int[np.ndarray, " n"],
) -> mido.MidiTrack:
    velocity = 64 if channel else 90
    events: list[Event] = [(0, mido.MetaMessage("track_name", name=name))]
    events.append((0, mido.Message("program_change", channel=channel, program=0)))
    for start, long, note in zip(onset.tolist(), duration.tolist(), pitch.tolist(), strict=True):
        events.append((start, mido.Message("note_on", channel=channel, note=note, velocity=velocity)))
        events.append((start + long, mido.Message("note_off", channel=channel, note=note, velocity=0)))
    return _track(events)


def _track(events: list[Event]) -> mido.MidiTrack:
    track, now = mido.MidiTrack(), 0
    for tick, event in events:
        track.append(event.copy(time=_SCALE * (tick - now)))
        now = tick
    track.append(mido.MetaMessage("end_of_track"))
    return track


def _signature(key: Key) -> str:
    return _MINOR[key.tonic] + "m" if key.mode == "min" else _MAJOR[key.gong]


def _latin(text: str) -> str:
    """UTF-8 bytes as the Latin-1 text that mido writes byte by byte."""
    return text.encode("utf-8").decode("latin-1")
