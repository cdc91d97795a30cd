"""Structural notes: subset, transposition, phrase ends, the rules by hand in several metres, tonal distance."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError
from data.music.key import Key
from data.music.melody import Melody, Metre
from data.music.segmentation.programme import programme, with_phrases
from data.music.skeleton import roles, skeleton, strong_beats, tonal_distance, tonal_skeleton
from data.music.songs import EssenSongs, GeneratedSongs, Pop909Songs


def line(durations: list[int], metre: Metre = (2, 4), pitch: list[int] | None = None, **other: object) -> Melody:
    duration = np.array(durations)
    onset = np.cumsum(duration) - duration
    length = 96 * metre[0] // metre[1]
    bars = np.arange(0, int(duration.sum()), length)
    notes = np.array(pitch or [60] * len(duration))
    return Melody("x", onset, duration, notes, bars, metre, phrase=np.zeros(len(duration), int), **other)  # type: ignore[arg-type]


@pytest.mark.parametrize("rho", [0.05, 0.3, 0.5, 1.0])
def test_every_phrase_keeps_its_share_and_its_last_note(rho: float):
    for song in GeneratedSongs(songs=8, seed=2).load().songs:
        kept = skeleton(song, rho)
        assert song.phrase is not None
        for phrase in range(int(song.phrase.max()) + 1):
            inside = np.flatnonzero(song.phrase == phrase)
            usable = song.duration[inside] >= 6
            assert kept[inside].sum() == min(math.ceil(rho * len(inside)), usable.sum())
            assert kept[inside[-1]]


def test_transposition_does_not_matter():
    for song in GeneratedSongs(songs=8, seed=5).load().songs:
        for by in (1, 5, -7):
            assert skeleton(song).tolist() == skeleton(song.transposed(by)).tolist()
            assert tonal_skeleton(song).tolist() == tonal_skeleton(song.transposed(by)).tolist()
        unkeyed = replace(song, key=None)
        assert skeleton(unkeyed).tolist() == skeleton(unkeyed.transposed(3)).tolist()


def test_more_notes_contain_the_fewer():
    song = GeneratedSongs(songs=1).load().songs[0]
    few, many = skeleton(song, 0.2), skeleton(song, 0.6)
    assert (few <= many).all()
    assert few.sum() < many.sum() < len(song)


def test_short_notes_are_taken_only_to_end_a_phrase():
    song = line([24, 3, 21, 24, 21, 3])
    assert skeleton(song, 1.0).tolist() == [True, False, True, True, True, True]


@pytest.mark.parametrize(
    ("metre", "beats"),
    [
        ((2, 4), (0,)), ((3, 4), (0,)), ((3, 8), (0,)), ((4, 4), (0, 48)), ((6, 8), (0, 36)), ((4, 8), (0, 24)),
        ((9, 8), (0, 36, 72)), ((12, 8), (0, 72)), ((5, 4), (0,)), ((3, 2), (0,)), (None, (0,)),
    ],
)  # fmt: skip
def test_strong_beats_of_every_metre(metre: Metre | None, beats: tuple[int, ...]):
    assert strong_beats(metre) == beats


def test_syncopations_sound_past_the_next_stronger_point():
    # Quarter, half from beat 2 over beat 3, quarter: only the half is syncopated.
    assert roles(line([24, 48, 24], (4, 4))).sync.tolist() == [False, True, False]
    # Eighth, quarter, eighth: the quarter.
    assert roles(line([12, 24, 12])).sync.tolist() == [False, True, False]
    # 6/8: an eighth and a quarter fill a half; an eighth and a dotted quarter do not.
    assert roles(line([12, 24, 36], (6, 8))).sync.tolist() == [False, False, False]
    assert roles(line([12, 36, 24], (6, 8))).sync.tolist() == [False, True, False]


def test_a_strong_note_gives_way_to_a_syncopation_soon_after():
    own = roles(line([12, 24, 12, 48]))
    assert own.down.tolist() == [False, False, False, True]
    assert own.rhythmic.tolist() == [False, True, False, True]
    # Three 16ths later is late enough.
    later = roles(line([18, 18, 12]))
    assert later.down.tolist() == [True, False, False]


def test_the_longest_note_of_a_bar_and_turning_points():
    assert roles(line([12, 24, 12, 24, 24])).long.tolist() == [False, True, False, False, False]
    own = roles(line([12] * 8, pitch=[60, 62, 62, 59, 57, 57, 60, 60]))
    assert own.extreme.tolist() == [False, True, False, False, True, False, False, False]
    keyed = roles(line([24, 24], pitch=[62, 67], key=Key.parse("D:zhi")))
    assert keyed.stable.tolist() == [True, True]


def test_tonal_distance_prefers_the_triad_and_moves_with_the_key():
    major = tonal_distance(Key.parse("C:maj"))
    assert set(np.argsort(major)[:3].tolist()) == {0, 4, 7}
    assert major[0] == major.min() or major[0] < major[4]
    for by in range(12):
        assert np.roll(major, by) == pytest.approx(tonal_distance(Key(by)))
    minor = tonal_distance(Key.parse("A:min"))
    assert set(np.argsort(minor)[:2].tolist()) <= {9, 0, 4}
    song = line([12] * 8, pitch=[61, 60, 66, 67, 66, 61, 65, 66], key=Key.parse("C"))
    assert tonal_skeleton(song).sum() == 2
    with pytest.raises(DataError, match="its key is unknown; name one"):
        tonal_skeleton(replace(song, key=None))


def test_what_cannot_be_ranked_is_refused():
    song = line([24, 24])
    for rho in (0.0, 1.1, -1.0):
        with pytest.raises(DataError, match="a share of the notes over 0, at most 1"):
            skeleton(song, rho)
    with pytest.raises(DataError, match="its phrases are unknown; segment it first"):
        skeleton(song.with_phrases(None))


def test_real_songs_have_the_shares_that_were_measured_before(shared_data: Path):
    """Shares of long, syncopated and rhythmic notes, by other code on the kern edition, in per cent."""
    han = EssenSongs(wrapped="keep", notes=str(shared_data / "music" / "essen_han.json.xz")).load().songs
    pop = Pop909Songs(file=str(shared_data / "music" / "pop909_melody.json.xz")).load().songs
    for songs, long, sync, rhythmic in (
        ([song for song in han if song.metre == (2, 4)], 18.2, 3.0, 28.1),
        ([song for song in han if song.metre == (4, 4)], 15.0, 3.9, 31.4),
        (pop[::5], 15.4, 13.7, 29.4),
    ):
        own = [roles(song) for song in songs]
        notes = sum(len(song) for song in songs)
        shares = [100 * sum(int(part.sum()) for part in parts) / notes for parts in (
            [one.long for one in own], [one.sync for one in own], [one.rhythmic for one in own])]  # fmt: skip
        assert shares == pytest.approx([long, sync, rhythmic], abs=1.5)


def test_the_laws_hold_on_real_songs(shared_data: Path):
    songs = EssenSongs("german", notes=str(shared_data / "music" / "essen_german.json.xz")).load().songs[::25]
    for song in songs:
        found = with_phrases(song, programme(song))
        for own in (song, found):
            kept = skeleton(own)
            assert kept[np.r_[own.interiors, True]].all()
            assert kept.tolist() == skeleton(own.transposed(2)).tolist()
