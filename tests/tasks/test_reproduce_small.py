"""The small form of every paper runs from start to end on the real data, as a command, within its three minutes."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from tasks.catalogue import PAPERS
from tasks.reproduce.rows import Kind

SECONDS = 180.0
"""Of processor time, all processes together: then a machine that is free ends it in three minutes even with one core.
A clock on the wall would say what else the machine does."""
STUCK = 5 * SECONDS


@pytest.mark.slow
@pytest.mark.timeout(STUCK + 60)
@pytest.mark.parametrize("key", PAPERS)
def test_the_small_form_runs_and_ends_within_three_minutes(key: str, shared_data: Path, tmp_path: Path):
    home = tmp_path / "data"
    home.mkdir()
    for data in shared_data.iterdir():
        (home / data.name).symlink_to(data)
    command = [str(Path(sys.executable).with_name("fusion")), "reproduce", key, "--small", "--json", "--jobs", "2"]
    environment = {**os.environ, "FUSION_DATA": str(home), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=STUCK)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.returncode in (0, 1), ended.stderr[-2000:]
    found = json.loads(ended.stdout)
    assert found["paper"] == key
    assert found["ok"] == (ended.returncode == 0) == (found["held"] == found["claims"])
    assert {row["kind"] for row in found["rows"]} <= set(get_args(Kind))
    assert sum(row["kind"] != "none" for row in found["rows"]) == found["claims"] > 0
    assert all(row["low"] <= row["high"] for row in found["rows"] if row.get("low") is not None)
    assert [path.name for path in tmp_path.iterdir()] == ["data"], "a small form leaves no run"
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert spent < SECONDS, f"{key} --small took {spent:.0f} s of processor time"
