"""`melody plot`: the figures of a run as files, or the piano roll of a melody file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from data.music.files import read_file
from data.music.key import Key
from data.music.skeleton import skeleton
from tasks.melody.frame import phrased
from tasks.melody.inputs import marks_of
from tasks.melody.piano_roll import write_roll
from tasks.melody.report import all_figures
from tasks.melody.results import read
from tasks.melody.shown import shown_figures


def plot_run(run: Path) -> list[Path]:
    """Write every figure of a run's report, sounds left out, into `figures` of its folder.

    Raises:
        RunError: there is no run at this path
    """
    results = read(run)
    return [figure.save(run / "figures") for figure in (*all_figures(results), *shown_figures(results))]


def plot_file(
    path: Path, output: Path | None = None, key: str | None = None, rho: float = 0.3, track: str | None = None
) -> Path:
    """Draw a melody with its phrases and its skeleton: those the file marks, else those the rules find.

    Args:
        path: MIDI, ABC, **kern or JSON; of a file with several songs the first is drawn
        output: PNG or SVG; default: beside the working folder's name of the melody, as PNG
        key: instead of the file's
        rho: share of a phrase's notes that are its skeleton
        track: of a MIDI file

    Raises:
        DataError: the file's own fault
    """
    song = read_file(path, track)[0]
    song = phrased(song if key is None else replace(song, key=Key.parse(key)))
    marks = marks_of(path)
    drawn = Path(f"{path.stem}.png") if output is None else output
    write_roll(drawn, song, skeleton(song, rho) if marks is None else np.resize(marks, len(song)))
    return drawn
