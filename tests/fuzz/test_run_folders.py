"""Run folders whose config somebody changed: every task's report is written, or refused in one line."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from tasks.experiment.config import TASKS
from tasks.experiment.task import task_named, task_of
from tests.fuzz.damage import files, trees
from tests.fuzz.tried import Tried, law


@lru_cache
def stored(task: str) -> dict[str, Any]:
    """What a run of a task keeps."""
    return {"task": task, **task_named(task).resolved_config([f"{task}/demo"], [])}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a unit that failed and one that is open, which every task has in common."""
    folder = tmp_path_factory.mktemp("run")
    for unit in ("a/fold0-seed1", "b/fold1-seed1"):
        (folder / unit).mkdir(parents=True)
    (folder / "a/fold0-seed1/error.txt").write_text("it failed")
    return folder


@pytest.mark.parametrize("task", TASKS)
@law(data=st.data())
def test_reports_of_changed_configs(data: st.DataObject, task: str, run: Path, tried: Tried):
    tree = data.draw(trees(stored(task)))
    (run / "config.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True))
    tried(task_named(task).report, run)


@law(data=st.data())
def test_reports_of_damaged_configs(data: st.DataObject, run: Path, tried: Tried):
    good = [yaml.safe_dump(stored(task), sort_keys=False).encode() for task in TASKS]
    (run / "config.yaml").write_bytes(data.draw(files(good)))
    tried(lambda: task_of(run).report(run))
