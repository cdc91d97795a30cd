"""What the reproduction and the bench make of what they measured."""

from __future__ import annotations

import json
import lzma
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from data.music.song_files import read_json
from tasks.catalogue import BENCHES, PAPERS
from tasks.melody import bench
from tasks.melody.experiment import experiment_of
from tasks.melody.models.decoder import DecoderOptions
from tasks.melody.train import TASK
from tasks.reproduce import music_transformer as reproduction
from tasks.reproduce.length_generalisation import floor
from tasks.reproduce.music_transformer import (
    FILE,
    SMALLER,
    TABLES,
    WHOLE,
    WITHOUT,
    Learned,
    gap_rows,
    length_rows,
    relative_row,
    table_rows,
)
from tasks.reproduce.rows import at_most

TINY = DecoderOptions(width=8, layers=1, heads=2, feed_forward=8, reach=4)


def of(arm: str, valid: float, test: float = 0.5, seed: int = 1) -> Learned:
    """Two pieces of 10 and 30 tokens with that mean."""
    rows = [(split, n, n * value) for split, value in (("valid", valid), ("test", test)) for n in (10, 30)]
    return Learned(arm, seed, pd.DataFrame(rows, columns=["split", "n", "nats"]))


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
    assert (told["kind"], told["ok"]) == ("none", None)


def test_at_most_is_an_upper_bound():
    assert at_most("x", 1.0, 1.05, 0.1, "", kind="bar")["ok"]
    assert not at_most("x", 1.0, 1.15, 0.1, "", kind="bar")["ok"]
    assert not at_most("x", 1.0, float("nan"), 0.1, "", kind="bar")["ok"]


def test_smaller_networks_differ_in_size_alone():
    own, smaller = (experiment_of(TASK.resolved_config([name], ["let.epochs=3"])) for name in (WHOLE, SMALLER))
    assert list(smaller.models) == [smaller.name, WITHOUT, *TABLES]
    for a, b in ((own.model, smaller.model), (own.models[WITHOUT], smaller.models[WITHOUT])):
        assert (a.fitting, a.transpose, a.trainer) == (b.fitting, b.transpose, b.trainer)
        assert b.trainer.max_epochs == 3
        large, small = (model.build().decoder.options for model in (a, b))
        assert replace(large, width=128, layers=3, feed_forward=512) == small
    reaches = {arm: own.models[arm].build().decoder.options.reach for arm in [own.name, *own.rivals]}
    assert {arm for arm, reach in reaches.items() if reach is None} == {arm for arm in reaches if WITHOUT in arm}


def test_the_small_form_trains_measures_and_leaves_nothing(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pieces = read_json(shared_data / "music" / FILE)
    few = {part: [piece[:32] for piece in pieces[part][:4]] for part in ("train", "valid", "test")}
    (tmp_path / FILE).write_bytes(lzma.compress(json.dumps(few).encode()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduction, "SMALL_EPOCHS", 1)
    monkeypatch.setattr(reproduction, "length_rows", lambda seeds, workers: [])
    rows = reproduction.run(tmp_path, small=True)["rows"]
    assert [row["name"] for row in rows] == [
        "back-off table, valid", "back-off table, test", "3 layers of 128, relative, valid",
    ]  # fmt: skip
    assert "continue a repeat" in rows[2]["note"]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_length_rows_say_the_floor(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tasks.reproduce.length_generalisation.trained", lambda relative, seed: relative)
    monkeypatch.setattr(
        "tasks.reproduce.length_generalisation.nats",
        lambda relative, length, seed: 0.58 if relative or length == 96 else 1.9,
    )
    relative, waves = length_rows([0, 1])
    assert relative["ok"]
    assert waves["ok"]
    assert f"floor {floor():.3f}" in relative["note"]


def test_the_bench_draws_the_same_symbols_with_and_without_a_cache():
    pytest.importorskip("transformers")
    whole, peer = bench.decoding(12, TINY, repeats=1)
    assert whole["note"] == "the same symbols"
    assert "generate" in peer["peer"]
    for row in (whole, peer):
        assert row["ratio"] == pytest.approx(row["ours_s"] / row["peer_s"], rel=0.05, abs=1e-3)


def test_a_missing_peer_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "gpt2", lambda size, length: None)
    assert "pip install 'multimodal-fusion[transformers]'" in bench.decoding(4, TINY, repeats=1)[0]["note"]


def test_both_can_be_named():
    assert BENCHES["melody"] == "tasks.melody.bench"
    assert PAPERS["music-transformer"].needs == "music"
