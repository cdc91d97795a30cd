"""What a run folder holds at this moment, whatever the task: which units are done, failed or open, and their tables."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from data.errors import DataError
from data.text.reading import parsed_object
from tasks.experiment.console import say
from tasks.experiment.folder import RunError, RunFolder
from tasks.experiment.inventory import AGAIN, DONE, fault, is_whole
from tasks.experiment.report import Failure

UNIT = re.compile(r"fold(?P<fold>\w+)-seed(?P<seed>\d+)")
KEYS = ("arm", "fold", "seed")
CONTROLS = "controls"
"""Folder of the units that belong to no arm."""
LEFT_OUT = "left_out.json"
"""Arms of the config that the data cannot feed, and why."""


@dataclass(frozen=True)
class RunState:
    """What every task's run says about itself.

    Attributes:
        path: the run folder
        config: resolved
        environment: versions, devices, command
        account: who was dropped and why, as text; empty when not written yet
        left_out: arms of the config that were not to be run on these data -> why
        done: finished units, as `arm/fold0-seed1`
        failures: units that ended with an error, or that had finished and lost a file since
        open: units that were begun or that other arms have, and arms that were never begun
    """

    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    account: str
    left_out: dict[str, str]
    done: list[str]
    failures: list[Failure]
    open: list[str]


def nothing_finished(run: Path) -> RunError:
    """What to say of a run that is to be measured and has no finished unit."""
    return RunError(f"{run}: no unit of this run is finished, so there is nothing to evaluate; see its error.txt files")


def described(run: Path) -> dict[str, Any]:
    """The attributes of a run's `RunState`, for a task to add its own; says which finished units lost a file.

    Raises:
        RunError: there is no run at this path
    """
    folder = RunFolder.open(run)
    arms = arm_units(run)
    units = [*arms, *(path for path in sorted(run.glob(f"{CONTROLS}/*")) if path.is_dir())]
    lost = {path: f"{said}; {AGAIN}" for path in units if (said := fault(path)) is not None}
    for line in lost.values():
        _tell(line)
    done = [path for path in units if path not in lost and (path / DONE).is_file()]
    failed = [path for path in units if path in lost or (path not in done and (path / "error.txt").is_file())]
    ended = {_name(path) for path in (*done, *failed)}
    left_out = {arm: str(why) for arm, why in _object(run / LEFT_OUT).items()}
    return {
        "path": run,
        "config": folder.config,
        "environment": _object(run / "environment.json"),
        "account": text(run / "account.txt"),
        "left_out": left_out,
        "done": [_name(path) for path in done],
        "failures": [_failure(path, lost.get(path)) for path in failed],
        "open": sorted(_expected(arms, folder.config, left_out) - ended),
    }


@lru_cache(maxsize=1000)
def _tell(line: str) -> None:
    """Once: a command reads a run several times."""
    say(line)


def arm_units(run: Path) -> list[Path]:
    """Folders of the units that arms have, begun or finished."""
    return sorted(path for path in run.glob("*/fold*-seed*") if path.is_dir() and UNIT.fullmatch(path.name))


def finished_units(run: Path, arm: str | None = None) -> list[Path]:
    """Folders of the units of arms that are finished and whole.

    Args:
        run: the run folder
        arm: whose; None = of every arm
    """
    return [path for path in arm_units(run) if arm in (None, path.parent.name) and is_whole(path)]


def text(path: Path) -> str:
    """A file's content; empty when there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _object(path: Path) -> dict[str, Any]:
    """A JSON object of the run; empty when there is none or it was cut short, which no figure depends on."""
    try:
        return parsed_object(text(path) or "{}", str(path))
    except DataError:
        return {}


def table(path: Path, columns: Iterable[str] = ()) -> pd.DataFrame | None:
    """A CSV of a run, names of arms, folds and subjects as text; None when it is not there.

    Args:
        path: of the table
        columns: that it must have

    Raises:
        RunError: it is damaged
    """
    kinds = dict.fromkeys(("arm", "fold", "subject"), str)
    again = "remove it and measure the run again with `evaluate`"
    return read_table(path, columns, again, dtype=kinds) if path.is_file() else None


def read_table(path: Path, columns: Iterable[str], remedy: str, **options: Any) -> pd.DataFrame:
    """A CSV that a run wrote.

    Args:
        path: of the table
        columns: that it must have
        remedy: what the error advises
        options: of `pandas.read_csv`

    Raises:
        RunError: it is not a table, or not one of these columns
    """
    try:
        found = pd.read_csv(path, **options)
    except (OSError, ValueError) as error:  # no columns, other bytes than UTF-8, cells too many, words for numbers
        raise RunError(f"{path}: cannot be read as a table ({error}); {remedy}") from None
    if lacking := [name for name in columns if name not in found.columns]:
        has = ", ".join(map(str, found.columns[:5]))
        raise RunError(f"{path}: has no column '{lacking[0]}', it begins with {has or 'none'}; {remedy}")
    return found


def unit_table(unit: Path, file: str, columns: Iterable[str], **options: Any) -> pd.DataFrame:
    """As `read_table`, one file of a unit."""
    return read_table(unit / file, columns, f"remove {unit} and {AGAIN}", **options)


def unit_tables(run: Path, file: str, columns: Iterable[str], **options: Any) -> pd.DataFrame:
    """One file of every finished unit, with the unit's arm, fold and seed in front.

    Args:
        run: the run folder
        file: its name in a unit's folder
        columns: that it must have, and of the table when no unit has the file
        options: of `pandas.read_csv`

    Raises:
        RunError: the file of a unit without a list of files is damaged
    """
    columns, parts = list(columns), []
    for unit in finished_units(run):
        if (unit / file).is_file() and (named := UNIT.fullmatch(unit.name)):
            part = unit_table(unit, file, columns, **options)
            if part.empty:  # a unit whose selection chose the untrained model has no epochs
                continue
            part.insert(0, "seed", int(named["seed"]))
            part.insert(0, "fold", named["fold"])
            part.insert(0, "arm", unit.parent.name)
            parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*KEYS, *columns])


def _expected(units: list[Path], config: dict[str, Any], left_out: Collection[str]) -> set[str]:
    """Every arm on every fold that any arm has, with the seeds it was begun with; an arm never begun stands alone."""
    known = [(path.parent.name, named["fold"], named["seed"]) for path in units if (named := UNIT.fullmatch(path.name))]
    folds = {fold for _, fold, _ in known}
    begun = {f"{arm}/fold{fold}-seed{seed}" for arm, _, seed in known for fold in folds}
    configured = [config.get("name"), *(config.get("rivals") or {}), *(config.get("baselines") or {})]
    met = {arm for arm, *_ in known}.union(left_out)
    return begun | {str(arm) for arm in configured if arm and arm not in met}


def _name(unit: Path) -> str:
    return f"{unit.parent.name}/{unit.name}"


def _failure(unit: Path, lost: str | None) -> Failure:
    """What became of a unit, in its error's words or by the file that it lost."""
    said = lost or text(unit / "error.txt").strip()
    return Failure(_name(unit), said.splitlines()[0] if said else "failed without saying why", said)
