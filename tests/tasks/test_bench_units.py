"""The bench of units measures what it says, on units that are over at once."""

from __future__ import annotations

import time

import pytest

from tasks import bench_growth
from tasks.bench_growth import cpu_seconds
from tasks.experiment.bench_units import WANTED, measure


@pytest.mark.cluster
@pytest.mark.parametrize("engine", WANTED)
def test_a_row_says_what_workers_did_beside_their_units(engine: str):
    row = measure(engine, 0.1, True, 3)
    assert row["peer_s"] >= 0.15, "of two workers each"
    assert row["overhead_s"] == pytest.approx(2 * (row["ours_s"] - row["peer_s"]) / 3, abs=0.02)
    assert row["case"] == f"{engine}: 3 units of 0.1 s, computing"


def test_sleep_is_no_processor_time():
    assert cpu_seconds(lambda: time.sleep(0.05)) < 0.04


def test_growth_is_beside_the_row_before_and_says_whose_seconds(monkeypatch: pytest.MonkeyPatch):
    measured = ("patients", "patches", "subjects", "folds", "workers")
    for name in measured:
        monkeypatch.setattr(bench_growth, name, lambda: [("one", 2.0), ("two", 3.0)])
    rows = bench_growth.run()["rows"]
    assert [(row["grows"], row["case"]) for row in rows] == [
        (name, case) for name in measured for case in ("one", "two")
    ]
    assert [row["beside the row before"] for row in rows] == [None, 1.5] * 5
    assert {row["grows"] for row in rows if row["wall_s"] is not None} == {"workers"}
    assert [row["cpu_s"] for row in rows] == [2.0, 3.0] * 4 + [None, None]
