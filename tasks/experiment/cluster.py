"""Dask workers for units: those of a scheduler that runs already, or new ones that SLURM starts (extra `cluster`).

What a SLURM job asks for is said where dask-jobqueue looks: `jobqueue.slurm` in ~/.config/dask/*.yaml, or variables
such as DASK_JOBQUEUE__SLURM__QUEUE. A job without settings has one core and 8 GB; every core is a worker of one thread.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks.experiment.console import say
from tasks.experiment.folder import RunError

SLURM = "slurm"
LEAST_CORES, LEAST_MEMORY = 1, "8GB"
LOOK_EVERY_S = 15.0
PROLOGUE = "export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1"
_INSTALL = "pip install 'multimodal-fusion[cluster]'"
_one_at_a_time = threading.Lock()


def check_engine(engine: str) -> None:
    """Refuse an engine that cannot be had, before a run folder is made for what it would run.

    Args:
        engine: `tcp://host:port` of a scheduler, or `slurm`

    Raises:
        RunError: Dask is not installed, nobody answers, or this machine has no queue
    """
    if engine == SLURM:
        _submitted_by()
    else:
        _client(engine).close()


@contextlib.contextmanager
def connected(engine: str, jobs: int) -> Iterator[tuple[Any, Callable[[], None]]]:
    """A client of the workers of an engine, and what to call now and then while no answer comes.

    Args:
        engine: `tcp://host:port` of a scheduler, or `slurm`
        jobs: SLURM jobs to keep in the queue until the client is closed

    Yields:
        the client, and a function that raises RunError once no worker is left and none can come

    Raises:
        RunError: Dask is not installed, nobody answers, or jobs cannot be submitted
    """
    if engine == SLURM:
        from distributed import Client

        with _queue() as cluster, Client(cluster) as client:
            try:
                cluster.scale(jobs=jobs)
            except (OSError, RuntimeError, ValueError) as error:
                raise RunError(f"--engine slurm: no job could be submitted ({' '.join(str(error).split())})") from None
            yield client, lambda: _some_job_is_left(client, cluster)
        return
    with _client(engine) as client:
        if many := [address for address, threads in client.nthreads().items() if threads > 1]:
            say(f"{len(many)} workers have several threads, of which units use one; start them with --nthreads 1")
        if not client.nthreads():
            say(f"the scheduler {engine} has no worker yet; units begin when one joins (dask worker {engine})")
        yield client, lambda: None


def _client(engine: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise RunError(f"--engine needs Dask: {_INSTALL}") from None
    try:
        return Client(engine, timeout="10s")
    except (OSError, ValueError) as error:
        raise RunError(f"--engine {engine}: no Dask scheduler answers there ({error})") from None


def answers(client: Any, futures: Sequence[Any], look: Callable[[], None]) -> Iterator[Any]:
    """Futures as they end; `look` is called every `LOOK_EVERY_S` seconds in which none does and no worker is there."""
    from distributed import as_completed

    coming, last = as_completed(futures), time.monotonic()
    while not coming.is_empty():
        if coming.has_ready():
            yield from coming.next_batch(block=False)
            last = time.monotonic()
        elif time.monotonic() - last > LOOK_EVERY_S:
            if not client.nthreads() and not coming.has_ready():
                look()
            last = time.monotonic()
        else:
            time.sleep(0.02)


def _some_job_is_left(client: Any, cluster: Any) -> None:
    """Raise if the queue knows none of a cluster's jobs; a queue that does not answer is asked again later."""
    ours = {str(job.job_id) for job in cluster.workers.values()}
    try:
        asked = subprocess.run(
            ["squeue", "--noheader", "--format=%A", f"--user={getpass.getuser()}"], capture_output=True, text=True
        )
    except OSError:
        return
    if asked.returncode == 0 and not ours & set(asked.stdout.split()) and not client.nthreads():
        raise RunError(
            f"--engine slurm: no job is left in the queue (they were {', '.join(sorted(ours)) or 'none'}) and units "
            f"wait; see their slurm-JOB.out, and the time a job may take (jobqueue.slurm.walltime). Units that ended "
            "are kept: the same command with --resume does the others"
        )


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


def _submitted_by() -> dict[str, Any]:
    """Options of a cluster of SLURM jobs, where this machine can submit one."""
    job_class, options = _slurm()
    if shutil.which(job_class.submit_command) is None:
        raise RunError(
            f"--engine slurm: no {job_class.submit_command} on this machine; give the command on a node that submits "
            "jobs, or start a scheduler and workers yourself and give --engine tcp://host:port"
        )
    return options


def _queue() -> Any:
    options = _submitted_by()
    import dask
    from dask_jobqueue import SLURMCluster

    site = dask.config.get("jobqueue.slurm.scheduler-options", {})
    return SLURMCluster(**options, scheduler_options={"dashboard_address": ":0", **site})
