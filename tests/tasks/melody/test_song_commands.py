"""`melody segment` and `melody skeleton` on files and folders: rows, written files, refusals and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from data.errors import DataError
from data.music.files import read_file
from data.music.midi_melody import read_melody
from data.music.midi_out import write_midi
from data.music.segmentation.learned import LearnedSegmenter
from data.music.segmentation.programme import programme
from data.music.segmentation.rules import lbdm
from data.music.skeleton import skeleton
from data.music.songs import GeneratedSongs
from tasks.experiment.console import BAD_INPUT, DONE, SOME_FAILED
from tasks.melody.cli import app
from tasks.melody.segment import segmenter_of, train_segmenter
from tests.data.music_files import ABC, melody


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A MIDI file without phrases, an ABC file with two tunes, and a broken file."""
    place = tmp_path / "songs"
    place.mkdir()
    write_midi(place / "one.mid", melody().with_phrases(None))
    (place / "two.abc").write_text(ABC)
    (place / "three.mid").write_bytes(b"MThd")
    return place


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], standalone_mode=False)


def rows(answer: Result) -> list[dict]:
    assert answer.exception is None, answer.exception
    found: list[dict] = json.loads(answer.stdout)["melodies"]
    return found


def test_a_folder_is_segmented_and_what_is_broken_is_one_line(folder: Path):
    answer = call("segment", folder, "--json")
    assert answer.return_value == SOME_FAILED
    assert answer.stderr.count("\n") == 1
    assert "three.mid: not readable as MIDI" in answer.stderr
    first, second, third = rows(answer)
    song = read_melody(folder / "one.mid")
    assert first["phrases"] == programme(song).sum() + 1
    assert sum(map(int, first["lengths"].split("+"))) == first["notes"] == len(song)
    assert (first["f1"], [second["melody"], third["melody"]]) == (None, ["two-1", "two-2"])
    assert 0 <= second["f1"] <= 1
    assert first["bars"].startswith("1,")
    alone = call("segment", folder / "three.mid")
    assert (alone.return_value, alone.stdout) == (BAD_INPUT, "")


def test_segmented_files_carry_their_phrases(folder: Path, tmp_path: Path):
    answer = call("segment", folder / "one.mid", "--method", "lbdm", "-o", tmp_path / "out", "--roll", "--json")
    assert answer.return_value == DONE
    written = Path(rows(answer)[0]["written"])
    expected = lbdm(read_melody(folder / "one.mid"))
    for path in (written, written.with_suffix(".json")):
        assert read_file(path)[0].interiors.tolist() == expected.tolist()
    assert written.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="--roll: name a folder for the pictures with -o"):
        raise call("segment", folder / "one.mid", "--roll").exception  # type: ignore[misc]


def test_skeletons_are_a_second_track_and_marks_in_the_json(folder: Path, tmp_path: Path):
    answer = call("skeleton", folder, "--rho", ".4", "--key", "D:zhi", "-o", tmp_path / "out", "--json")
    for row in rows(answer):
        written = Path(row["written"])
        song, kept = read_melody(written), read_melody(written, "skeleton")
        marks = np.array(json.loads(written.with_suffix(".json").read_text())["songs"][0]["skeleton"], bool)
        assert kept.onset.tolist() == song.onset[marks].tolist()
        assert marks.sum() == row["skeleton"] == len(row["kept"].split())
        assert row["key"] == "D:zhi"
        own = read_file(written.with_suffix(".json"))[0]
        assert marks.tolist() == skeleton(own, 0.4).tolist()
    names = sorted(path.name for path in (tmp_path / "out").glob("*.mid"))
    assert names == ["one.mid", "two-1.mid", "two-2.mid"]


def test_melodies_of_one_name_are_written_apart(tmp_path: Path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        write_midi(tmp_path / place / "x.mid", melody())
    call("skeleton", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.mid")) == ["x-2.mid", "x.mid"]


def test_a_melody_that_cannot_be_worked_on_is_one_line_and_the_others_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tasks.melody.piano_roll._MOST_ROWS", 1)
    answer = call("skeleton", folder / "two.abc", folder / "one.mid", "-o", tmp_path / "out", "--roll", "--json")
    assert answer.return_value == SOME_FAILED
    assert [row["melody"] for row in rows(answer)] == ["two-2"]
    assert answer.stderr.count("over 1; cut it") == 2


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["skeleton", "X", "--rho", "0"], "--rho 0: a share of the notes over 0, at most 1"),
        (["skeleton", "X", "--key", "Q"], "key 'Q' is not known"),
        (["segment", "X", "-o", "X"], "name another folder with -o"),
        (["segment", "gone"], "gone: no such file or folder"),
        (["segment", "X", "--model", "m.npz"], "goes with --method learned, not programme"),
        (["segment", "X", "--method", "learned", "--model", "m.npz"], "no trained segmenter"),
    ],
)
def test_wrong_options_are_one_line(folder: Path, words: list[str], fault: str):
    answer = call(*(str(folder / "one.mid") if word == "X" else word for word in words))
    assert isinstance(answer.exception, ValueError)
    assert fault in str(answer.exception)


def test_a_track_can_be_named(tmp_path: Path):
    write_midi(tmp_path / "x.mid", melody(), melody().position == 0)
    whole, part = (
        rows(call("segment", tmp_path / "x.mid", "--json", *more))[0] for more in ((), ("--track", "skeleton"))
    )
    assert part["notes"] < whole["notes"]


def test_a_trained_segmenter_is_kept_and_used(tmp_path: Path):
    songs = GeneratedSongs(songs=40)
    train_segmenter(songs, tmp_path / "own" / "own.npz")
    found = segmenter_of("learned", model=tmp_path / "own" / "own.npz")
    assert isinstance(found, LearnedSegmenter)
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["own.npz"]
    assert len(found(melody())) == len(melody()) - 1


def test_a_segmenter_that_cannot_be_kept_works_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("FUSION_DATA", str(tmp_path))
    monkeypatch.setattr("tasks.melody.segment.EssenSongs", lambda *_, **__: GeneratedSongs(songs=40))
    (tmp_path / "segmenters").touch()
    found = segmenter_of("learned")
    assert len(found(melody())) == len(melody()) - 1
    assert "cannot be kept (File exists), so the next time trains again; set FUSION_DATA" in capsys.readouterr().err
    (tmp_path / "segmenters").unlink()
    segmenter_of("learned")
    assert [path.name for path in (tmp_path / "segmenters").iterdir()] == ["han.npz"]
    assert isinstance(segmenter_of("learned"), LearnedSegmenter)


def test_without_data_the_learned_method_says_where_to_get_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FUSION_DATA", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"multimodal-fusion\[folk\]"):
        segmenter_of("learned")
