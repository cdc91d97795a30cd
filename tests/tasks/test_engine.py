"""Engines: a job script that can be read before it is sent, and workers elsewhere that behave as processes here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
import pytest
from distributed import LocalCluster

from tasks.experiment import cluster
from tasks.experiment.folder import RunError
from tasks.experiment.units import Unit, run_units

ROOT = Path(__file__).resolve().parents[2]
SITE = {
    "cores": 2,
    "memory": "64GB",
    "queue": "gpu",
    "account": "lab",
    "walltime": "12:00:00",
    "job-extra-directives": ["--gres=gpu:1"],
    "job-script-prologue": ["module load cuda"],
}
SBATCH = """#!/bin/sh
cp "$1" job.sh
PYTHONPATH={root} sh job.sh >worker.log 2>&1 &
echo $! >worker.pid
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
kill "$1"
"""
SQUEUE = """#!/bin/sh
if kill -0 "$(cat worker.pid)"; then cat worker.pid; fi
"""


def say_where(folder: Path, value: int) -> dict[str, str]:
    return {"where": os.getcwd(), "value": str(value), "process": str(os.getpid())}


def test_the_script_says_what_a_job_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert cluster.script().splitlines() == [
        "#!/usr/bin/env bash",
        "",
        "#SBATCH -J fusion",
        "#SBATCH -n 1",
        "#SBATCH --cpus-per-task=1",
        "#SBATCH --mem=8G",
        "#SBATCH -t 00:30:00",
        "export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1",
        f"cd {tmp_path}",
        f"{sys.executable} -m distributed.cli.dask_worker tcp://SCHEDULER:PORT --name fusion --nthreads 1 "
        "--memory-limit 7.45GiB --nanny --death-timeout 60",
    ]


def test_a_site_says_more_where_dask_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with dask.config.set({"jobqueue.slurm": {**dask.config.get("jobqueue.slurm"), **SITE}}):
        said = cluster.script()
    for line in ("-p gpu", "-A lab", "--cpus-per-task=2", "--mem=60G", "-t 12:00:00", "--gres=gpu:1"):
        assert f"\n#SBATCH {line}\n" in said
    assert said.index("export OMP_NUM_THREADS=1") < said.index("module load cuda") < said.index("dask_worker")
    assert "--nthreads 1 --memory-limit 29.80GiB --nworkers 2" in said, "every core is a worker"


def test_a_machine_without_a_queue_is_told_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RunError, match=r"--engine slurm: no sbatch on this machine; give the command on a node that"):
        list(run_units([], engine="slurm"))


@contextmanager
def a_queue(folder: Path, monkeypatch: pytest.MonkeyPatch, **site: object) -> Iterator[None]:
    """`sbatch`, `scancel` and `squeue` of one job that runs here: sbatch keeps a copy, the script may be gone then."""
    for name, text in (("sbatch", SBATCH.format(root=ROOT)), ("scancel", SCANCEL), ("squeue", SQUEUE)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    local = {**dask.config.get("jobqueue.slurm"), "interface": "lo", **site}
    with dask.config.set({"jobqueue.slurm": local}):
        yield


@pytest.mark.cluster
def test_units_are_run_by_jobs_of_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    units = [Unit(Path(f"runs/u{i}"), say_where, {"value": i}) for i in range(3)]
    with a_queue(tmp_path, monkeypatch):
        outcomes = list(run_units(units, jobs=1, engine="slurm"))
    assert [outcome.error for outcome in outcomes] == [None] * 3, (tmp_path / "worker.log").read_text()
    assert all(unit.done for unit in units), "each wrote its own folder, found from the folder of the command"
    assert "dask_worker tcp://127.0.0.1:" in (tmp_path / "job.sh").read_text()
    assert "#SBATCH -J fusion" in (tmp_path / "job.sh").read_text()


@pytest.mark.cluster
def test_jobs_that_end_before_their_units_are_an_error_and_not_a_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "LOOK_EVERY_S", 0.2)
    units = [Unit(Path("runs/u0"), say_where, {"value": 0})]
    with (
        a_queue(tmp_path, monkeypatch, **{"job-script-prologue": ["exit 3"]}),
        pytest.raises(
            RunError, match=r"no job is left in the queue \(they were \d+\) .*jobqueue\.slurm\.walltime.*--resume"
        ),
    ):
        list(run_units(units, jobs=1, engine="slurm"))


@pytest.mark.cluster
def test_workers_with_threads_run_one_unit_at_a_time_and_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    units = [Unit(Path(f"u{i}"), say_where, {"value": i}) for i in range(4)]
    with LocalCluster(
        n_workers=1, threads_per_worker=3, processes=False, dashboard_address=":0", protocol="tcp"
    ) as here:
        outcomes = list(run_units(units, engine=here.scheduler_address))
    assert [outcome.error for outcome in outcomes] == [None] * 4
    assert "1 workers have several threads, of which units use one; start them with --nthreads 1" in (
        capsys.readouterr().err
    )


def test_a_worker_that_sees_other_files_says_so(tmp_path: Path):
    with pytest.raises(RunError, match=r"a worker does not see .*gone; scheduler and workers need the same files"):
        cluster.called_there(str(tmp_path / "gone"), len, ((),))
