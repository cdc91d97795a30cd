"""ABC and **kern: pitches, lengths, phrases, the barline at a line's end, and what is refused."""

from __future__ import annotations

import json
import lzma
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError
from data.music.abc import Tune, tunes
from data.music.abc_books import read_book, read_books
from data.music.abc_key import key_of
from data.music.essen import EssenSongs, mode_by_final
from data.music.kern import parse_kern, read_kern
from data.music.melody import Melody, bar_ticks
from data.music.pop909 import phrases_of, song_of_row
from data.music.songs import Chorales, Pop909Songs
from tests.data.music_files import ABC, KERN

ABC_TICKS = "X:1\nM:{metre}\nL:1/16\nK:{key}\n{body}\n"


def tune(body: str, metre: str = "2/4", key: str = "C") -> Melody:
    return tunes(ABC_TICKS.format(metre=metre, key=key, body=body))[1].melody("x")


def test_a_tune_is_read_whole():
    first, second = (own.melody(str(number)) for number, own in tunes(ABC).items())
    assert (first.about["title"], first.about["genre"]) == ("A song", "Xiaodiao")
    assert (first.metre, str(first.key)) == ((2, 4), "G:maj")
    assert first.phrase is not None
    assert first.phrase.max() == 2
    assert first.bars.tolist() == list(range(0, 576, 48))
    assert first.duration[first.onset == 192].tolist() == [8]
    assert [int(first.duration[first.onset == at][0]) for at in (240, 276)] == [36, 12]
    assert second.metre == (6, 8)
    assert second.pitch[:3].tolist() == [70, 72, 74]


@pytest.mark.parametrize(
    ("body", "lengths"),
    [
        ("(3C2D2E2F4", [8, 8, 8, 24]),
        ("(3:2:2C2D2 E4", [8, 8, 24]),
        ("C2>D2 E2<F2", [18, 6, 6, 18]),
        ("C/D/E2F3/2", [3, 3, 12, 9]),
        ("{gag}C4 !trill!D4 \"Am\"~E4 (F2G2)", [24, 24, 24, 12, 12]),
        ("C4-|C4 D4-|C4", [48, 24, 24]),
        ("[M:3/4][L:1/8]C4 D2", [48, 24]),
    ],
)  # fmt: skip
def test_lengths_follow_tuplets_dots_ties_and_what_makes_no_sound(body: str, lengths: list[int]):
    assert tune(body).duration.tolist() == lengths


@pytest.mark.parametrize(("key", "expected"), [("Ddor", "C:maj"), ("Em", "E:min"), ("Amix", "D:maj"), ("F#", "F#:maj")])
def test_modes_of_abc_are_keys_with_the_same_notes(key: str, expected: str):
    assert str(key_of(key)) == expected
    assert (key_of("none"), key_of("HP")) == (None, None)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("[CEG]", "is a chord, one voice is read"),
        ("C4 & E4", "'&' in 'C4 & E4' is no note"),
        (">C", "'>' has no note before it"),
        ("Cz>D", "'>' has no note before it"),
        ("L:999/1\nC9999" + " C9999" * 20, "it lasts .* ticks, over 10000000"),
        ("C/0", "has no length"),
        ("(0C", "is no tuplet"),
        ("z4", "tune 1: no note in it; leave it out"),
        ("C////D", "tune 1: notes shorter than a 96th"),
        ("C,,,,,,,", "lies beyond MIDI's 0 to 127"),
        ("V:1\nC4\nV:2\nE4", r"several voices \(1, 2\)"),
        ("M:x\nC", "metre 'x' is not known"),
        ("L:x\nC", "L:x is no length"),
    ],
)
def test_what_is_no_single_voice_is_refused_in_a_line(body: str, fault: str):
    with pytest.raises(DataError, match=fault) as told:
        tune(body)
    assert str(told.value).startswith("tune 1: ")
    assert "\n" not in str(told.value)


def test_the_barline_at_a_line_end_is_put_back_only_where_a_bar_ends():
    assert tune("C4C4 | D4D4\nE4E4 | F8").bars.tolist() == [0, 48, 96, 144]
    # A phrase that ends within a bar: the pickup of the next line completes it.
    assert tune("C4 | D4D4 | E4\nF4 | G4G4 | A4").bars.tolist() == [-24, 24, 72, 120, 168]
    # Two short bars that together would be too long.
    assert tune("C4C4 | D6\nE6 | F8").bars.tolist() == [0, 48, 84, 120]
    assert tune("C4C4 | D4\nE4E4", metre="none").bars.tolist() == [0, 48]


def test_repeats_are_told_and_books_are_read_in_any_code(tmp_path: Path):
    assert tune("|: C4D4 :| E8").about["repeats"] == "as written, not unfolded"
    (tmp_path / "a.abc").write_bytes("X:1\nT:Größe\nK:C\nC\n".encode("latin-1"))
    (tmp_path / "b.abc").write_bytes("X:1\nT:Größe\nK:C\nC\n".encode())
    assert [own[1].fields["T"] for _, own in read_books(tmp_path)] == ["Größe", "Größe"]
    (tmp_path / "c.abc").write_text("no tune")
    with pytest.raises(DataError, match="no tune in it"):
        read_book(tmp_path / "c.abc")
    with pytest.raises(DataError, match="not readable as a zip of ABC files"):
        list(read_books(tmp_path / "c.abc"))


