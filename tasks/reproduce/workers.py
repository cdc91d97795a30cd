"""Who works on a reproduction: its independent parts run here, in processes of this machine, or on a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from threadpoolctl import threadpool_limits

from tasks.experiment.console import progress
from tasks.experiment.engine import WorkerDied, stream
from tasks.experiment.folder import RunError


class Workers(NamedTuple):
    """`--jobs` and `--engine`.

    Attributes:
        jobs: processes on this machine, 1 = this one; with `slurm`, jobs in the queue
        engine: `tcp://host:port` of a Dask scheduler or `slurm`; workers must see the same files
    """

    jobs: int = 1
    engine: str | None = None

    def each(self, function: Callable[..., Any], parts: Mapping[str, tuple[Any, ...]]) -> list[Any]:
        """Call a function for every part, on one thread each, and say how far things are.

        The numbers are the same for any workers, because a part draws its random numbers from its own arguments.

        Args:
            function: importable
            parts: name of a part -> its plain arguments

        Returns:
            answers in the order of the parts

        Raises:
            RunError: the process of a part died, or the engine cannot be reached
            Exception: what a part ended with
        """
        names, answers = list(parts), {}
        calls = [(function, arguments) for arguments in parts.values()]
        here = self.jobs == 1 and self.engine is None
        for ended, (at, answer) in enumerate(stream(_timed, calls, 0 if here else self.jobs, self.engine), start=1):
            if isinstance(answer, WorkerDied):
                raise RunError(f"{names[at]}: {answer}; with fewer --jobs there is more memory for each")
            if isinstance(answer, Exception):
                raise answer
            answers[at], seconds = answer
            progress(f"[{ended}/{len(names)}] {names[at]} {seconds:.1f} s")
        return [answers[at] for at in range(len(names))]


HERE = Workers()
"""One part after the other, in this process."""


def _timed(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, float]:
    began = time.perf_counter()
    with threadpool_limits(1):
        answer = function(*arguments)
    return answer, time.perf_counter() - began
