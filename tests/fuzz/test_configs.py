"""Config files, overrides and tables of the program's own folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from tasks.experiment.config import CONFIGS, experiment_class, overlay, overlay_values, resolve
from tests.fuzz.damage import ODD_TEXT, ODD_VALUES, files, trees
from tests.fuzz.tried import Tried, law

SHIPPED = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "_base")
GOOD = [path.read_bytes().replace(b"../_base", str(CONFIGS / "_base").encode()) for path in SHIPPED]
SMALL = [
    {"extends": ["retrieval/captions"], "fit": {"batch_size": 16}, "rivals": {"other": "HybridContrast"}},
    {"extends": ["fmri/simulated"], "split": {"class_path": "RunFolds", "init_args": {"folds": 4}}},
    {
        "extends": ["survival/snn"],
        "trainer": {"max_epochs": 3},
        "model": {"class_path": "SNN"},
        "loss": {"init_args": {}},
    },
]
KEYS = [
    "trainer.max_epochs",
    "model",
    "model.size",
    "cohort.folds",
    "let.study",
    "loss.bins",
    "name",
    "extends",
    "task",
]


def resolved(path: Path, *overrides: str) -> Any:
    tree = overlay([path], overrides)
    return resolve(experiment_class(tree), tree)


@law(content=files(GOOD))
def test_damaged_configs(content: bytes, tmp_path_factory: pytest.TempPathFactory, tried: Tried):
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_bytes(content)
    tried(overlay, [path])


@law(tree=st.sampled_from(SMALL).flatmap(trees))
def test_configs_of_other_values(tree: Any, tmp_path_factory: pytest.TempPathFactory, tried: Tried):
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    tried(resolved, path)


@law(key=st.sampled_from(KEYS) | ODD_TEXT, value=ODD_VALUES.map(lambda v: json.dumps(v)) | ODD_TEXT)
def test_overrides(key: str, value: str, tried: Tried):
    tree = overlay(["survival/cmta"])
    tried(overlay_values, tree, [f"{key}={value}"])
