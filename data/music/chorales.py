"""Bach chorales on a grid of 16ths: four voices a step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int8

from data.errors import DataError
from data.music.book import PARTS, Part
from data.music.melody import TICKS, Melody
from data.music.song_files import read_json
from data.sources import resolve

SILENT, SIXTEENTH = -1, TICKS // 4
VOICES = ("soprano", "alto", "tenor", "bass")
Chorale = Int8[np.ndarray, "_ 4"]


class Chorales:
    """The chorales in the split of Boulanger-Lewandowski et al. (2012): 229, 76 and 77 pieces.

    A held note and a repeated one are not told apart, and fermatas are absent: the files do not say.

    Args:
        file: JSON (.xz or not) of part -> pieces -> steps of [soprano, alto, tenor, bass], MIDI numbers, -1 = silent
    """

    def __init__(self, file: str = "music/jsb16_separated.json.xz"):
        self.file = file

    def load(self) -> dict[Part, list[Chorale]]:
        """Pieces of each part, `[steps, 4]`.

        Raises:
            DataError: the file is not here or not of this layout
        """
        path = resolve(self.file)
        content = read_json(path)
        if not isinstance(content, Mapping) or not all(isinstance(content.get(part), list) for part in PARTS):
            raise DataError(f"{path}: expected the parts {', '.join(PARTS)}; take jsb16_separated.json.xz")
        return {part: [_chorale(path, part, row, piece) for row, piece in enumerate(content[part])] for part in PARTS}


def _chorale(path: Path, part: str, row: int, piece: object) -> Chorale:
    try:
        voices = np.array(piece)
    except ValueError:
        voices = np.empty(0)
    wrong = voices.ndim != 2 or voices.shape[1] != len(VOICES) or voices.dtype.kind != "i"
    if wrong or (voices < SILENT).any() or (voices > 127).any():
        raise DataError(f"{path}: piece {row} of {part} is not steps of four MIDI numbers; take the separated voices")
    return voices.astype(np.int8)


def voices_of(chorale: Chorale) -> list[Melody]:
    """The voices that sound, as melodies in 4/4 named as in `VOICES`; equal neighbours become one held note."""
    steps = len(chorale)
    bars = np.arange(0, steps, 16) * SIXTEENTH
    found = []
    for name, voice in zip(VOICES, chorale.T, strict=True):
        starts = np.r_[0, np.flatnonzero(np.diff(voice)) + 1]
        lengths, pitch = np.diff(np.r_[starts, steps]), voice[starts]
        sounds = pitch != SILENT
        if sounds.any():
            notes = (starts[sounds] * SIXTEENTH, lengths[sounds] * SIXTEENTH, pitch[sounds])
            found.append(Melody(name, *notes, bars, (4, 4)))
    return found
