"""The `fmri` command and the umbrella: the task is read from the config or the run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tasks.cli import main as umbrella
from tasks.experiment.config import experiment_class, overlay, resolve
from tasks.experiment.signatures import ConfigError
from tests.tasks.fmri.runs import toy_config, written

ROOT = Path(__file__).resolve().parents[3]


def fusion(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["fusion", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        umbrella()
    return int(end.value.code or 0)


def test_fusion_runs_and_reports_the_task_that_the_config_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert fusion(monkeypatch, "run", written(tmp_path, toy_config(tmp_path / "runs")), "--folds", "0", "--quiet") == 0
    run = tmp_path / "runs" / "fmri" / "toy"
    (run / "report.html").unlink()
    capsys.readouterr()
    assert fusion(monkeypatch, "report", run) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert "ShrinkageLDA on toy" in (run / "report.html").read_text()


def test_the_documented_study_resolves(tmp_path: Path):
    snippet = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "fmri.md").read_text(), re.DOTALL)
    assert snippet is not None
    (tmp_path / "study.yaml").write_text(snippet[1])
    tree = overlay([tmp_path / "study.yaml"])
    resolved = resolve(experiment_class(tree), tree)
    assert resolved["brains"]["init_args"]["lag"] == 5.0
    assert {"chance", "position", "ridge", "shrinkage LDA"} <= set(resolved["baselines"])


def test_the_lag_of_recordings_has_no_default(tmp_path: Path):
    tree = overlay(["_base/fmri_bids"], ["name=x", "brains.folder=BIDS"])
    with pytest.raises(ConfigError, match="lag"):
        resolve(experiment_class(tree), tree)


def test_a_config_of_no_known_task_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    config = written(tmp_path, toy_config(tmp_path / "runs", task="fmr"))
    assert fusion(monkeypatch, "run", config) == 2
    said = capsys.readouterr().err
    assert said.startswith("fusion: task: found 'fmr'; expected one of survival, fmri")
    assert "did you mean 'fmri'?" in said
