"""Every shipped retrieval config says what its classes accept, and the one that needs no data trains."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks.experiment.config import CONFIGS, build, experiment_class, overlay, resolve
from tasks.retrieval.unit import run

SHIPPED = sorted(path.stem for path in (CONFIGS / "retrieval").glob("*.yaml"))
SMALL = ("pairs.scenes=120", "trainer.max_epochs=1", "fit.batch_size=16", "trainer.accelerator=cpu")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_config_resolves_and_stands_beside_the_pooled_vectors(name: str):
    tree = overlay([f"retrieval/{name}"])
    resolved = resolve(experiment_class(tree), tree)
    assert re.fullmatch(rf"{name}(_\w+)?", resolved["name"])
    scored = [resolved["objective"], *resolved["rivals"].values()]
    assert {one["class_path"].rpartition(".")[2] for one in scored} >= {"GlobalContrast", "TokenContrast"}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_config_begins_with_its_command_and_its_expectation(name: str):
    comments = [line for line in (CONFIGS / "retrieval" / f"{name}.yaml").read_text().splitlines() if line[0] == "#"]
    assert comments[0].startswith(f"# retrieval train -c retrieval/{name}")
    assert any(line.startswith("# Expected: ") for line in comments)


def test_the_generated_scenes_train(tmp_path: Path):
    tree = overlay(["retrieval/scenes"], SMALL)
    cls = experiment_class(tree)
    config = resolve(cls, tree)
    experiment = build(cls, config)
    assert list(experiment.objectives) == ["scenes", "global (CLIP)", "tokens (FILIP)"]
    unit = tmp_path / "scenes" / "fold0-seed1"
    facts = run(unit, config, "scenes", 0, 1)
    assert facts["score"] == "both"
    assert (unit / "queries.csv").is_file()
