"""Phrase boundaries: the programme against brute force, invariances, trees against scikit-learn, trivial rules."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError
from data.music.melody import Melody
from data.music.segmentation.cues import cues, local_change, parallelism
from data.music.segmentation.learned import LearnedSegmenter, fit_segmenter
from data.music.segmentation.programme import (
    GROUPER,
    TUNED,
    best_boundaries,
    gains,
    length_cost,
    phrase_numbers,
    programme,
    with_phrases,
)  # fmt: skip
from data.music.segmentation.rules import always, at_rests, lbdm, never
from data.music.segmentation.scoring import agreement
from data.music.segmentation.trees import fit_trees
from data.music.segmentation.window import windows
from data.music.songs import EssenSongs, GeneratedSongs, SongBook
from tests.data.music_files import melody


def drawn(seed: int, notes: int) -> Melody:
    """A melody without any plan, with rests."""
    draw = np.random.default_rng(seed)
    duration, rest = 6 * draw.integers(1, 9, notes), 6 * draw.integers(0, 4, notes)
    onset = np.cumsum(duration + rest) - duration - rest
    bars = np.arange(0, onset[-1] + 1, 48)
    return Melody(f"drawn-{seed}", onset, duration, draw.integers(55, 80, notes), bars, (2, 4))


@pytest.fixture(scope="module")
def book() -> SongBook:
    return GeneratedSongs(songs=60, wander=0.5, seed=3).load()


@pytest.mark.parametrize("weights", [*TUNED.values(), *GROUPER.values()])
@pytest.mark.parametrize("notes", [1, 2, 5, 9, 12])
def test_the_programme_finds_what_trying_every_segmentation_finds(notes: int, weights: object):
    song = drawn(notes, notes)
    gain, cost = gains(song, weights), length_cost(notes, weights)  # type: ignore[arg-type]

    def worth(boundaries: tuple[bool, ...]) -> float:
        lengths = np.bincount(phrase_numbers(np.array(boundaries, bool)))
        return float(gain[np.array(boundaries, bool)].sum() - cost[lengths - 1].sum())

    best = max(worth(choice) for choice in product((False, True), repeat=notes - 1))
    found = programme(song, weights)  # type: ignore[arg-type]
    assert worth(tuple(found.tolist())) == pytest.approx(best, abs=1e-9)


def test_no_phrase_is_longer_than_the_programme_may_make_it():
    found = best_boundaries(np.full(99, -5.0), np.zeros(10))
    assert np.bincount(phrase_numbers(found)).max() <= 10


@pytest.mark.parametrize("seed", range(5))
def test_key_and_tempo_do_not_matter(seed: int):
    song = drawn(seed, 40)
    higher = song.transposed(5)
    slower = replace(
        song, onset=2 * song.onset, duration=2 * song.duration, bars=2 * song.bars, metre=(2, 2)
    )  # fmt: skip
    for find in (programme, lbdm, at_rests, always, never):
        assert find(song).tolist() == find(higher).tolist() == find(slower).tolist()
    assert np.array_equal(windows(song), windows(higher), equal_nan=True)


def test_local_change_is_what_the_definition_says_by_hand():
    ioi, rest, interval = np.array([24, 24, 48]), np.array([0, 0, 12]), np.array([2, -2, 4])
    # Onsets: r = 0, 1/3 -> 24 * 0, 24 * 1/3, 48 * 1/3; pitch: r = 0, 1/3; rests: r = 0, 1.
    expected = 0.5 * np.array([0, 0.5, 1]) + 0.25 * np.array([0, 0.5, 1]) + 0.25 * np.array([0, 0, 1])
    assert local_change(ioi, rest, interval) == pytest.approx(expected)
    flat = np.zeros(4, int)
    assert local_change(flat + 24, flat, flat).tolist() == [0, 0, 0, 0]


def test_repetition_counts_grams_and_halves_those_that_do_not_open_the_song():
    ioi = np.full(12, 24)
    interval = np.array([1, 2, 3, 9, 1, 2, 3, 7, 7, 2, 3, 9])
    found = parallelism(ioi, interval)
    assert found[3] == pytest.approx(1 / 3)
    assert found[0] == found[8] == pytest.approx(1 / 6)
    assert found[[1, 9, 10, 11]].tolist() == [0, 0, 0, 0]


def test_a_single_note_has_no_place_for_a_boundary():
    song = drawn(0, 1)
    assert [len(find(song)) for find in (programme, lbdm, at_rests, always, never)] == [0] * 5
    assert len(cues(song).gap) == 0
    found = with_phrases(song, programme(song)).phrase
    assert found is not None
    assert found.tolist() == [0]


def test_agreement_counts_interiors_and_the_end_as_asked():
    found, marked = np.array([True, False, True, False]), np.array([True, True, False, False])
    assert agreement([(found, marked)]) == (0.5, 0.5, 0.5)
    assert agreement([(found, marked)], count_end=True) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    none = np.zeros(4, bool)
    assert agreement([(none, marked), (none, none)]) == (0, 0, 0)
    assert agreement([(none, none)], count_end=True) == (1, 1, 1)
    assert np.isnan(agreement([(none, none)]).f1)


def test_trees_say_what_scikit_learn_says(monkeypatch: pytest.MonkeyPatch):
    import sklearn.ensemble

    kept = {}

    class Watched(sklearn.ensemble.HistGradientBoostingClassifier):
        def fit(self, x: np.ndarray, y: np.ndarray) -> Watched:
            kept["model"] = self
            return super().fit(x, y)

    monkeypatch.setattr(sklearn.ensemble, "HistGradientBoostingClassifier", Watched)
    draw = np.random.default_rng(0)
    x = draw.normal(size=(800, 5))
    y = x[:, 0] * x[:, 1] + x[:, 2] > 0
    x[draw.random(x.shape) < 0.1] = np.nan
    trees = fit_trees(x, y, rounds=20)
    assert trees.log_odds(x) == pytest.approx(kept["model"].decision_function(x), abs=1e-12)


def test_a_learned_segmenter_finds_what_it_was_shown_and_survives_its_file(book: SongBook, tmp_path: Path):
    learned = fit_segmenter(book.part("train"), book.part("valid"), rounds=40)
    test = book.part("test")
    score = agreement((learned(song), song.interiors) for song in test).f1
    assert score > 0.95
    assert score > agreement((lbdm(song), song.interiors) for song in test).f1
    learned.save(tmp_path / "own.npz")
    again = LearnedSegmenter.load(tmp_path / "own.npz")
    for song in test:
        assert learned(song).tolist() == again(song).tolist() == again(song.transposed(1)).tolist()
    assert again(drawn(0, 1)).tolist() == []
    assert again(melody().with_phrases(None)).tolist() == again(melody()).tolist()


def test_a_song_too_long_for_the_trees_is_sent_to_the_programme(book: SongBook):
    learned = fit_segmenter(book.part("train")[:10], book.part("valid"), rounds=2)
    with pytest.raises(DataError, match="5001 notes, over 5000 for a learned segmenter; take the programme"):
        learned(drawn(0, 5001))
    assert len(programme(drawn(0, 5001))) == 5000


def test_what_is_no_trained_segmenter_is_refused(tmp_path: Path, book: SongBook):
    path = tmp_path / "own.npz"
    with pytest.raises(DataError, match=r"no trained segmenter \(.*\); train it again"):
        LearnedSegmenter.load(path)
    path.write_bytes(b"pickle")
    with pytest.raises(DataError, match="no trained segmenter"):
        LearnedSegmenter.load(path)
    np.savez(path, settings=[9.0, 0.0, 0.0, 1.0])
    with pytest.raises(DataError, match="of this version; train it again"):
        LearnedSegmenter.load(path)
    np.savez(path, settings=[1.0, 0.0, 0.0, 1.0], roots=[0])
    with pytest.raises(DataError, match="train it again"):
        LearnedSegmenter.load(path)
    np.savez(path, settings=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="no trained segmenter"):
        LearnedSegmenter.load(path)
    with pytest.raises(DataError, match="at least one of each"):
        fit_segmenter(book.part("train"), [])


@pytest.mark.parametrize(("culture", "least"), [("han", 0.69), ("german", 0.78)])
def test_the_programme_reaches_its_figure_on_real_songs(shared_data: Path, culture: str, least: float):
    file = str(shared_data / "music" / f"essen_{culture}.json.xz")
    songs = EssenSongs(culture, wrapped="keep", notes=file).load().part("test")  # type: ignore[arg-type]
    score = {
        name: agreement((find(song), song.interiors) for song in songs).f1
        for name, find in (("programme", lambda song: programme(song, TUNED[culture])), ("lbdm", lbdm))
    }
    assert score["programme"] >= least
    assert 0.5 < score["lbdm"] < 0.56
