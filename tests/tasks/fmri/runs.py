"""Run `fmri` in this process, on toy brains or on simulated scans."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.fmri.cli import main

ARMS = {
    name: {"class_path": f"tasks.fmri.baselines.{name}"} for name in ("Chance", "Position", "Ridge", "ShrinkageLDA")
}


def toy_config(runs: Path, **over: Any) -> dict[str, Any]:
    """A config of toy brains; keys given replace those of the default."""
    return {
        "task": "fmri",
        "name": "toy",
        "runs": str(runs),
        "brains": {
            "class_path": "tests.tasks.fmri.toy.ToyBrains",
            "init_args": {"subjects": ["01", "02"], "affine": False},
        },
        "split": {"class_path": "LeaveRunsOut"},
        "model": ARMS["ShrinkageLDA"],
        "baselines": {"chance": ARMS["Chance"], "position": ARMS["Position"], "ridge": ARMS["Ridge"]},
        "controls": {"permutations": 50, "arm": "ridge"},
    } | over


def written(folder: Path, config: dict[str, Any]) -> Path:
    """The config as a file."""
    path = folder / f"{config['name']}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def fmri(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit code of a call of the command."""
    monkeypatch.setattr(sys, "argv", ["fmri", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)
