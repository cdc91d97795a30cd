"""`melody generate` of a run of chorales: whole pieces as files, and what such a run cannot be asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import yaml

from data.music.chorales import SILENT, VOICES, voices_of
from data.music.midi_out import write_voices
from data.music.synthesis import synthesise_voices
from tasks.melody.chorale_generate import described
from tasks.melody.cli import main
from tasks.melody.train import TASK

BAR = 16


def chorale(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Voices in their order that move every quarter."""
    beats = rng.integers(0, 5, (steps // 4, 4)) + np.array([72, 65, 58, 48])
    return np.repeat(beats, 4, axis=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("chorales"), np.random.default_rng(1)
    parts = {part: [chorale(rng, 32).tolist() for _ in range(3)] for part in ("train", "valid", "test")}
    (folder / "chorales.json").write_text(json.dumps(parts))
    tree = {
        "extends": "melody/chorales_small.yaml",
        "name": "toy",
        "music": {"init_args": {"file": str(folder / "chorales.json")}},
        "let": {"sizes": {"width": 16, "layers": 1, "feed_forward": 16}, "epochs": 1},
        "runs": str(folder / "runs"),
    }
    (folder / "toy.yaml").write_text(yaml.safe_dump(tree))
    assert TASK.train([str(folder / "toy.yaml")]) == 0
    return folder / "runs" / "melody" / "toy"


def generate(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["melody", "generate", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_pieces_are_files_of_four_voices_that_depend_on_the_seed_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out.mid"
    asked = (run, "-o", out, "--bars", 2, "--count", 2, "--wav", "--json")
    assert generate(monkeypatch, *asked, "--seed", 3) == 0
    said = json.loads(capsys.readouterr().out)["melodies"]
    for number, row in enumerate(said, start=1):
        account = json.loads((tmp_path / f"out-{number}.json").read_text())
        assert len(account["chorale"]) == 2 * BAR
        assert account["notes"] == row["notes"]
        tracks = pretty_midi.PrettyMIDI(str(tmp_path / f"out-{number}.mid")).instruments
        assert sum(len(track.notes) for track in tracks) == row["notes"]
        assert {track.name for track in tracks} <= set(VOICES)
        assert (tmp_path / f"out-{number}.wav").stat().st_size > 1000
    first = (tmp_path / "out-1.mid").read_bytes()
    assert generate(monkeypatch, *asked, "--seed", 4) == 0
    assert (tmp_path / "out-1.mid").read_bytes() != first
    assert generate(monkeypatch, *asked, "--seed", 3) == 0
    assert (tmp_path / "out-1.mid").read_bytes() == first


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--skeleton", "x.mid", "--key", "D:zhi"), "makes whole chorales, from nothing; leave --skeleton, --key out"),
        (("--stream",), "leave --stream out, or name a run of songs"),
        (("--arm", "back-off table"), "does not generate from skeletons; name another with --arm"),
    ],
)
def test_what_chorales_cannot_be_asked_is_one_line(
    options: tuple[str, ...], said: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    assert generate(monkeypatch, run, "-o", tmp_path / "out.mid", *options) != 0
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_equal_neighbours_are_one_note_and_silence_is_none(tmp_path: Path):
    steps = np.array([[70, 60, 55, SILENT]] * 4 + [[72, 60, SILENT, SILENT]] * 2 + [[70, 73, 55, SILENT]] * 2, np.int8)
    voices = voices_of(steps)
    assert [voice.name for voice in voices] == ["soprano", "alto", "tenor"]
    assert [voice.pitch.tolist() for voice in voices] == [[70, 72, 70], [60, 73], [55, 55]]
    assert [voice.onset.tolist() for voice in voices] == [[0, 24, 36], [0, 36], [0, 36]]
    assert described(steps)["crossed"] == 0.25
    assert described(steps)["silent"] == pytest.approx((8 + 2) / 32)
    write_voices(tmp_path / "voices.mid", voices, 60.0)
    again = pretty_midi.PrettyMIDI(str(tmp_path / "voices.mid"))
    assert [(note.pitch, note.start, note.end) for note in again.instruments[0].notes] == [
        (70, 0.0, 1.0), (72, 1.0, 1.5), (70, 1.5, 2.0),
    ]  # fmt: skip
    sound = synthesise_voices(voices, 60.0, 4000)
    assert len(sound) == 2.5 * 4000 + 1
    assert 0 < np.abs(sound).max() <= 1
