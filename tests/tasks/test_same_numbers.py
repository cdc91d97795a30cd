"""The same seed gives the same files: twice in this process, in two processes, and by workers of a Dask cluster."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from distributed import LocalCluster

from tasks.experiment.task import task_named

OPTIONS = {
    "survival": "cohort.patients=40 cohort.patches=4 cohort.width=8 cohort.folds=2 trainer.max_epochs=2",
    "melody": "music.songs=24 let.sizes.width=16 let.trainer.max_epochs=1 judged.songs=3 judged.shown=1",
    "fmri": "brains.subjects=4 brains.classes=4 brains.runs=4 split.samples=4 controls.permutations=20",
    "retrieval": "pairs.scenes=80 left.width=16 left.depth=1 right.width=16 right.depth=1 towers.width=16 "
    "towers.hidden=16 fit.batch_size=16 trainer.max_epochs=2",
}
OWN_TO_A_RUN = {"log.txt", "done.json"}
"""When a unit ran and for how long."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", protocol="tcp") as workers:
        yield workers.scheduler_address


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alone")


def left(task: str, runs: Path, jobs: int = 1, engine: str | None = None) -> dict[str, str]:
    """File of a unit -> digest of its content, of a small run; and of what `done.json` says but the seconds."""
    run = runs / task / "small"
    kind = task_named(task)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(kind), "finish", lambda *_: None)  # made of these files
        chosen = [*OPTIONS[task].split(), "name=small", f"runs={runs}"]
        assert kind.train([f"{task}/demo"], chosen, [0], [1, 2], jobs, engine) == 0
    files = {path for path in run.glob("*/*/**/*") if path.is_file()}
    found = {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in OWN_TO_A_RUN
    }
    for path in run.glob("*/*/done.json"):
        said = json.loads(path.read_text())
        found[str(path.relative_to(run))] = str({key: said[key] for key in said if key != "seconds"})
    return found


@pytest.fixture(scope="module", params=OPTIONS)
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def files(task: str, alone: Path) -> dict[str, str]:
    return left(task, alone)


def test_the_same_seed_twice_is_the_same_run(task: str, files: dict[str, str], tmp_path: Path):
    assert len({name.split("/")[0] for name in files}) >= 3, "several arms"
    assert any(name.endswith(".pt") for name in files) or task == "fmri", "weights are compared too"
    weights = [
        {content for name, content in files.items() if f"seed{seed}/" in name and name.endswith(".pt")}
        for seed in (1, 2)
    ]
    assert not weights[0] & weights[1], "another seed is another training"
    torch.manual_seed(999)
    assert left(task, tmp_path) == files


def test_two_processes_are_one(task: str, files: dict[str, str], tmp_path: Path):
    assert left(task, tmp_path, jobs=2) == files


@pytest.mark.cluster
def test_a_cluster_is_one_process(task: str, files: dict[str, str], tmp_path: Path, cluster: str):
    assert left(task, tmp_path, engine=cluster) == files
