"""From a config to tables, a page that plays, melodies and explanations: one small run, asked in every way."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from data.errors import DataError
from data.music.files import read_file
from data.music.midi_melody import read_melody
from data.music.midi_out import write_midi
from data.music.song_files import as_json
from data.simulate.melodies import GeneratedSongs
from tasks.experiment.folder import RunError
from tasks.melody.cli import main
from tasks.melody.evaluation import evaluate_run
from tasks.melody.generation import REAL
from tasks.melody.inputs import marks_of
from tasks.melody.judged import Judged, judged_songs, with_judged, with_keys
from tasks.melody.models.small_tunes import SmallTunes
from tasks.melody.results import read
from tasks.melody.train import TASK, said_of
from tasks.melody.trained import trained
from tests.tasks.pages import Page

SMALL = {
    "sizes": {"width": 16, "heads": 2, "encoder": 1, "decoder": 1, "phrases": 8},
    "fit": {"batch": 8},
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "progress": False},
}


def written(folder: Path) -> str:
    tree = {
        "extends": "_base/melody.yaml",
        "name": "toy",
        "music": {"class_path": "GeneratedSongs", "init_args": {"songs": 40}},
        "let": SMALL,
        "judged": {"songs": 6, "shown": 1},
        "runs": str(folder / "runs"),
    }
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four arms."""
    folder = tmp_path_factory.mktemp("toy")
    assert TASK.train([written(folder)], seeds=[1]) == 0
    return folder / "runs" / "melody" / "toy"


@pytest.fixture
def tune(tmp_path: Path) -> Path:
    path = tmp_path / "tune.json"
    path.write_text(json.dumps(as_json(GeneratedSongs(1, seed=7).load().songs[0])))
    return path


