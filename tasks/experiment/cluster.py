"""Dask workers for units: those of a scheduler that runs already, or new ones that SLURM starts (extra `cluster`).

What a SLURM job asks for is said where dask-jobqueue looks: `jobqueue.slurm` in ~/.config/dask/*.yaml, or variables
such as DASK_JOBQUEUE__SLURM__QUEUE. A job without settings has one core and 8 GB; every core is a worker of one thread.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks.experiment.console import say
from tasks.experiment.folder import RunError

SLURM = "slurm"
LEAST_CORES, LEAST_MEMORY = 1, "8GB"
PROLOGUE = "export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1"
_INSTALL = "pip install 'multimodal-fusion[cluster]'"
_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def connected(engine: str, jobs: int) -> Iterator[Any]:
    """A client of the workers of an engine.

    Args:
        engine: `tcp://host:port` of a scheduler, or `slurm`
        jobs: SLURM jobs to keep in the queue until the client is closed

    Raises:
        RunError: Dask is not installed, nobody answers, or jobs cannot be submitted
    """
    try:
        from distributed import Client
    except ImportError:
        raise RunError(f"--engine needs Dask: {_INSTALL}") from None
    if engine == SLURM:
        with _queue() as cluster, Client(cluster) as client:
            try:
                cluster.scale(jobs=jobs)
            except (OSError, RuntimeError, ValueError) as error:
                raise RunError(f"--engine slurm: no job could be submitted ({' '.join(str(error).split())})") from None
            yield client
        return
    try:
        client = Client(engine, timeout="10s")
    except (OSError, ValueError) as error:
        raise RunError(f"--engine {engine}: no Dask scheduler answers there ({error})") from None
    with client:
        if many := [address for address, threads in client.nthreads().items() if threads > 1]:
            say(f"{len(many)} workers have several threads, of which units use one; start them with --nthreads 1")
        yield client


def called_there(where: str, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """On a worker: call a function as if in the folder where the command was given, alone in its process.

    Units draw from the process's random numbers, so two threads must not run two of them.
    """
    with _one_at_a_time:
        if not Path(where).is_dir():
            raise RunError(f"a worker does not see {where}; scheduler and workers need the same files")
        with contextlib.chdir(where):
            return function(*arguments)


def script() -> str:
    """The job script that `--engine slurm` submits for each job, with a stand-in for the scheduler's address."""
    job_class, options = _slurm()
    text: str = job_class("tcp://SCHEDULER:PORT", name="fusion", **options).job_script()
    return text


def _slurm() -> tuple[Any, dict[str, Any]]:
    """dask-jobqueue's job and what its settings leave open."""
    try:
        import dask
        from dask_jobqueue.slurm import SLURMJob
    except ImportError:
        raise RunError(f"--engine slurm needs dask-jobqueue: {_INSTALL}") from None
    said: dict[str, Any] = dask.config.get("jobqueue.slurm")
    cores = said["cores"] or LEAST_CORES
    return SLURMJob, {
        "cores": cores,
        "processes": cores,
        "memory": said["memory"] or LEAST_MEMORY,
        "job_script_prologue": [PROLOGUE, f"cd {shlex.quote(os.getcwd())}", *(said["job-script-prologue"] or [])],
        "job_name": "fusion",
    }


def _queue() -> Any:
    job_class, options = _slurm()
    if shutil.which(job_class.submit_command) is None:
        raise RunError(
            f"--engine slurm: no {job_class.submit_command} on this machine; give the command on a node that submits "
            "jobs, or start a scheduler and workers yourself and give --engine tcp://host:port"
        )
    import dask
    from dask_jobqueue import SLURMCluster

    site = dask.config.get("jobqueue.slurm.scheduler-options", {})
    return SLURMCluster(**options, scheduler_options={"dashboard_address": ":0", **site})
