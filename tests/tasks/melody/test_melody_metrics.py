"""What generated songs are judged by: each measure on cases whose answer is known, and the Markov floor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError
from data.music.melody import Melody
from data.simulate.melodies import GeneratedSongs
from tasks.experiment.compare import resample
from tasks.melody.markov import Markov, Table
from tasks.melody.metrics import (
    bar_similarity,
    copied_runs,
    overlapped_area,
    pace,
    pitch_classes,
    similarity_curve,
    structure_error,
)
from tasks.melody.rules import Rules, Sampling
from tests.tasks.melody.tunes import songs

SAMPLING, RULES = Sampling(), Rules()


def test_a_feature_of_each_song():
    song = songs(1)[0]
    assert pitch_classes(song).sum() == pytest.approx(1)
    assert pitch_classes(song.transposed(3)).tolist() == np.roll(pitch_classes(song), 3).tolist()
    assert pace(song)[0] == pytest.approx((song.onset[-1] - song.onset[0]) / 24 / (len(song) - 1))


def test_the_overlapped_area_is_one_of_the_same_songs_and_none_of_far_ones():
    random = np.random.default_rng(0)
    real, same, far = random.normal(size=(3, 80, 4))
    assert overlapped_area(same, real)[0] > 0.95
    assert overlapped_area(far + 50, real)[0] < 0.01
    assert overlapped_area(np.ones((5, 2)), np.ones((4, 2)))[0] == 1


def test_a_resample_of_whole_songs_is_their_area():
    random = np.random.default_rng(1)
    real, ours = random.normal(size=(2, 30, 2))
    counts = resample(30, 20)
    drawn = overlapped_area(ours, real, counts, counts)
    assert drawn.shape == (21,)
    assert drawn[0] == overlapped_area(ours, real)[0]
    assert drawn[1:].std() > 0


def test_bars_that_return_are_alike():
    bar = [(0, 24, 60), (24, 24, 62)]
    notes = np.array([(onset + 48 * at, long, pitch) for at in range(4) for onset, long, pitch in bar])
    song = Melody("s", *notes.T, bars=np.arange(0, 192, 48), metre=(2, 4))
    sums, counts = bar_similarity(song)
    assert sums[:3].tolist() == counts[:3].tolist() == [3, 2, 1]
    other = replace(song, pitch=song.pitch + np.arange(8))
    assert bar_similarity(other)[0].sum() == 0
    curve = similarity_curve([song])
    assert np.nanmax(structure_error(curve, curve)) == 0
    assert structure_error(curve, similarity_curve([other]))[0] == 1


def test_the_longest_copied_run_is_the_one_by_brute_force():
    corpus, own = songs(12, seed=1), songs(6, seed=2)

    def steps(song: Melody) -> list[tuple[int, int]]:
        return list(zip(np.diff(song.pitch).tolist(), np.diff(song.onset).tolist(), strict=True))

    def longest(song: Melody) -> int:
        known = [steps(other) for other in corpus]
        mine = steps(song)
        best = 0
        for length in range(1, len(mine) + 1):
            runs = {tuple(other[at : at + length]) for other in known for at in range(len(other) - length + 1)}
            if any(tuple(mine[at : at + length]) in runs for at in range(len(mine) - length + 1)):
                best = length
        return best + 1

    assert copied_runs(own, corpus).tolist() == [longest(song) for song in own]
    assert copied_runs([corpus[0].transposed(4)], corpus).tolist() == [len(corpus[0])]


def test_a_tables_shares_are_those_of_witten_and_bell():
    table = Table(1, [["a", "a", "b"], ["a", "c"]])
    assert table.shares(["a"]).sum() == pytest.approx(1)
    # 'a' was followed by a, b and c once each; the shares without context are (3, 1, 1) of 5, mixed with a third.
    alone = [(3 + 3 / 3) / 8, (1 + 3 / 3) / 8, (1 + 3 / 3) / 8]
    assert table.shares(["a"]).tolist() == pytest.approx([(1 + 3 * share) / 6 for share in alone])
    assert table.nats(["a", "z"])[1] > table.nats(["a", "b"])[1]


def test_markov_learns_measures_and_fills_a_frame(tmp_path: Path):
    book = GeneratedSongs(60).load()
    model = Markov()
    model.fit(book, tmp_path, 0)
    rows = {row.part: row for row in model.measure(book, "test")}
    assert rows["note"].nats == pytest.approx(rows["pitch"].nats + rows["rhythm"].nats)
    longer = Markov(0)
    longer.load(tmp_path)
    assert sum(row.nats for row in model.measure(book, "test")) < sum(row.nats for row in longer.measure(book, "test"))
    tunes = book.part("test")
    for one, song in zip(model.compose(model.frames(tunes), SAMPLING, RULES), tunes, strict=True):
        assert one.melody.metre == song.metre
        assert one.melody.end <= song.bars[-1] + 48


def test_markov_refuses_chorales(tmp_path: Path):
    with pytest.raises(DataError, match="Markov: learns from songs, and this music has none"):
        Markov().fit({"train": []}, tmp_path, 0)
