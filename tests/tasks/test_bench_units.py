"""The bench of units measures what it says, on units that are over at once."""

from __future__ import annotations

import time

import pytest

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
