"""What `python -m kernels.tune` chooses and writes."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from kernels import tune
from kernels.ahead import Compiled
from kernels.tile_rows import Row
from kernels.tile_table import ROWS


def _reports(shared_of_64: int, shared_of_32: int, stack: int):  # type: ignore[no-untyped-def]
    def compiled(row: Row) -> list[Compiled]:
        shared = shared_of_64 if row.blocks[0] >= 64 else shared_of_32
        return [Compiled(row.kernel, arch, shared, 100, stack, False) for arch in (80, 90)]

    return compiled


def test_a_tile_beyond_shared_memory_is_never_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(tune, "compiled", _reports(200_000, 1000, stack=8))  # 200 kB fit sm_90, not sm_80
    found = tune.best("split_fwd", 16, 64)
    assert found.blocks[0] < 64
    assert found.note == "spills 8 B a thread: the width fills the registers"
    monkeypatch.setattr(tune, "compiled", _reports(200_000, 200_000, stack=0))
    with pytest.raises(RuntimeError, match="no tile of split_fwd with 16-bit numbers of width 64 fits"):
        tune.best("split_fwd", 16, 64)


def test_a_clean_row_stays_and_the_table_written_is_the_table_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "tile_table.py"
    table.write_text(tune.TABLE.read_text())
    monkeypatch.setattr(tune, "TABLE", table)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(tune, "compiled", _reports(1000, 1000, stack=0))
    assert tune.main(["split_fwd"]) == 0
    said = capsys.readouterr().out
    assert "no GPU: chosen by compiling only" in said
    assert f"wrote {len(ROWS)} rows" in said
    written = runpy.run_path(str(table))["ROWS"]
    assert set(written) == {row._replace(note="") if row.kernel == "split_fwd" else row for row in ROWS}
