"""Run one importable function over many plain arguments: processes of this machine, or workers of a Dask cluster.

A call that raises ends as its exception, a call that kills its process as `WorkerDied`; the others go on.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from data.slides.workers import BrokenProcessPool, pool
from tasks.experiment.cluster import answers, called_there, connected

Ended = tuple[int, Any]


class WorkerDied(RuntimeError):
    """The process that ran a call ended without an answer: a crash in native code, or out of memory."""


def stream(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], jobs: int = 1, engine: str | None = None
) -> Iterator[Ended]:
    """Call `function(*arguments)` for each arguments, as results come.

    Args:
        function: importable
        calls: plain arguments of each call
        jobs: worker processes on this machine, 0 calls here, one after the other; with `slurm`, jobs in the queue
        engine: `tcp://host:port` of a Dask scheduler or `slurm` (extra `cluster`); workers must see the same files

    Yields:
        index of the call, and what it returned or the exception it ended with

    Raises:
        RunError: the engine cannot be reached or is not installed, or its last job has left the queue
    """
    if engine is not None:
        yield from _on_cluster(function, calls, engine, jobs)
    elif jobs == 0:
        for index, arguments in enumerate(calls):
            yield index, _called(function, arguments)
    else:
        yield from _here(function, calls, jobs)


def _called(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return function(*arguments)
    except Exception as error:
        return error


def _here(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], jobs: int) -> Iterator[Ended]:
    waiting = deque(range(len(calls)))
    running: dict[Future[Any], int] = {}
    while waiting or running:
        suspects: list[int] = []
        while waiting and len(running) < jobs and not suspects:
            index = waiting.popleft()
            try:
                running[pool(jobs).submit(_called, function, calls[index])] = index
            except BrokenProcessPool:
                suspects.append(index)
        ended = wait(running, return_when=FIRST_COMPLETED).done if running else set()
        if any(isinstance(future.exception(), BrokenProcessPool) for future in ended):
            # One death breaks the whole pool; which call caused it shows when each runs alone.
            ended = wait(running).done
        for future in ended:
            index = running.pop(future)
            if isinstance(future.exception(), BrokenProcessPool):
                suspects.append(index)
            else:
                yield index, _answer(future)
        for index in suspects:
            try:
                yield index, _answer(pool(1).submit(_called, function, calls[index]))
            except BrokenProcessPool:
                yield index, WorkerDied("its process died (a crash in native code, or out of memory)")


def _answer(future: Future[Any]) -> Any:
    try:
        return future.result()
    except BrokenProcessPool:
        raise
    except Exception as error:  # the call or its answer could not be sent to or from the process
        return error


def _on_cluster(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], engine: str, jobs: int
) -> Iterator[Ended]:
    with connected(engine, max(1, min(jobs, len(calls)))) as (client, look):
        from distributed import KilledWorker

        where = os.getcwd()
        futures = {
            client.submit(_called, called_there, (where, function, arguments), pure=False): i
            for i, arguments in enumerate(calls)
        }
        for future in answers(client, list(futures), look):
            try:
                yield futures[future], future.result()
            except KilledWorker as error:
                yield futures[future], WorkerDied(f"its worker died again and again ({error})")
            except Exception as error:  # lost by the scheduler, or not importable on the worker
                yield futures[future], error
