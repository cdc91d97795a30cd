"""Songs to be seen and heard: a held-out song beside what the model made of its skeleton."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.music.melody import Melody
from data.music.song_files import as_json, song_of
from data.music.synthesis import synthesise, wav_bytes
from tasks.experiment.folder import write_whole
from tasks.experiment.report import Figure
from tasks.experiment.state import finished_units
from tasks.melody.judged import SONGS
from tasks.melody.piano_roll import roll_figure
from tasks.melody.results import Results

RATE = 8000
"""Samples a second in a page, which holds every sound in full."""
REAL_SONGS = "judged.json"
"""The held-out songs that are shown, kept in the run folder so that a report needs no data."""


def keep_real(run: Path, songs: list[Melody]) -> None:
    """Write the held-out songs that the report shows."""
    write_whole(run / REAL_SONGS, json.dumps({"ticks_per_quarter": 24, "songs": [as_json(song) for song in songs]}))


def shown_figures(results: Results) -> Iterator[Figure]:
    """The first songs that the first seed of the model under test generated, each after the song it is from."""
    units = [unit for unit in finished_units(results.path, results.own) if (unit / SONGS).is_file()]
    if not units or not (results.path / REAL_SONGS).is_file():
        return
    made = json.loads((units[0] / SONGS).read_text())["songs"]
    real = {one["id"]: one for one in json.loads((results.path / REAL_SONGS).read_text())["songs"]}
    for number, one in enumerate(made):
        if one["id"] not in real:
            continue
        marks = np.array(one["skeleton"], bool)
        generated, song = (song_of(content, 24, str(units[0])) for content in (one, real[one["id"]]))
        due = set(zip(generated.onset[marks].tolist(), generated.pitch[marks].tolist(), strict=True))
        same = np.array([note in due for note in zip(song.onset.tolist(), song.pitch.tolist(), strict=True)])
        for kind, melody, skeleton in (("the song", song, same), ("generated", generated, marks)):
            figure = roll_figure(f"song-{number}-{kind.split()[-1]}", f"{one['id']}: {kind}", melody, skeleton)
            yield replace(figure, sound=wav_bytes(synthesise(melody, rate=RATE), RATE))
