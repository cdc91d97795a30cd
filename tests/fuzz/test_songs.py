"""Song files: JSON of our own and of data sets, and kern."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.music.chorales import Chorales
from data.music.essen import EssenSongs
from data.music.kern import read_kern
from data.music.pop909 import Pop909Songs
from data.music.song_files import as_json, read_songs
from data.simulate.melodies import GeneratedSongs
from tests.fuzz.damage import files, json_files
from tests.fuzz.tried import Tried, law

POP = {"id": "001", "key": "Gb:maj\nF:min", "tempo": "90", "phrases1": "i1A2", "phrases2": "A3"}
POP = {**POP, "melody": [[0, 16], [60, 4], [62, 12], [64, 8], [0, 2], [65, 6]]}
STEPS = [[67, 60, 52, 48], [67, 60, 52, 48], [-1, 62, 55, 47]]
SONG = as_json(GeneratedSongs(songs=4).load().songs[0])
KERN = b"**kern\n*M3/4\n*k[b-]\n*g:\n=1-\n{4g\n8.a\n16b-}\n4r\n=2\n2cc;\n4dd\n==\n*-\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("songs")


@law(content=json_files([POP, {**POP, "id": "002"}]))
def test_pop909(content: bytes, place: Path, tried: Tried):
    path = place / "pop.json"
    path.write_bytes(content)
    tried(lambda: Pop909Songs(file=str(path)).load())


@law(content=json_files({"train": [STEPS, STEPS], "valid": [STEPS], "test": [STEPS]}))
def test_chorales(content: bytes, place: Path, tried: Tried):
    path = place / "chorales.json"
    path.write_bytes(content)
    tried(Chorales(str(path)).load)


@pytest.mark.unchecked  # columns of unequal length are refused by the reader, after the shape checker
@law(content=json_files({"ticks_per_quarter": 24, "songs": [SONG]}))
def test_songs(content: bytes, place: Path, tried: Tried):
    path = place / "songs.json"
    path.write_bytes(content)
    tried(read_songs, path)
    tried(lambda: EssenSongs(notes=str(path)).load())


@law(content=files([KERN]))
def test_kern(content: bytes, place: Path, tried: Tried):
    path = place / "song.krn"
    path.write_bytes(content)
    tried(read_kern, path)
