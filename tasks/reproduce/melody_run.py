"""The trainings that melody papers are reproduced with: a shipped config in a run folder that is kept and goes on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from tasks.experiment.folder import RunError
from tasks.melody.results import Results, read
from tasks.melody.train import TASK
from tasks.reproduce.workers import HERE, Workers


def trained_run(
    config: str,
    name: str,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] = (1,),
    runs: Path = Path("runs"),
    workers: Workers = HERE,
) -> Results:
    """Train what of a run is not trained yet, then read it.

    Args:
        config: a shipped one
        name: of the run; the folder is `<runs>/melody/<name>`
        overrides: KEY=VALUE
        seeds: of every arm with randomness
        runs: where run folders go
        workers: who trains; an arm with one seed is a part

    Raises:
        RunError: a unit failed
    """
    with redirect_stdout(sys.stderr):
        given, (jobs, engine) = [f"name={name}", f"runs={runs}", *overrides], workers
        TASK.train([config], given, seeds=seeds, jobs=jobs, engine=engine, resume=True)
    results = read(runs / "melody" / name)
    if results.failures:
        first = results.failures[0]
        raise RunError(f"{results.path}: {first.unit} failed ({first.reason}); mend the cause and repeat the command")
    return results
