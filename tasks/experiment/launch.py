"""One unit on several devices of one machine: a process for each, running the same function on the same folder.

Lightning's strategies find in the environment which rank a process is and how many there are. Every rank computes the
whole unit; files are written whole and alike, and what the first rank returns is the unit's answer.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.slides.workers import end_with_parent
from tasks.experiment.folder import RunError

JOB, ANSWER = "job.pickle", "answer-{rank}.pickle"


def run_in_ranks(function: Callable[..., Any], arguments: dict[str, Any], ranks: int) -> Any:
    """Call `function(**arguments)` in every rank at once and wait for all of them.

    Args:
        function: importable
        arguments: by keyword
        ranks: how many processes

    Returns:
        what rank 0 returned

    Raises:
        RunError: a rank ended without an answer
        Exception: what a rank raised, the first that was seen
    """
    with tempfile.TemporaryDirectory(prefix="fusion-ranks-") as name:
        folder = Path(name)
        (folder / JOB).write_bytes(pickle.dumps((function, arguments)))
        port = _free_port()
        running = {rank: _started(folder, rank, ranks, port) for rank in range(ranks)}
        try:
            waiting = dict(running)
            while waiting:
                ended = {rank: code for rank, process in waiting.items() if (code := process.poll()) is not None}
                for rank, code in ended.items():
                    del waiting[rank]
                    if code:
                        raise _reason(folder, rank, code)
                time.sleep(0.05)
        finally:
            # The others wait in vain for one that has failed.
            for process in running.values():
                process.kill()
                process.wait()
        return pickle.loads((folder / ANSWER.format(rank=0)).read_bytes())


def in_rank() -> bool:
    """Whether this process is one of several that train together."""
    return "LOCAL_RANK" in os.environ


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _started(folder: Path, rank: int, ranks: int, port: int) -> subprocess.Popen[bytes]:
    place = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = {**os.environ, **{name: str(value) for name, value in place.items()}}
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.experiment.launch", str(folder), str(rank)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=None if rank == 0 else subprocess.DEVNULL,
    )


def _reason(folder: Path, rank: int, code: int) -> Exception:
    """The exception a rank left behind, with its traceback as the cause."""
    try:
        error, said = pickle.loads((folder / ANSWER.format(rank=rank)).read_bytes())
    except (OSError, pickle.UnpicklingError, EOFError):
        return RunError(f"rank {rank} died with exit code {code} (a crash in native code, or out of memory)")
    assert isinstance(error, Exception)
    error.__cause__ = RuntimeError(f"in rank {rank}:\n{said}")
    return error


def _run(folder: Path, rank: int) -> int:
    """What a rank does: call the function of the job and leave its answer."""
    from threadpoolctl import threadpool_limits

    function, arguments = pickle.loads((folder / JOB).read_bytes())
    if rank == 0:
        handler = logging.FileHandler(Path(arguments["folder"]) / "log.txt")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logging.getLogger("fusion").addHandler(handler)
        logging.getLogger("fusion").setLevel(logging.INFO)
    try:
        with threadpool_limits(1):
            answer, code = function(**arguments), 0
    except Exception as error:
        # Whatever it was belongs to the process that waits for this one.
        answer, code = (error, traceback.format_exc()), 1
    content = pickle.dumps(answer)
    (folder / ANSWER.format(rank=rank)).write_bytes(content)
    return code


if __name__ == "__main__":
    end_with_parent()
    sys.exit(_run(Path(sys.argv[1]), int(sys.argv[2])))
