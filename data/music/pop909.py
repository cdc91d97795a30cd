"""POP909: melodies of 909 pop songs on a grid of 16ths, with human phrase labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from data.errors import DataError
from data.music.book import SongBook, SongSource, split_by_opening
from data.music.breaks import without_long_breaks
from data.music.key import Key
from data.music.melody import LONGEST, TICKS, Melody
from data.music.song_files import read_json
from data.sources import resolve

SIXTEENTH, BAR = TICKS // 4, 4 * TICKS
_LABEL = re.compile(r"([A-Za-z])(\d+)")


class Pop909Songs(SongSource):
    """The melody line of each song; bars are those of the corrected melody files, not of the raw MIDI.

    The split is ours, by the songs' openings (`split_by_opening`): none is published. A song that modulates has its
    first key, and all of them in `about["keys"]`.

    Args:
        labels: which of the two human labellings gives the phrases
        file: JSON (.xz or not) of songs as id, key, tempo, melody, phrases1, phrases2
        breaks: barlines between two notes at most; introductions and interludes that are longer lose groups of four
            bars (`without_long_breaks`); null = all stay as they are
    """

    def __init__(self, labels: Literal[1, 2] = 1, file: str = "music/pop909_melody.json.xz", breaks: int | None = 8):
        if labels not in (1, 2):
            raise ValueError(f"labels={labels}: expected 1 or 2")
        self.labels, self.file, self.breaks = labels, file, breaks

    def load(self) -> SongBook:
        path = resolve(self.file)
        rows = read_json(path)
        if not isinstance(rows, list):
            raise DataError(f"{path}: expected a list of songs; take pop909_melody.json.xz")
        songs = [self._song(path, number, row) for number, row in enumerate(rows)]
        account = [f"{len(songs)} songs, phrases by labelling {self.labels}, split by their openings"]
        if moving := sum("keys" in song.about for song in songs):
            account.append(f"{moving} songs modulate; their first key is taken")
        split = split_by_opening(songs)
        if self.breaks is not None:
            cut = [without_long_breaks(song, self.breaks) for song in songs]
            shorter = sum(len(own.bars) < len(song.bars) for own, song in zip(cut, songs, strict=True))
            account.append(
                f"{shorter} songs are silent for over {self.breaks} bars, which lose groups of four bars there"
            )
            songs = cut
        return SongBook("pop909", songs, split, account)

    def _song(self, path: Path, number: int, row: object) -> Melody:
        try:
            return song_of_row(row, f"phrases{self.labels}")  # type: ignore[arg-type]
        except DataError as problem:
            raise DataError(f"{path}: song {number}: {problem}") from None
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as problem:
            raise DataError(f"{path}: song {number} lacks or garbles {problem}; take pop909_melody.json.xz") from None


def song_of_row(row: Mapping[str, Any], labels: str = "phrases1") -> Melody:
    """One song of the file.

    Args:
        row: id, key, tempo, melody as [MIDI number or 0, sixteenths], phrase labels
        labels: which phrase labels
    """
    line = np.array(row["melody"], np.int64)
    longest = LONGEST // SIXTEENTH
    if line.ndim != 2 or line.shape[1] != 2 or (line < 0).any() or (line > longest).any() or line.sum() > longest:
        raise DataError(f"its melody is not pairs of MIDI number and sixteenths, up to {longest:,} in all; correct it")
    start = np.cumsum(line[:, 1]) - line[:, 1]
    sung = line[:, 0] > 0
    onset, duration = SIXTEENTH * start[sung], SIXTEENTH * line[sung, 1]
    if not len(onset):
        raise DataError("no note in it; leave it out")
    keys = [Key.parse(key) for key in row["key"].split("\n")]
    about = {"tempo": f"{float(row['tempo']):g}"}
    if len(keys) > 1:
        about["keys"] = ", ".join(map(str, keys))
    return Melody(
        str(row["id"]),
        onset,
        duration,
        line[sung, 0],
        np.arange(0, int(onset[-1] + duration[-1]), BAR),
        (4, 4),
        keys[0],
        phrases_of(row[labels], onset, duration),
        about,
    )


def phrases_of(labels: str, onset: Int[np.ndarray, " n"], duration: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The phrase of each note.

    A label gives the bars of a phrase, but its first notes are often a pickup before them. The boundary is put at the
    longest rest of at least an eighth in the bar before the labelled one, if nothing at least as long lies after it
    within a quarter; without such a rest at the bar line itself. This rule is ours.

    Args:
        labels: `i4A4B8`: letter and number of 4/4 bars
        onset: in ticks
        duration: in ticks
    """
    found = _LABEL.findall(labels)
    if "".join(letter + bars for letter, bars in found) != labels or not found:
        raise DataError(f"phrase labels {labels!r} are not letters with numbers of bars; correct them")
    begins = BAR * np.cumsum([0, *(int(bars) for _, bars in found)])[1:-1]
    rest = np.r_[onset[0], onset[1:] - onset[:-1] - duration[:-1]]
    starts = np.zeros(len(onset), bool)
    for begin in begins:
        here = int(np.searchsorted(onset, begin))
        near = np.flatnonzero((onset > begin - BAR) & (onset <= begin + TICKS) & (rest >= 2 * SIXTEENTH))
        if len(near):
            here = int(near[rest[near].argmax()])
        if 0 < here < len(onset):
            starts[here] = True
    return np.cumsum(starts)
