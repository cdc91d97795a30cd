"""docs/melody-data.md: its config loads, its classes are there, its JSON is read and its code runs."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser

from data.music import songs
from data.music.book import SongSource
from data.music.files import read_file
from data.music.midi_out import write_midi
from tests.data.music_files import melody

DOC = Path(__file__).resolve().parents[2] / "docs" / "melody-data.md"


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_documented_config_loads_songs():
    parser = ArgumentParser()
    parser.add_subclass_arguments(SongSource, "songs")
    source = parser.instantiate(parser.parse_object(yaml.safe_load(block("yaml")))).songs
    assert isinstance(source, songs.GeneratedSongs)
    assert len(source.load().songs) == 40


def test_every_class_of_the_page_exists():
    named = re.findall(r"^\| `([A-Z]\w+)` \|", DOC.read_text(), re.MULTILINE)
    assert len(named) == 5
    assert all(hasattr(songs, name) for name in named)


def test_the_documented_json_is_read(tmp_path: Path):
    path = tmp_path / "song.json"
    path.write_text(block("json"))
    song = read_file(path)[0]
    assert (str(song.key), song.metre, song.pitch.tolist()) == ("D:zhi", (2, 4), [62, 67])


def test_the_documented_code_runs(tmp_path: Path):
    write_midi(tmp_path / "song.mid", melody())
    exec(block("python"), {"path": tmp_path / "song.mid", "out": tmp_path / "out.mid"})
    assert read_file(tmp_path / "out.mid")[0].phrase is not None
