"""Units of work: a function with plain arguments that writes its own folder and can be run twice.

A unit is finished when its folder holds `done.json` with the fingerprint of its arguments and every file listed there
as it was written; everything else in the folder may be half-written by an interrupted attempt and is the unit's own to
continue from.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from data.errors import one_line
from tasks.experiment.engine import stream
from tasks.experiment.folder import RunError, fingerprint, sweep_up, write_whole
from tasks.experiment.inventory import DONE, fault, said_of, start_anew, write_done
from tasks.experiment.launch import run_in_ranks


@dataclass(frozen=True)
class Unit:
    """What to run and where it writes.

    Attributes:
        folder: the unit's own folder
        function: importable function called as `function(folder=folder, **arguments)`; may return facts for done.json
        arguments: plain (JSON-like) arguments
        ranks: processes that run the function together, one for each device it trains on
    """

    folder: Path
    function: Callable[..., dict[str, Any] | None]
    arguments: dict[str, Any]
    ranks: int = 1

    @property
    def fingerprint(self) -> str:
        return fingerprint([f"{self.function.__module__}.{self.function.__qualname__}", self.arguments])

    @property
    def done(self) -> bool:
        """Whether an earlier attempt with the same arguments finished and left what is still there."""
        return said_of(self.folder).get("fingerprint") == self.fingerprint and fault(self.folder) is None

    @property
    def damage(self) -> str | None:
        """Which file of an earlier attempt with the same arguments is missing or damaged although it had finished."""
        before = said_of(self.folder)
        return fault(self.folder) if before.get("fingerprint", self.fingerprint) == self.fingerprint else None

    def run(self) -> dict[str, Any]:
        """Call the function, whatever it was called for before."""
        arguments = {"folder": self.folder, **self.arguments}
        facts = self.function(**arguments) if self.ranks == 1 else run_in_ranks(self.function, arguments, self.ranks)
        return facts or {}


@dataclass(frozen=True)
class Outcome:
    """How a unit ended. `error` is one line; the traceback is in the unit's error.txt."""

    folder: Path
    error: str | None
    seconds: float
    repeated: bool = True


def run_unit(unit: Unit) -> Outcome:
    """Run one unit to its `done.json`, or write down why it failed."""
    if unit.done:
        return Outcome(unit.folder, None, 0.0, repeated=False)
    start = time.perf_counter()
    try:
        unit.folder.mkdir(parents=True, exist_ok=True)
        if unit.damage is not None:
            start_anew(unit.folder)
        (unit.folder / DONE).unlink(missing_ok=True)
        (unit.folder / "error.txt").unlink(missing_ok=True)
        sweep_up(unit.folder)
        # One thread each: units beside one another do not wait for one another, and `--jobs` changes no number.
        with _logged(unit.folder / "log.txt"), threadpool_limits(1):
            facts = unit.run()
        seconds = time.perf_counter() - start
        write_done(unit.folder, {"fingerprint": unit.fingerprint, "seconds": round(seconds, 3), **facts})
    except Exception as error:
        # One bad unit must not end the others: whatever it raised becomes its own record.
        line = _in_words(error)
        try:
            write_whole(unit.folder / "error.txt", f"{line}\n\n{traceback.format_exc()}")
        except (RunError, OSError) as second:
            line = f"{line} (and error.txt could not be written: {second})"
        return Outcome(unit.folder, line, time.perf_counter() - start)
    return Outcome(unit.folder, None, seconds)


def _in_words(error: Exception) -> str:
    """The first line of an error; who raised it stands before what was not meant for users."""
    said = one_line(next((line for line in str(error).splitlines() if line.strip()), ""))
    if isinstance(error, MemoryError):
        return f"out of memory ({said or 'no more is to be had'}); ask for less at once, or for fewer --jobs"
    if said and isinstance(error, ValueError | RunError):
        return said
    return f"{type(error).__name__}: {said or 'without a word'}"


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Keep what the unit logs, beside what it computes."""
    logger = logging.getLogger("fusion")
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def run_units(units: Sequence[Unit], jobs: int = 1, engine: str | None = None) -> Iterator[Outcome]:
    """Run units, yielding outcomes as they end.

    Args:
        units: independent of one another
        jobs: processes on this machine; 1 = this one; a unit that kills its process does not end the others. With
            `slurm`, jobs in the queue
        engine: `tcp://host:port` of a Dask scheduler or `slurm` (extra `cluster`); workers must see the same files

    Raises:
        RunError: the engine cannot be reached or is not installed
    """
    calls = [(unit,) for unit in units]
    for index, ended in stream(run_unit, calls, 0 if jobs == 1 else jobs, engine):
        if isinstance(ended, Outcome):
            yield ended
        else:
            yield Outcome(units[index].folder, " ".join(str(ended).split()), 0.0)