def test_kern_is_read_whole(tmp_path: Path):
    path = tmp_path / "song.krn"
    path.write_text(KERN)
    song = read_kern(path)
    assert song.pitch.tolist() == [74, 69, 72, 74, 74, 72, 74, 79, 72, 69, 67, 68]
    assert song.duration.tolist() == [24, 12, 12, 48, 18, 6, 12, 12, 8, 8, 8, 36]
    assert song.onset.tolist() == [0, 24, 36, 48, 96, 114, 120, 132, 180, 188, 196, 204]
    assert song.phrase is not None
    assert song.phrase.tolist() == [0] * 8 + [1] * 4
    assert (song.metre, str(song.key), song.about["title"]) == ((2, 4), "G:maj", "A song")
    assert song.bars[:4].tolist() == [0, 48, 96, 144]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("4c\n", r"no \*\*kern spine in it"),
        ("**kern\n*-\n", "no note in it"),
        ("**kern\t**kern\n4c\t4e\n", r"2 \*\*kern spines; choose a track: 0, 1"),
        ("**kern\n4c 4e\n", "line 2: '4c 4e' is a chord"),
        ("**kern\n*^\n", "a spine splits"),
        ("**kern\n4h\n", "line 2: '4h' is no note"),
        ("**kern\n4cd\n", "line 2: '4cd' is no note"),
        ("**kern\n8%0c\n", "has no length"),
        ("**kern\n4cccccccccc\n", "lies beyond MIDI's 0 to 127"),
    ],
)
def test_kern_that_is_no_single_voice_is_refused(text: str, fault: str):
    with pytest.raises(DataError, match=fault):
        parse_kern(text, "x")


def test_one_of_several_kern_spines_can_be_named():
    text = "**kern\t**text\t**kern\n4c\tla\t4e\n*-\t*-\t*-\n"
    assert [parse_kern(text, "x", spine).pitch.tolist() for spine in (0, 1)] == [[60], [64]]
    with pytest.raises(DataError, match=r"no \*\*kern spine 2; it has 2"):
        parse_kern(text, "x", 2)


@pytest.mark.parametrize(
    ("final", "mode"), [(67, "G:gong"), (69, "A:shang"), (71, "B:jue"), (62, "D:zhi"), (64, "E:yu")]
)
def test_the_mode_of_a_han_song_is_the_degree_of_its_last_note(final: int, mode: str):
    assert str(mode_by_final(7, final)) == mode
    assert str(mode_by_final(7, 66)) == "G:gong"


def test_a_pop_phrase_begins_with_its_pickup():
    onset = np.array([0, 24, 48, 168, 180, 192, 216, 288, 312])
    duration = np.array([24, 24, 48, 12, 12, 24, 24, 24, 24])
    # The second phrase is labelled from bar 3 (tick 192) on; two notes come before it, after a rest.
    assert phrases_of("A2B2", onset, duration).tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    # No rest near the third label: the boundary is its bar line.
    assert phrases_of("A3B1", onset, duration).tolist() == [0] * 7 + [1] * 2
    with pytest.raises(DataError, match="are not letters with numbers of bars"):
        phrases_of("A2-B2", onset, duration)
    row = {"id": "1", "key": "C:maj\nD:maj", "tempo": 90, "melody": [[0, 4], [60, 4], [62, 8]], "phrases1": "A1"}
    song = song_of_row(row)
    assert (song.onset.tolist(), str(song.key), song.about["keys"]) == ([24, 48], "C:maj", "C:maj, D:maj")


# The traps that the notes on the data set name, on the real songs.


@pytest.fixture(scope="module")
def music(shared_data: Path) -> Path:
    return shared_data / "music"


@pytest.fixture(scope="module")
def books(music: Path) -> dict[str, dict[int, Tune]]:
    return dict(read_books(music / "essen_abc.zip"))


def published(music: Path, culture: str) -> list[dict]:
    with lzma.open(music / f"essen_{culture}.json.xz") as content:
        return json.load(content)["songs"]


@pytest.mark.parametrize("culture", ["han", "german"])
def test_the_abc_reader_agrees_with_the_published_notes_and_bars(
    music: Path, books: dict[str, dict[int, Tune]], culture: str
):
    file = str(music / f"essen_{culture}.json.xz")
    book = EssenSongs(culture, wrapped="keep", notes=file).load()  # type: ignore[arg-type]
    songs = {song.name: song for song in book.songs}
    same, asked, found, expected, hits = 0, 0, 0, 0, 0
    for row in published(music, culture):
        file, _, number = row["id"].rpartition("-")
        try:
            own = books[f"{file}.abc"][int(number)].melody("x")
        except DataError:
            continue
        asked += 1
        assert own.phrase is not None
        same += (own.onset.tolist(), own.duration.tolist(), own.pitch.tolist(), own.phrase.tolist()) == (
            row["onset"], row["dur"], row["pitch"], row["phrase"],
        )  # fmt: skip
        bars, known = set(own.bars.tolist()), set(songs[row["id"]].bars.tolist())
        found, expected, hits = found + len(bars), expected + len(known), hits + len(bars & known)
    assert asked >= len(songs) - 3
    assert same >= asked - 4
    assert min(hits / found, hits / expected) > 0.99


