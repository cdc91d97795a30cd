"""Melodies, keys and metres: what they refuse, what they keep, and collections whose variants stay together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError
from data.music.book import SongBook, opening, split_by_opening
from data.music.folder import FolderSongs
from data.music.key import MODES, Key
from data.music.melody import Melody, bar_ticks, bars_of, parse_metre
from data.music.song_files import read_songs, write_songs
from data.simulate.melodies import GeneratedSongs


def song(name: str = "a", **other: object) -> Melody:
    parts = {"onset": [0, 24, 60], "duration": [24, 24, 36], "pitch": [60, 62, 67], "bars": [-24, 24], "metre": (2, 4)}
    arrays = {
        key: np.array(value, int) if isinstance(value, list) else value for key, value in {**parts, **other}.items()
    }
    return Melody(name, **arrays)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "tonic", "mode"),
    [
        ("D:zhi", 2, "zhi"), ("Gb:maj", 6, "maj"), ("A", 9, "maj"), ("Am", 9, "min"), ("F# minor", 6, "min"),
        ("H", 11, "maj"), ("Es", 3, "maj"), ("b", 11, "maj"), ("C♯-moll", 1, "min"), ("bb:yu", 10, "yu"),
    ],
)  # fmt: skip
def test_keys_are_read_in_every_usual_spelling(text: str, tonic: int, mode: str):
    key = Key.parse(text)
    assert (key.tonic, key.mode) == (tonic, mode)
    assert Key.parse(str(key)) == key


@pytest.mark.parametrize("text", ["", "Q", "D:zi", "C major minor", "5", "D:zhi:x"])
def test_what_is_no_key_is_answered_with_the_modes(text: str):
    with pytest.raises(DataError, match=r"is not known; write a tonic and a mode such as D:zhi.*gong, shang, jue"):
        Key.parse(text)


@pytest.mark.parametrize("mode", MODES)
def test_a_key_and_its_notes_move_together(mode: str):
    key = Key(4, mode)
    assert key.tonic in key.pentatonic
    assert set(key.pentatonic) < set(key.scale)
    for by in range(12):
        assert {(note + by) % 12 for note in key.scale} == set(key.transposed(by).scale)


def test_metres_are_counted_in_ticks_and_odd_ones_are_read():
    assert [bar_ticks(m) for m in ((2, 4), (6, 8), (7, 8), (5, 16))] == [48, 72, 84, 30]
    assert (parse_metre("C"), parse_metre("C|"), parse_metre("none")) == ((4, 4), (2, 2), None)
    for wrong in ("4", "0/4", "4/0", "a/b", "1/64", "999/1", "-2/4", "²/4"):
        with pytest.raises(DataError, match="metre"):
            parse_metre(wrong)


def test_bars_hold_every_note_and_a_pickup_completes_a_bar():
    assert bars_of(0, 96, np.array([48]), (2, 4)).tolist() == [0, 48]
    assert bars_of(0, 60, np.array([12, 60]), (2, 4)).tolist() == [-36, 12]
    assert bars_of(0, 200, np.array([60, 108, 156]), None).tolist() == [0, 60, 108, 156]
    assert bars_of(12, 100, np.array([], int), (2, 4)).tolist() == [12, 60]
    pickup = song(bars=[-36, 12, 60], onset=[0, 12, 60], duration=[12, 24, 36])
    assert pickup.bar_of.tolist() == [0, 1, 2]
    assert pickup.position.tolist() == [36, 0, 0]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"onset": [], "duration": [], "pitch": []}, "it has no note"),
        ({"duration": [24, 0, 36]}, "a duration is below 1 tick"),
        ({"pitch": [60, 128, 1]}, "a pitch is beyond 0 to 127"),
        ({"duration": [25, 24, 36]}, "notes overlap or are not in order"),
        ({"bars": [1, 48]}, "bars do not ascend from the first note or before"),
        ({"phrase": [0, 2, 2]}, "phrases do not count up from 0"),
        ({"phrase": [1, 1, 1]}, "phrases do not count up from 0"),
    ],
)
def test_arrays_that_are_no_melody_are_refused(change: dict[str, list[int]], fault: str):
    with pytest.raises(DataError, match=f"melody a: {fault}"):
        song(**change)


@pytest.mark.unchecked
def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(DataError, match="melody a: onset, duration and pitch differ in length"):
        song(pitch=[60, 62])


def test_interiors_need_phrases_and_transposition_moves_the_key():
    with pytest.raises(DataError, match="its phrases are unknown; segment it first"):
        _ = song().interiors
    assert song(phrase=[0, 0, 1]).interiors.tolist() == [False, True]
    higher = song(key=Key.parse("D:zhi")).transposed(3)
    assert (higher.pitch.tolist(), str(higher.key)) == ([63, 65, 70], "F:zhi")
    with pytest.raises(DataError, match="beyond 0 to 127"):
        song().transposed(90)


def test_songs_survive_their_file(tmp_path: Path):
    songs = GeneratedSongs(songs=5).load().songs
    songs[0] = replace(songs[0], key=None, metre=None, about={"title": "Größe"})
    write_songs(tmp_path / "songs.json", songs)
    for before, after in zip(songs, read_songs(tmp_path / "songs.json"), strict=True):
        for part in ("onset", "duration", "pitch", "bars", "phrase"):
            assert getattr(before, part).tolist() == getattr(after, part).tolist()
        assert (before.name, before.metre, before.key, dict(before.about)) == (
            after.name, after.metre, after.key, dict(after.about),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[", "not readable as JSON"),
        ("[1]", "expected an object with songs, not list"),
        ('{"songs": 3}', "songs must be a list"),
        ('{"songs": [3]}', "song 0 is no object"),
        ('{"onset": [0], "dur": [1]}', r"song 0 \(melody\) has no 'pitch'"),
        ('{"onset": [], "dur": [], "pitch": []}', "has no note; leave it out"),
        ('{"onset": [0.5], "dur": [1], "pitch": [60]}', "must be whole numbers"),
        ('{"onset": [[0]], "dur": [1], "pitch": [60]}', "must be whole numbers"),
        ('{"ticks_per_quarter": 7, "onset": [1], "dur": [7], "pitch": [60]}', "do not fit 24 a quarter"),
        ('{"onset": [0], "dur": [99999999], "pitch": [60]}', "song 0: it lasts 99999999 ticks, over 10000000"),
        ('{"onset": [4000000000000000000], "dur": [9], "pitch": [60]}', "over 10000000 quarters away"),
        ('{"onset": [40000000000000000000], "dur": [9], "pitch": [60]}', "must be whole numbers"),
        ('{"onset": [0], "dur": [9], "pitch": [60], "key": "Q"}', "song 0: key 'Q' is not known"),
    ],
)
def test_a_json_file_that_is_no_songs_is_refused_in_a_line(tmp_path: Path, content: str, fault: str):
    path = tmp_path / "songs.json"
    path.write_text(content)
    with pytest.raises(DataError, match=fault) as told:
        read_songs(path)
    assert str(told.value).startswith(str(path))
    assert "\n" not in str(told.value)


def test_a_split_keeps_variants_together_and_does_not_depend_on_the_rest():
    songs = GeneratedSongs(songs=60).load().songs
    moved = [replace(own.transposed(2), name=f"{own.name}-moved") for own in songs]
    octave = [replace(own, name=f"{own.name}-low", pitch=own.pitch - 12) for own in songs]
    split = split_by_opening([*songs, *moved, *octave])
    for own, up, low in zip(songs, moved, octave, strict=True):
        assert split[own.name] == split[up.name] == split[low.name]
        assert opening(own) == opening(up)
    assert {name: split[name] for name in split_by_opening(songs)} == split_by_opening(songs)
    assert len(set(split.values())) == 3
    book = SongBook("x", [*songs, *moved], split_by_opening([*songs, *moved]))
    assert book.crossing() == []
    names = [songs[0].name, moved[0].name]
    book = SongBook("x", [songs[0], moved[0]], {names[0]: "train", names[1]: "test"})
    assert book.crossing() == names
    with pytest.raises(DataError, match="leave something to train on"):
        split_by_opening(songs, 0.5, 0.5)


def test_a_book_refuses_what_is_no_collection():
    with pytest.raises(DataError, match="x: no song is left; two were broken"):
        SongBook("x", [], {}, ["two were broken"])
    with pytest.raises(DataError, match="two songs have one name"):
        SongBook("x", [song(), song()], {"a": "train"})
    with pytest.raises(DataError, match="a and 0 more are in no part"):
        SongBook("x", [song()], {})


def test_generated_songs_keep_their_grammar():
    source = GeneratedSongs(songs=20, phrases=5, bars=3, metre="3/4", seed=4)
    for own, marked in zip(source.load().songs, source.skeletons(), strict=True):
        assert own.key is not None
        assert np.isin(own.pitch % 12, own.key.pentatonic).all()
        assert own.pitch[-1] % 12 == own.key.tonic
        assert own.end == 5 * 3 * 72
        ends = np.r_[np.flatnonzero(own.interiors), len(own) - 1]
        assert (own.duration[ends] == 72).all()
        assert marked.sum() == 15
        assert marked[ends].all()
    again = GeneratedSongs(songs=20, phrases=5, bars=3, metre="3/4", seed=4).load().songs
    assert [own.pitch.tolist() for own in again] == [own.pitch.tolist() for own in source.load().songs]
    with pytest.raises(ValueError, match="expected quarters"):
        GeneratedSongs(metre="6/8")


def test_a_folder_of_songs_names_what_it_leaves_out(tmp_path: Path):
    write_songs(tmp_path / "one.json", GeneratedSongs(songs=3).load().songs)
    write_songs(tmp_path / "two.json", GeneratedSongs(songs=1).load().songs)
    (tmp_path / "bad.mid").write_bytes(b"no MIDI")
    (tmp_path / "two.abc").write_text("X:1\nK:C\nCDEF\n\nX:2\nK:Q\nC\n")
    book = FolderSongs(str(tmp_path)).load()
    names = ["tune-0000-1", "tune-0001", "tune-0002", "two-1", "tune-0000-2"]
    assert sorted(own.name for own in book.songs) == sorted(names)
    assert book.account[0].startswith("5 songs from")
    assert "bad.mid: not readable as MIDI" in "\n".join(book.account)
    assert "two.abc: tune 2: key 'Q' is not known" in "\n".join(book.account)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no melody file in it"):
        FolderSongs(str(tmp_path / "empty")).load()


def test_a_folder_keeps_the_split_that_its_songs_name(tmp_path: Path):
    songs = [
        replace(own, about={"split": part})
        for own, part in zip(GeneratedSongs(songs=3).load().songs, ("test", "train", "valid"), strict=True)
    ]
    write_songs(tmp_path / "songs.json", songs)
    book = FolderSongs(str(tmp_path / "songs.json")).load()
    assert list(book.split.values()) == ["test", "train", "valid"]
