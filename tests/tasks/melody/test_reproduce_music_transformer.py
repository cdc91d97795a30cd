"""What the reproduction and the bench make of what they measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.catalogue import BENCHES, PAPERS
from tasks.melody import bench
from tasks.melody.model import Measurement
from tasks.melody.models.decoder import DecoderOptions
from tasks.reproduce.length_generalisation import floor
from tasks.reproduce.music_transformer import (
    SMALLER,
    WITHOUT,
    Learned,
    experiment,
    gap_rows,
    length_rows,
    relative_row,
    table_rows,
)
from tasks.reproduce.rows import at_most

TINY = DecoderOptions(width=8, layers=1, heads=2, feed_forward=8, reach=4)


def of(arm: str, valid: float, test: float = 0.5, seed: int = 1) -> Learned:
    """Two pieces of 10 and 30 tokens with that mean."""
    measured = {
        split: [Measurement(split, f"{split}-{at}", "token", n, n / 4, n * value) for at, n in enumerate((10, 30))]
        for split, value in (("valid", valid), ("test", test))
    }
    return Learned(arm, seed, measured)


def test_the_mean_is_over_tokens():
    assert of("a", 0.41).value("valid") == pytest.approx(0.41)


def test_the_table_must_be_the_one_measured_before():
    rows = list(table_rows([of("table", 0.5775, 0.5975), of("other", 0.55, 0.57)]))
    assert [row["ok"] for row in rows] == [True, True]
    assert not all(row["ok"] for row in table_rows([of("table", 0.55, 0.5975), of("other", 0.55)]))


def test_bars_and_gaps_hold_by_what_was_measured():
    found = [of("own", 0.42, seed=s) for s in (1, 2)] + [of(WITHOUT, 0.47, seed=1), of(WITHOUT, 0.46, seed=2)]
    relative, (gap,) = relative_row(found, "own", "", 0.43, ""), gap_rows(found, "own", "")
    assert (relative["ours"], gap["ours"]) == (pytest.approx(0.42), pytest.approx(0.045))
    assert relative["ok"]
    assert gap["ok"]
    assert "seeds" not in relative["name"]
    assert "gaps by seed 0.050 0.040" in gap["note"]
    poor = [of("own", 0.44), of(WITHOUT, 0.45)]
    assert not relative_row(poor, "own", "", 0.43, "")["ok"]
    assert not next(gap_rows(poor, "own", ""))["ok"]


def test_networks_that_are_told_the_metre_stand_beside_their_own():
    found = [
        of("own", 0.41),
        of(WITHOUT, 0.46),
        of("told the metre", 0.40),
        of("told the metre, no relative term", 0.405),
    ]
    rows = {row["name"]: row for row in gap_rows(found, "own", "")}
    told = rows["told the metre, no relative term, valid above relative"]
    assert told["ours"] == pytest.approx(0.005)
    assert "reported as it falls" in told["note"]


def test_at_most_is_an_upper_bound():
    assert at_most("x", 1.0, 1.05, 0.1, "")["ok"]
    assert not at_most("x", 1.0, 1.15, 0.1, "")["ok"]
    assert not at_most("x", 1.0, float("nan"), 0.1, "")["ok"]


def test_smaller_networks_differ_in_size_alone():
    own, smaller = (experiment(Path("chorales.json"), sizes) for sizes in ({}, {**SMALLER, "epochs": 3}))
    assert list(own.models) == list(smaller.models)
    for arm in [own.name, *own.rivals]:
        a, b = own.models[arm], smaller.models[arm]
        assert (a.fitting, a.transpose) == (b.fitting, b.transpose)
        assert b.trainer.max_epochs == 3
        assert b.build().decoder.options.width == SMALLER["width"]
    reaches = {arm: own.models[arm].build().decoder.options.reach for arm in [own.name, *own.rivals]}
    assert {arm for arm, reach in reaches.items() if reach is None} == {arm for arm in reaches if WITHOUT in arm}


def test_length_rows_say_the_floor(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tasks.reproduce.music_transformer.trained", lambda relative, seed: relative)
    monkeypatch.setattr(
        "tasks.reproduce.music_transformer.nats_at",
        lambda relative, length, seed: 0.58 if relative or length == 96 else 1.9,
    )
    relative, waves = length_rows([0, 1])
    assert relative["ok"]
    assert waves["ok"]
    assert f"floor {floor():.3f}" in relative["note"]


def test_the_bench_draws_the_same_symbols_with_and_without_a_cache():
    pytest.importorskip("transformers")
    row = bench.decoding(12, TINY, repeats=1)
    assert row["same_symbols"]
    assert row["times_whole_forward"] > 0
    assert row["times_peer"] > 0


def test_a_missing_peer_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "gpt2", lambda size, length: None)
    assert "pip install 'multimodal-fusion[transformers]'" in bench.decoding(4, TINY, repeats=1)["note"]


def test_both_can_be_named():
    assert BENCHES["melody"] == "tasks.melody.bench"
    assert PAPERS["music-transformer"].needs == "music"