def test_the_time_since_the_last_barline_tells_phrases_in_the_raw_files_but_not_here(books: dict[str, dict[int, Tune]]):
    """Trap 1: without the repair, a full bar without a barline means that a phrase has ended."""
    raw, repaired = [], []
    for name in ("erk10.abc", "erk20.abc"):
        for a_tune in books[name].values():
            try:
                song = a_tune.melody("x")
            except DataError:
                continue
            if song.metre is not None:
                raw.append(_overdue(replace(song, bars=_written_bars(a_tune))))
                repaired.append(_overdue(song))
    (places, ends), (_, ends_after) = np.sum(raw, axis=0), np.sum(repaired, axis=0)
    assert places > 1000
    assert ends > 0.9 * places
    assert ends_after == 0


def _written_bars(a_tune: Tune) -> np.ndarray:
    """Only the barlines that the file writes: a tune without its line ends."""
    joined = Tune(a_tune.number, a_tune.fields, [" ".join(a_tune.body)])
    return joined.melody("x").bars


def _overdue(song: Melody) -> tuple[int, int]:
    """Notes with which a bar is exactly full and no barline stands, and phrases that begin with them."""
    assert song.metre is not None
    full = song.position[1:] == bar_ticks(song.metre)
    return int(full.sum()), int((full & song.interiors).sum())


def test_the_published_split_keeps_variants_together_and_wrapped_songs_can_be_left_out(music: Path):
    for culture, sizes, wrapped in (("han", (991, 126, 107), 159), ("german", (1600, 169, 225), 4)):
        file = str(music / f"essen_{culture}.json.xz")
        book = EssenSongs(culture, wrapped="keep", notes=file).load()  # type: ignore[arg-type]
        assert tuple(len(book.part(part)) for part in ("train", "valid", "test")) == sizes
        assert book.crossing() == []
        assert len(EssenSongs(culture, notes=file).load().songs) == len(book.songs) - wrapped  # type: ignore[arg-type]
    assert len(EssenSongs(only="xiaodiao", wrapped="keep", notes=str(music / "essen_han.json.xz")).load().songs) == 655


def test_modes_and_metres_of_han_songs_are_those_of_the_collection(music: Path):
    """Traps 3 and 4: songs without a metre have none, and a song is in the mode that it ends on."""
    songs = EssenSongs(wrapped="keep", notes=str(music / "essen_han.json.xz")).load().songs
    assert sum(song.metre is None for song in songs) == 23
    modes = Counter(song.key.mode for song in songs if song.key is not None)
    shares = [modes[mode] / len(songs) for mode in ("zhi", "yu", "gong", "shang")]
    assert shares == pytest.approx([0.48, 0.22, 0.16, 0.11], abs=0.02)
    for song in songs:
        usual = 0 if song.metre is None else bar_ticks(song.metre)
        assert (song.position >= 0).all()
        assert (np.diff(song.bars) > 0).all()
        assert song.metre is None or song.bars[0] > song.onset[0] - usual


def test_songs_from_abc_alone_are_split_by_their_openings(music: Path):
    book = EssenSongs(notes=str(music / "essen_abc.zip")).load()
    assert book.account[0] == "1221 songs from essen_abc.zip, split by their openings"
    assert book.crossing() == []
    marked = {row["id"] for row in published(music, "han") if row.get("octave_wrap")}
    kept = {song.name for song in book.songs}
    assert len(kept & marked) < 0.15 * len(marked)
    with pytest.raises(DataError, match=r"no german songs \(erk, kinder\*\.abc\) in it"):
        EssenSongs("german", notes=str(music)).load()


def test_pop_songs_and_chorales_have_the_counts_of_their_sources(music: Path):
    book = Pop909Songs(file=str(music / "pop909_melody.json.xz")).load()
    assert len(book.songs) == 909
    assert book.crossing() == []
    pieces = Chorales(str(music / "jsb16_separated.json.xz")).load()
    assert {part: (len(own), sum(piece.size for piece in own)) for part, own in pieces.items()} == {
        "train": (229, 220_912), "valid": (76, 73_632), "test": (77, 75_600),
    }  # fmt: skip
    with pytest.raises(DataError, match="take the separated voices"):
        Chorales(str(music / "jsb16_sets.json.xz")).load()
    with pytest.raises(DataError, match="take jsb16_separated"):
        Chorales(str(music / "pop909_melody.json.xz")).load()
