"""What a survival run folder holds at this moment, finished or not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.experiment.folder import RunFolder
from tasks.experiment.report import Failure

UNIT = re.compile(r"fold(?P<fold>\w+)-seed(?P<seed>\d+)")
KEYS = ("arm", "fold", "seed")


@dataclass(frozen=True)
class Results:
    """Everything that is known about a run.

    Attributes:
        path: the run folder
        config: resolved
        environment: versions, devices, command
        account: who was dropped and why, as text; empty when not written yet
        done: finished units, as `arm/fold0-seed1`
        failures: units that ended with an error
        open: units that were begun or that other arms have, and arms that were never begun
        predictions: arm, fold, seed, case_id, time, event, risk of the finished units
        curves: arm, fold, seed, case_id and one column per month; empty when no unit predicts curves
        epochs: arm, fold, seed, epoch and what was measured after it; empty when no unit is trained by epochs
        summary: rows of `metrics.evaluate`; None when the run was not evaluated yet
        comparisons: rows of paired differences; None when the run was not evaluated yet
    """

    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    account: str
    done: list[str]
    failures: list[Failure]
    open: list[str]
    predictions: pd.DataFrame
    curves: pd.DataFrame
    epochs: pd.DataFrame
    summary: pd.DataFrame | None
    comparisons: pd.DataFrame | None

    @property
    def complete(self) -> bool:
        return not (self.failures or self.open) and bool(self.done) and self.summary is not None

    @property
    def arms(self) -> list[str]:
        """In the order of the summary where there is one."""
        found = dict.fromkeys(self.predictions["arm"])
        if self.summary is not None:
            found = dict.fromkeys([*self.summary["arm"], *found])
        return list(found)


def read(run: Path) -> Results:
    """Read a run folder.

    Raises:
        RunError: there is no run at this path
    """
    folder = RunFolder.open(run)
    units = sorted(path for path in run.glob("*/fold*-seed*") if path.is_dir() and UNIT.fullmatch(path.name))
    done = [path for path in units if (path / "done.json").is_file()]
    failed = [path for path in units if path not in done and (path / "error.txt").is_file()]
    ended = {_name(path) for path in (*done, *failed)}
    return Results(
        path=run,
        config=folder.config,
        environment=json.loads(_text(run / "environment.json") or "{}"),
        account=_text(run / "account.txt"),
        done=[_name(path) for path in done],
        failures=[_failure(path) for path in failed],
        open=sorted(_expected(units, folder.config) - ended),
        predictions=_tables(done, "predictions.csv", ["case_id", "time", "event", "risk"]),
        curves=_tables(done, "curves.csv", ["case_id"]),
        epochs=_tables(done, "epochs.csv", ["epoch"]),
        summary=_table(run / "summary.csv"),
        comparisons=_table(run / "comparisons.csv"),
    )


def months(curves: pd.DataFrame) -> list[str]:
    """The columns of `curves` that hold survival probabilities, in order."""
    return [name for name in curves.columns if name not in (*KEYS, "case_id")]


def _expected(units: list[Path], config: dict[str, Any]) -> set[str]:
    """Every arm on every fold that any arm has, with the seeds it was begun with; an arm never begun stands alone."""
    known = [(path.parent.name, named["fold"], named["seed"]) for path in units if (named := UNIT.fullmatch(path.name))]
    folds = {fold for _, fold, _ in known}
    begun = {f"{arm}/fold{fold}-seed{seed}" for arm, _, seed in known for fold in folds}
    configured = [config.get("name"), *(config.get("rivals") or {}), *(config.get("baselines") or {})]
    return begun | {str(arm) for arm in configured if arm and arm not in {arm for arm, *_ in known}}


def _name(unit: Path) -> str:
    return f"{unit.parent.name}/{unit.name}"


def _failure(unit: Path) -> Failure:
    text = _text(unit / "error.txt").strip()
    return Failure(_name(unit), text.splitlines()[0] if text else "failed without saying why", text)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _table(path: Path) -> pd.DataFrame | None:
    return pd.read_csv(path, dtype={"arm": str, "fold": str}, keep_default_na=True) if path.is_file() else None


def _tables(units: Iterable[Path], file: str, columns: list[str]) -> pd.DataFrame:
    """One file of every unit, with the unit's arm, fold and seed in front."""
    parts = []
    for unit in units:
        if (unit / file).is_file() and (named := UNIT.fullmatch(unit.name)):
            part = pd.read_csv(unit / file, dtype={"case_id": str})
            if part.empty:  # a unit whose selection chose the untrained model has no epochs
                continue
            part.insert(0, "seed", int(named["seed"]))
            part.insert(0, "fold", named["fold"])
            part.insert(0, "arm", unit.parent.name)
            parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*KEYS, *columns])
