"""What a user gives: notes of a track called skeleton, marks in a JSON file, or a melody to take a skeleton from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.music.files import read_file
from data.music.key import Key
from data.music.melody import Melody, bar_ticks, parse_metre
from data.music.midi_in import read_midi
from data.music.segmentation.programme import TUNED, programme, with_phrases
from data.music.skeleton import skeleton
from data.music.song_files import read_json
from tasks.melody.frame import Frame, frame_of, phrased

SKELETON = "skeleton"


def given(
    path: Path, key: str | None = None, metre: str | None = None, rho: float = 0.3, track: str | None = None
) -> tuple[Melody, Frame]:
    """What a file says, and the frame that is generated into.

    Args:
        path: MIDI, ABC, **kern or JSON; of a file with several songs the first is taken
        key: instead of the file's; the notes stay where they are
        metre: instead of the file's; bars are laid from the file's first bar on
        rho: share of a phrase's notes to keep, where the file marks no skeleton
        track: of a MIDI file; default: `skeleton` if there is one

    Raises:
        DataError: names the file and what is missing
    """
    midi = path.suffix.lower() in (".mid", ".midi")
    if midi and track is None and any(own.name.lower() == SKELETON for own in read_midi(path).tracks):
        track = SKELETON
    song = read_file(path, track)[0]
    if metre is not None:
        song = relaid(song, metre)
    if key is not None:
        song = replace(song, key=Key.parse(key))
    if song.key is None:
        raise DataError(f"{path}: its key is unknown; give one, such as --key D:zhi")
    if midi and track is not None and track.lower() == SKELETON:
        return song, frame_of(_sparse(song, rho), np.ones(len(song), bool))
    song = phrased(song)
    marks = marks_of(path)
    if marks is not None and len(marks) != len(song):
        raise DataError(f"{path}: skeleton has {len(marks)} marks for {len(song)} notes; give one per note")
    return song, frame_of(song, skeleton(song, rho) if marks is None else marks)


def relaid(song: Melody, metre: str) -> Melody:
    """The same notes in bars of another metre, from the first bar on.

    Raises:
        DataError: it is no metre
    """
    parsed = parse_metre(metre)
    if parsed is None:
        raise DataError(f"metre {metre!r}: give two numbers such as 2/4")
    bars = np.arange(song.bars[0], max(song.end, int(song.bars[0]) + 1), bar_ticks(parsed))
    return replace(song, bars=bars, metre=parsed)


def _sparse(song: Melody, rho: float) -> Melody:
    """A skeleton with phrases: its markers, else the programme, told that a phrase has fewer notes here."""
    if song.phrase is not None:
        return song
    weights = replace(TUNED["han"], usual=max(1.0, rho * TUNED["han"].usual))
    return with_phrases(song, programme(song, weights))


def marks_of(path: Path) -> np.ndarray | None:
    """Which notes of the first song of a JSON file are marked as its skeleton; None = it marks none."""
    if path.suffix.lower() not in (".json", ".xz"):
        return None
    content = read_json(path)
    songs = content.get("songs", [content])
    marks = songs[0].get(SKELETON)
    return None if marks is None else np.array(marks, bool)
