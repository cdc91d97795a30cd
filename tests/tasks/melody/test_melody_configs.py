"""Every shipped melody config says what its classes accept, and its rivals differ in the skeleton alone."""

from __future__ import annotations

import re

import pytest

from tasks.experiment.config import CONFIGS, experiment_class, overlay, resolve

SHIPPED = sorted(path.stem for path in (CONFIGS / "melody").glob("*.yaml"))
SONGS = [name for name in SHIPPED if "melody.yaml" in (CONFIGS / "melody" / f"{name}.yaml").read_text()]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_config_resolves_and_begins_with_its_command_and_its_expectation(name: str):
    tree = overlay([f"melody/{name}"])
    assert re.fullmatch(rf"{name}(_\w+)?", resolve(experiment_class(tree), tree)["name"])
    comments = [line for line in (CONFIGS / "melody" / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
    assert comments[0].startswith(f"# melody train -c melody/{name}")
    assert any(line.startswith("# Expected: ") for line in comments)


@pytest.mark.parametrize("name", [*SONGS, "small_tunes_gpu"])
def test_arms_differ_in_the_skeleton_alone(name: str):
    tree = overlay([f"melody/{name}"])
    resolved = resolve(experiment_class(tree), tree)
    own, *others = [resolved["model"], *resolved["rivals"].values()]
    assert [own["init_args"].pop("skeleton"), *(o["init_args"].pop("skeleton") for o in others)] == [
        "true", "shuffled", "none",
    ]  # fmt: skip
    assert all(other == own for other in others)