def melody(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["melody", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_every_arm_is_measured_on_the_same_pieces(run: Path):
    summary = read(run).summary
    assert summary is not None
    assert set(summary["arm"]) == {"toy", "shuffled skeletons", "no skeleton", "Markov table"}
    assert set(summary["split"]) == {"valid", "test"}
    per_part = summary[summary["split"] == "test"].groupby("part")[["n", "cases"]].nunique()
    assert (per_part == 1).all().all()
    assert summary[["value", "low", "high", "per_16th"]].notna().all().all()


def test_generated_songs_stand_beside_the_table_and_other_real_songs(run: Path):
    generation = read(run).generation
    assert generation is not None
    assert list(dict.fromkeys(generation["arm"])) == ["toy", "no skeleton", "Markov table", REAL]
    assert read(run).promises == {"toy": read(run).promises["toy"]}
    assert read(run).promises["toy"]["broken"] == 0
    assert read(run).promises["toy"]["songs"] == 6


def test_the_page_is_whole_says_what_stands_beside_what_and_plays(run: Path):
    page = Page((run / "report.html").read_text())
    assert page.breaches == []
    assert len(page.all("audio")) == 2
    for said in ("decorative pitch", "Markov table", REAL, "0 broken promises", "How often the grammar overruled"):
        assert said in page.words
    assert "This run is not complete" not in page.words


def test_evaluating_again_changes_no_number(run: Path):
    before = [(run / name).read_text() for name in ("summary.csv", "comparisons.csv", "generation.csv")]
    evaluate_run(run)
    assert [(run / name).read_text() for name in ("summary.csv", "comparisons.csv", "generation.csv")] == before


def test_melodies_are_files_that_keep_the_skeleton(
    run: Path, tune: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out.mid"
    asked = ("--skeleton", tune, "-o", out, "--count", 2, "--seed", 3, "--wav", "--roll", "--json")
    assert melody(monkeypatch, "generate", run, *asked) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["broken_promises"] for row in said["melodies"]] == [0, 0]
    for number in (1, 2):
        again = read_melody(tmp_path / f"out-{number}.mid")
        account = json.loads((tmp_path / f"out-{number}.json").read_text())
        assert account["skeleton_kept"] == account["skeleton_notes"]
        (read_back,) = read_file(tmp_path / f"out-{number}.json")
        assert read_back.pitch.tolist() == again.pitch.tolist()
        assert marks_of(tmp_path / f"out-{number}.json").sum() == account["skeleton_notes"]
        kept = read_melody(tmp_path / f"out-{number}.mid", "skeleton")
        assert len(kept) == account["skeleton_notes"]
        assert (tmp_path / f"out-{number}.wav").stat().st_size > 1000
        assert (tmp_path / f"out-{number}.png").stat().st_size > 1000
    first = (tmp_path / "out-1.mid").read_bytes()
    assert first != (tmp_path / "out-2.mid").read_bytes()
    assert melody(monkeypatch, "generate", run, *asked) == 0
    assert (tmp_path / "out-1.mid").read_bytes() == first


def test_a_stream_tells_each_phrase_and_ends_with_the_same_file(
    run: Path, tune: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    whole, streamed = tmp_path / "whole.mid", tmp_path / "streamed.mid"
    assert melody(monkeypatch, "generate", run, "--skeleton", tune, "-o", whole) == 0
    capsys.readouterr()
    assert melody(monkeypatch, "generate", run, "--skeleton", tune, "-o", streamed, "--stream") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if ": phrase " in line]
    assert [line.split(": phrase ")[1].split(",")[0] for line in lines] == [f"{at} of 4" for at in (1, 2, 3, 4)]
    notes = [int(line.split(", ")[1].split()[0]) for line in lines]
    assert notes == sorted(notes)
    assert whole.read_bytes() == streamed.read_bytes()


def test_bars_can_be_filled_in(run: Path, tune: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out.mid"
    assert melody(monkeypatch, "generate", run, "--skeleton", tune, "-o", out, "--infill", "5-8", "--top-p", 1) == 0
    before, after = read_file(tune)[0], read_melody(out)
    for song in (before, after):
        assert len(song.bars) == 16
    outside = [(song.bar_of < 4) | (song.bar_of > 7) for song in (before, after)]
    assert np.array_equal(before.pitch[outside[0]], after.pitch[outside[1]])
    assert np.array_equal(before.onset[outside[0]], after.onset[outside[1]])


def test_a_skeleton_track_of_a_midi_file_is_the_skeleton(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    song = GeneratedSongs(1, seed=8).load().songs[0]
    marks = np.arange(len(song)) % 4 == 0
    write_midi(tmp_path / "in.mid", song, marks)
    asked = ("--skeleton", tmp_path / "in.mid", "-o", tmp_path / "out.mid", "--key", "D:zhi", "--json")
    assert melody(monkeypatch, "generate", run, *asked) == 0
    (row,) = json.loads(capsys.readouterr().out)["melodies"]
    assert row["skeleton_notes"] == row["skeleton_kept"] == int(marks.sum())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--key", "D:lydian"], "key 'D:lydian' is not known"),
        (["--key", "D:min"], "key D:min: mode min is not in vocabulary"),
        (["--metre", "11/8"], "metre 11/8 is not in vocabulary"),
        (["--infill", "30-40"], "bars 30 to 40; it has bars 1 to 16"),
        (["--infill", "x"], "--infill x: expected two bars, from 1, such as 5-8"),
        (["--low", "90"], "lies outside of the range 90 to 127; widen it"),
        (["--top-p", "2"], "top_p=2.0; expected a temperature above 0 and a share"),
        (["-o", "out.wav"], "music is written as MIDI; give a name that ends in .mid"),
        (["--arm", "other"], "--arm other: "),
        (["--arm", "Markov table"], "this model does not generate from skeletons"),
        (["--unit-seed", "9"], "no finished unit of toy with seed 9 (fold0-seed1)"),
    ],
)
def test_a_wrong_request_is_one_line(
    options: list[str], message: str, run: Path, tune: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    assert melody(monkeypatch, "generate", run, "--skeleton", tune, *options) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1


def test_a_melody_without_a_key_asks_for_one(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    song = as_json(GeneratedSongs(1).load().songs[0]) | {"key": None}
    (tmp_path / "tune.json").write_text(json.dumps(song))
    assert melody(monkeypatch, "generate", run, "--skeleton", tmp_path / "tune.json") == 2
    assert "its key is unknown; give one, such as --key D:zhi" in capsys.readouterr().err


def test_weights_of_another_vocabulary_are_refused_with_both_hashes(run: Path, tmp_path: Path):
    unit = run / "toy" / "fold0-seed1"
    stored = (unit / "vocabulary.json").read_text()
    other = json.loads(stored)
    own = other["hash"]
    other["low"] -= 1
    done = (unit / "done.json").read_text()
    try:
        (unit / "vocabulary.json").write_text(json.dumps(other))
        with pytest.raises(RunError, match=r"vocabulary\.json: damaged, .*; repeat the run with --resume"):
            trained(run)
        (unit / "done.json").write_text("{}")  # of an earlier version, which lists no files
        with pytest.raises(
            RunError, match=rf"the weights are for vocabulary {own}, vocabulary.json is \w{{12}}; put back"
        ):
            trained(run)
        torch.save({"vocabulary": own}, unit / "half.pt")
    finally:
        (unit / "done.json").write_text(done)
        (unit / "vocabulary.json").write_text(stored)
        (unit / "half.pt").unlink(missing_ok=True)
    assert trained(run)[1] == unit


def test_figures_and_explanations_are_files(
    run: Path, tune: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert melody(monkeypatch, "plot", run) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert {"arms-0.svg", "epochs.svg"} <= set(names)
    assert melody(monkeypatch, "plot", tune, "-o", tmp_path / "tune.svg") == 0
    assert (tmp_path / "tune.svg").read_text().startswith("<?xml")
    capsys.readouterr()
    assert melody(monkeypatch, "explain", run, tune) == 0
    page = Page(Path(capsys.readouterr().out.strip()).read_text())
    assert page.breaches == []
    assert "Which phrases each note read from afar" in page.words


def test_judged_songs_leave_the_validation_part_and_training_stays():
    book = GeneratedSongs(60).load()
    judged = Judged(songs=len(book.part("test")) + 2)
    moved = with_judged(book, judged)
    assert moved.part("train") == book.part("train")
    assert len(moved.part("valid")) == len(book.part("valid")) - 2
    assert [song.name for song in judged_songs(moved, judged)] != []
    assert "2 songs of the validation part are judged" in moved.account[-1]
    greedy = with_judged(book, Judged(songs=100))
    assert len(greedy.part("valid")) == -(-len(book.part("valid")) // 2)
    judged_of_greedy = {song.name for song in judged_songs(greedy, Judged(songs=100))}
    assert not judged_of_greedy & {song.name for song in greedy.part("valid")}


def test_songs_of_unknown_key_are_left_out_by_name():
    book = GeneratedSongs(30).load()
    assert with_keys(book) is book
    first = book.songs[0].name
    left = with_keys(replace(book, songs=[replace(book.songs[0], key=None), *book.songs[1:]]))
    assert (len(left.songs), set(left.split)) == (29, {song.name for song in book.songs[1:]})
    assert f"left out: 1 songs whose key is unknown ({first})" in left.account[-1]


def test_songs_that_cannot_be_said_are_told(tmp_path: Path):
    book = GeneratedSongs(30).load()
    assert not any("left out" in line for line in said_of(book)[0])
    far = [song.transposed(24) if book.split[song.name] == "test" else song for song in book.songs]
    count = len(book.part("test"))
    assert (
        f"{count} songs that the vocabulary cannot say are left out (pitch above the gong {count})"
        in said_of(replace(book, songs=far))[0]
    )
    none = replace(book, split=dict.fromkeys(book.split, "train"))
    with pytest.raises(DataError, match="0 valid songs, none can be said; give more songs"):
        SmallTunes().fit(none, tmp_path, 1)
    with pytest.raises(DataError, match="no training song, so there are no notes to learn"):
        said_of(replace(book, split=dict.fromkeys(book.split, "test")))


def test_a_run_that_has_not_trained_says_so(run: Path, tmp_path: Path):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(RunError, match="no finished unit of toy"):
        trained(bare)
    with pytest.raises(RunError, match="no unit of this run is finished"):
        evaluate_run(bare)
    page = Page(TASK.report(bare).read_text())
    assert page.breaches == []
    assert "This run is not complete" in page.words


def test_a_page_without_the_model_under_test_shows_the_others(run: Path, tmp_path: Path):
    left = tmp_path / "left"
    shutil.copytree(run, left)
    shutil.rmtree(left / "toy")
    evaluate_run(left)
    page = Page(TASK.report(left).read_text())
    assert page.breaches == []
    for said in ("Nothing can be concluded yet: no unit of toy", "nats per note (lower is better)", "Markov table"):
        assert said in page.words
