"""Work in a process of its own that ends, or whose disk ends, at a chosen step; its steps are what it does to files."""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from joblib.externals.loky import get_reusable_executor

Work = Callable[[], object]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
STEPS = {"os.rename": 0, "os.mkdir": 0, "os.remove": 0}


class Steps:
    """Counts what this process does to files below a folder, and strikes at one of them.

    Args:
        folder: whose files count
        at: the step to strike at, from 0; None = only count
        strike: called at that step; an error of the system it raises is what the program sees
        stays: strike at every later step too, as a full disk does
    """

    def __init__(self, folder: Path, at: int | None, strike: Callable[[str], None], stays: bool = False):
        self.folder, self.at, self.strike, self.stays = str(folder), at, strike, stays
        self.count = 0
        sys.addaudithook(self._seen)
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            self._step("fsync")
            sync(descriptor)

        os.fsync = fsync

    def _seen(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str) and path.startswith(self.folder) and isinstance(flags, int) and flags & WRITES:
                self._step(path)
        elif event in STEPS and str(arguments[0]).startswith(self.folder):
            self._step(event)

    def _step(self, what: str) -> None:
        mine, self.count = self.count, self.count + 1
        if self.at is not None and (mine == self.at or (self.stays and mine > self.at)):
            self.strike(what)


def die(_: str) -> None:
    """As the power fails: no handler, no clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)


def error(number: int) -> Callable[[str], None]:
    """A strike that raises an error of the system; what was written can be removed all the same."""

    def raise_it(what: str) -> None:
        if what != "os.remove":
            raise OSError(number, os.strerror(number), what)

    return raise_it


full = error(errno.ENOSPC)
read_only = error(errno.EROFS)


def forked(work: Work) -> int:
    """Start work in a copy of this process, in a process group of its own."""
    get_reusable_executor().shutdown(wait=True)  # the threads that serve a pool are not copied
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, on threads; work starts none before this
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> int:
    """Wait; the exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def done(work: Work) -> None:
    """Work that is not disturbed."""
    assert ended(forked(work)) == 0


def steps_of(work: Work, folder: Path) -> int:
    """How many steps the whole work takes."""
    read, write = os.pipe()

    def counted() -> None:
        steps = Steps(folder, None, die)
        work()
        os.write(write, str(steps.count).encode())

    assert ended(forked(counted)) == 0
    count = int(os.read(read, 16))
    os.close(read)
    os.close(write)
    return count


def killed_at(work: Work, folder: Path, step: int) -> bool:
    """Work that dies at a step; whether it got that far."""

    def doomed() -> None:
        Steps(folder, step, die)
        work()

    return ended(forked(doomed)) == -signal.SIGKILL


def killed_after(work: Work, seconds: float) -> bool:
    """Work that dies after a time, with every process it started; whether it was still going."""
    child = forked(work)
    time.sleep(seconds)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(child, signal.SIGKILL)
    return ended(child) == -signal.SIGKILL


def seconds_of(work: Work) -> float:
    """How long the work takes when nobody disturbs it."""
    start = time.monotonic()
    done(work)
    return time.monotonic() - start


def chosen(steps: int, most: int, seed: int) -> list[int]:
    """Steps to strike at: all of them, or `most` drawn from a seed."""
    return list(range(steps)) if steps <= most else sorted(random.Random(seed).sample(range(steps), most))
