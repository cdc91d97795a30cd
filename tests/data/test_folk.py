"""Folk songs: ABC as the collection uses it, against its definition and against notes parsed by other code."""

from __future__ import annotations

import json
import lzma
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError
from data.music.abc import tunes
from data.pairs.folk import FolkPairs, song_books
from data.pairs.items import Pairs


@pytest.fixture(scope="module")
def songs(shared_data: Path) -> Pairs:
    return FolkPairs(str(shared_data / "retrieval" / "folk"), str(shared_data / "music" / "essen_abc.zip")).load()


def notes(body: str, key: str = "C", unit: str = "1/8") -> list[list[float]]:
    text = f"%abc\nX:1\nT: A song\nN: one\nN: two\nM: 2/4\nL: {unit}\nK: {key}\n{body}\n"
    tune = tunes(text)[1]
    assert tune.fields["N"] == "one two"
    found: list[list[float]] = tune.notes().tolist()
    return found


@pytest.mark.parametrize(
    ("body", "key", "pitches"),
    [
        ("CDEFGABc", "C", [60, 62, 64, 65, 67, 69, 71, 72]),
        ("C,Cc c'", "C", [48, 60, 72, 84]),
        ("FBEA", "Bb", [65, 70, 63, 69]),
        ("FC", "Dm", [65, 60]),
        ("B", "H", [71]),
        ("FGCD", "A", [66, 68, 61, 62]),
        ("^FF=FF | F", "C", [66, 66, 65, 65, 65]),
        ("^FF\nF | F", "C", [66, 66, 66, 65]),
        ("^Ff", "C", [66, 77]),
        ("_B^^F__G", "C", [70, 67, 65]),
    ],
)
def test_pitches_follow_key_octave_and_accidentals_up_to_the_bar(body: str, key: str, pitches: list[float]):
    assert [note[0] for note in notes(body, key)] == pitches


def test_lengths_are_quarters_rests_are_gaps_and_ties_join():
    assert notes("C2zD/2E3/2", unit="1/4") == [[60, 0, 2], [62, 3, 0.5], [64, 3.5, 1.5]]
    assert notes("C4- | C2D2") == [[60, 0, 3], [62, 3, 1]]
    assert notes("C4\n-C2D2") == [[60, 0, 3], [62, 3, 1]]
    assert notes("C4-D4") == [[60, 0, 2], [62, 2, 2]]


def test_what_is_no_note_and_no_key_is_named():
    with pytest.raises(DataError, match=r"tune 1: '\[' in '\[CEG\]' is a chord, one voice is read; correct the line"):
        notes("[CEG]")
    with pytest.raises(DataError, match="key 'Q' is not known"):
        notes("C", key="Q")


def test_songs_have_the_notes_that_other_code_read(songs: Pairs, shared_data: Path):
    assert "5296 songs without notes are left out" in "\n".join(songs.account)
    with lzma.open(shared_data / "music" / "essen_german.json.xz") as content:
        known = json.load(content)
    once = ~songs.table["title"].duplicated(keep=False).to_numpy()
    titles = {title: row for row, title in enumerate(songs.table["title"]) if once[row]}
    ticks, same, asked = known["ticks_per_quarter"], 0, 0
    for song in known["songs"]:
        if (row := titles.get(song["title"])) is None or len(song["pitch"]) != len(own := songs.left.load([row])[0]):
            continue
        asked += 1
        spans = np.rint(own[:, 1:].T * ticks).astype(int).tolist()
        same += own[:, 0].tolist() == song["pitch"] and spans == [song["onset"], song["dur"]]
    assert asked > 1500
    assert same > 0.995 * asked
    text = songs.right.load([songs.matches[0][0]])[0]
    assert songs.table["region"].iloc[0] in text
    assert songs.attribution() == ["Essen folk song collection, as packed in music21 (non-commercial use only)"]


def test_songs_of_one_caption_share_it_within_their_split(songs: Pairs):
    right_split = songs.right_table["split"].tolist()
    assert all(right_split[own[0]] == s for own, s in zip(songs.matches, songs.table["split"], strict=True))
    assert max(map(len, songs.partners)) > 1


def test_notes_come_from_music21_else_from_the_data_set_else_both_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("FUSION_DATA", str(tmp_path))
    found = ModuleSpec("music21", None, origin=str(tmp_path / "music21" / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    assert song_books() == tmp_path / "music21" / "corpus" / "essenFolksong"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"multimodal-fusion\[folk\].*fusion data import music.*or set notes to"):
        song_books()
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "essen_abc.zip").write_bytes(b"")
    assert song_books() == tmp_path / "music" / "essen_abc.zip"
