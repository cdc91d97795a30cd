"""Every example is short, runs as it is, and does what it says."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from tasks.experiment import config

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SAYS = {
    "own_cohort": "report: own/runs/survival/own/report.html",
    "add_encoder": "report: own/runs/retrieval/colour_grid/report.html",
    "add_operator": "dense at sharpness 1; its gradient is",
    "add_paper": '"ok": true',
    "add_task": "last value/fold2-seed2",
}


def code_of(script: Path) -> int:
    """Run a script as `python SCRIPT` would."""
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_five_examples_are_there_and_short():
    lengths = {path.stem: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert lengths.keys() == SAYS.keys()
    assert max(lengths.values()) < 60, lengths


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs_from_an_empty_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    monkeypatch.setattr(config, "TASKS", dict(config.TASKS))
    code = code_of(EXAMPLES / f"{name}.py")
    sys.modules.pop(name, None)
    assert code == 0, capsys.readouterr().err
    assert SAYS[name] in capsys.readouterr().out


def test_an_examples_first_lines_say_how_to_run_it():
    for path in EXAMPLES.glob("*.py"):
        assert f"python examples/{path.name}" in path.read_text().splitlines()[2]


def test_the_result_of_the_paper_is_what_reproduce_prints(capsys: pytest.CaptureFixture[str]):
    runpy.run_path(str(EXAMPLES / "add_paper.py"), run_name="__main__")
    said = json.loads(capsys.readouterr().out)
    assert said.keys() == {"paper", "ok", "held", "claims", "rows"}
    assert all(row["note"] for row in said["rows"])
