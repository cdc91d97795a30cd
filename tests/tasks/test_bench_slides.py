"""The slide bench: real slides where they have been imported, and rows as promised."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.slides.generated import stained, write_slide
from tasks.survival import bench_slides


def test_imported_slides_are_measured_and_absent_ones_are_not_missed(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[list[str]] = []

    def measure(case: bench_slides.Case) -> list[dict[str, object]]:
        asked[-1].append(case.name)
        return []

    monkeypatch.setattr(bench_slides, "_measure", measure)
    monkeypatch.setattr(bench_slides, "_blank_heavy", lambda place: [])
    for home in (shared_data, tmp_path):
        monkeypatch.setenv("FUSION_DATA", str(home))
        asked.append([])
        bench_slides.run()
    assert set(asked[0]) - set(asked[1]) == {"CMU-1-Small-Region", "TCGA-CR-7395-01A-01-TS1"}
    assert len(asked[1]) == 2


def test_a_row_holds_both_times_and_their_ratio(tmp_path: Path):
    slide = write_slide(tmp_path / "a.svs", stained(700, 600), (1.0, 4.0), 0.5, compression="jpeg")
    rows = bench_slides._measure(bench_slides.Case("small", slide, 0.5))
    assert [row["case"] for row in rows] == ["small, 4 patches, pixels", "small, 4 patches, StainTexture"]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["ours_s"] / row["peer_s"], rel=0.3)
        assert row["peak_mb"] > 0
