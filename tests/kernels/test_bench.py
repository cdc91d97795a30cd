"""The bench, the timing under it, and the tile table."""

from __future__ import annotations

import json
import time

import pytest
import torch

from kernels import bench
from kernels.bench_cases import CASES, per_item_loop
from kernels.max_similarity import max_similarity
from kernels.tile_rows import tile_row
from kernels.tile_table import ROWS
from kernels.timing import interleaved, usage


def _holding(mb: int):  # type: ignore[no-untyped-def]
    return lambda: torch.ones(mb * 2**18)


def _failing(mb: int):  # type: ignore[no-untyped-def]
    raise SystemExit(3)


def test_peak_memory_is_what_the_call_holds() -> None:
    assert 190 < usage(_holding, 200, threads=1).peak_mb < 260


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_measured_process_that_dies_is_reported() -> None:
    with pytest.raises(RuntimeError, match=r"_failing\(1,\) ended with exit code 3"):
        usage(_failing, 1, threads=1)


def test_interleaved_keeps_the_best_of_each_and_their_order() -> None:
    found = interleaved({"slow": lambda: time.sleep(0.05), "fast": lambda: None}, repeats=2)
    assert found["slow"] > 0.04 > found["fast"]


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.device == "cpu" and case.bytes <= 1e8],
    ids=lambda case: f"{case.op} {case.name}",
)
def test_every_case_has_ours_and_a_peer(case) -> None:  # type: ignore[no-untyped-def]
    calls = case.make()
    assert next(iter(calls)) == "ours"
    assert len(calls) > 1


def test_the_loop_that_is_our_peer_computes_the_same(rng: torch.Generator) -> None:
    x, y = torch.randn(5, 8, 16, generator=rng), torch.randn(7, 4, 16, generator=rng)
    for ours, theirs in zip(max_similarity(x, y), per_item_loop(x, y), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_report_is_json_and_unmeasured_cases_say_so(monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    small = tuple(case for case in CASES if "decode step" in case.name)
    monkeypatch.setattr(bench, "CASES", small)
    monkeypatch.setattr(bench, "usage", lambda *_: usage(_holding, 1, threads=1))
    assert bench.main(["relative_attention", "--all", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"bench", "device", "versions", "rows"}
    assert {"case", "ours_s", "peer", "peer_s", "ratio", "peak_mb"} <= set(report["rows"][0])
    assert report["rows"][0]["ratio"] == report["rows"][0]["ours_s"] / report["rows"][0]["peer_s"]
    if not torch.cuda.is_available():
        assert report["rows"][1]["ours_s"] is None
        assert "not measured" in bench.line(report["rows"][1])


def test_the_tile_table_serves_every_width_and_type() -> None:
    for kernel in {row.kernel for row in ROWS}:
        for bits in (16, 32):
            widths = [tile_row(kernel, bits, width).width for width in (8, 64, 65, 128, 200, 256)]
            assert widths == [64, 64, 128, 128, 256, 256]
    with pytest.raises(ValueError, match="no row for relative_fwd with 16-bit numbers of width 300"):
        tile_row("relative_fwd", 16, 300)
