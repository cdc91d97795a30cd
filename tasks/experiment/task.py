"""One orchestration of units for every task: a config becomes units of work, and what they leave becomes a report."""

from __future__ import annotations

import importlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml

from tasks.experiment.cluster import check_engine
from tasks.experiment.config import build, experiment_class, overlay, overlay_values, resolve, task_name
from tasks.experiment.console import DONE, SOME_FAILED, progress, say
from tasks.experiment.folder import RESTORE, RunError, RunFolder, placeless, write_whole
from tasks.experiment.same_data import refuse_other_data
from tasks.experiment.signatures import ConfigError
from tasks.experiment.state import LEFT_OUT
from tasks.experiment.units import Unit, run_units

FIRST_FOLD_ONLY = [0]


@dataclass(frozen=True)
class Plan:
    """What a task knows of a run once its data are read.

    Attributes:
        account: who was read, dropped and why, as text
        data: the data in words, for messages: `cohort tcga_blca`
        folds: how many splits there are
        arms: everything that is scored, the model under test first
        seedless: arms without randomness, run once whatever the seeds
        absent: arms that cannot be run on these data -> why
        failures: parts of the data that could not be read, one line each; the run goes on without them
        content: part of the data, in words -> digest of what it holds (`tasks.experiment.same_data`)
    """

    account: str
    data: str
    folds: int
    arms: Sequence[str]
    seedless: Collection[str] = ()
    absent: Mapping[str, str] = field(default_factory=dict)
    failures: Sequence[str] = ()
    content: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Tuning:
    """How `fusion tune` judges a config of a task without the cases it will be scored on.

    Attributes:
        unit: one part of a trial; an importable function of (folder, config, fold, part, seed) that never reads the
            held-out cases of the fold and returns its `score` among its facts
        measure: what the score is
        parts: units of a trial, over which the score is averaged
        subject: key of the config that holds what is under test
        fixed: keys that say which cases there are, and cannot be searched
        higher_is_better: of the score
    """

    unit: Callable[..., dict[str, Any]]
    measure: str
    parts: int
    subject: str
    fixed: tuple[str, ...]
    higher_is_better: bool = True


class Task(ABC):
    """What one task adds to the orchestration.

    Attributes:
        name: of the task, of its command and of its folder below `runs`
        unit: one arm on one fold with one seed; an importable function of (folder, config, arm, fold, seed), see
            `tasks.experiment.units`
        tuning: how its configs are searched; None = they cannot be
        untuned: why not
    """

    name: ClassVar[str]
    unit: ClassVar[Callable[..., dict[str, Any] | None]]
    tuning: ClassVar[Tuning | None] = None
    untuned: ClassVar[str] = "it has no measure on cases held out inside a training side"

    def fast(self, tree: dict[str, Any]) -> dict[str, Any]:
        """The config tree with the few epochs of `--fast`."""
        return overlay_values(tree, ["trainer.max_epochs=2"])

    @abstractmethod
    def plan(self, experiment: Any) -> Plan:
        """Read the data and say what is to be run.

        Raises:
            DataError: nothing of the data can be used
        """

    def beside(self, experiment: Any, config: dict[str, Any], run: Path, folds: Sequence[int]) -> list[Unit]:
        """Units that belong to the run but to no arm, such as controls."""
        return []

    @abstractmethod
    def finish(self, experiment: Any, run: Path, folds: Sequence[int], seeds: Sequence[int]) -> None:
        """Measure, compare, report, and print the table with the page's path."""

    @abstractmethod
    def report(self, run: Path) -> Path:
        """Write the page of a run, which may still be going."""

    def resolved_config(self, files: Sequence[str], overrides: Sequence[str], fast: bool = False) -> dict[str, Any]:
        """The config of a run, every default included.

        Raises:
            ConfigError: a mistake in it, in one line
        """
        tree = overlay(files, overrides)
        asked, cls = tree.get("task"), experiment_class(tree)
        if asked != self.name:
            raise ConfigError(
                f"task: this config is for another task than {self.name}; run it with `fusion run {files[-1]}`"
            )
        return resolve(cls, self.fast(tree) if fast else tree)

    def train(
        self,
        files: Sequence[str],
        overrides: Sequence[str] = (),
        folds: Sequence[int] | None = None,
        seeds: Sequence[int] = (1,),
        jobs: int = 1,
        engine: str | None = None,
        resume: bool = False,
        print_config: bool = False,
        fast: bool = False,
    ) -> int:
        """Run a config.

        Args:
            files: YAML files, laid over one another
            overrides: KEY=VALUE
            folds: indices of the splits; None = all
            seeds: one training per seed and fold; arms without randomness run once
            jobs: processes, or SLURM jobs
            engine: address of a Dask scheduler instead, or `slurm`
            resume: go on with a run that was interrupted or lacks units
            print_config: print the resolved config and stop
            fast: the first fold, few epochs: does it run at all?

        Returns:
            exit code
        """
        config = self.resolved_config(files, overrides, fast)
        written = {"task": self.name, **config}
        if print_config:
            print(yaml.safe_dump(written, sort_keys=False, allow_unicode=True), end="")
            return DONE
        experiment = build(experiment_class(dict(written)), config)
        folder = RunFolder(Path(experiment.runs) / self.name / experiment.name)
        plan = self.plan(experiment)
        chosen = FIRST_FOLD_ONLY if fast else list(range(plan.folds)) if folds is None else list(folds)
        if outside := [fold for fold in chosen if not 0 <= fold < plan.folds]:
            raise RunError(f"--folds {outside[0]}: {plan.data} has folds 0 to {plan.folds - 1}")
        if engine is not None:
            check_engine(engine)
        with folder.locked():
            folder.create(written, sys.argv, resume)
            refuse_other_data(folder.path, plan.content)
            write_whole(folder.path / "account.txt", plan.account)
            progress(plan.account)
            write_whole(folder.path / LEFT_OUT, json.dumps(dict(plan.absent)))
            for arm, why in plan.absent.items():
                progress(f"'{arm}' is left out: {why}")
            told = placeless(config)
            units = [
                Unit(
                    folder.path / arm / f"fold{fold}-seed{seed}",
                    self.unit,
                    {"config": told, "arm": arm, "fold": fold, "seed": seed},
                    1 if arm in plan.seedless else devices(config),
                )
                for fold in chosen
                for arm in plan.arms
                if arm not in plan.absent
                for seed in (seeds[:1] if arm in plan.seedless else seeds)
            ]
            failed = run_all([*units, *self.beside(experiment, told, folder.path, chosen)], folder.path, jobs, engine)
            if not any(unit.done for unit in units):
                say(f"{folder.path}: no unit finished; mend the cause and repeat with --resume, or remove the folder")
                return SOME_FAILED
            self.finish(experiment, folder.path, chosen, seeds)
            for line in plan.failures:
                say(line, self.name)
            return SOME_FAILED if failed or plan.failures else DONE


def devices(config: Mapping[str, Any]) -> int:
    """How many devices a unit of this config trains on."""
    return int((config.get("trainer") or {}).get("devices", 1))


def task_named(name: object) -> Task:
    """The task of that name; its module is imported only now.

    Raises:
        ConfigError: there is none
    """
    task: Task = importlib.import_module(f"tasks.{task_name(name)}.train").TASK
    return task


def task_of(run: Path) -> Task:
    """The task of a run folder.

    Raises:
        RunError: there is no run at this path, or its config names no task
    """
    config = RunFolder.open(run).config
    try:
        return task_named(config.get("task"))
    except ConfigError as error:
        raise RunError(f"{run / 'config.yaml'}: {error}; {RESTORE}") from None


def run_all(units: Sequence[Unit], run: Path, jobs: int, engine: str | None) -> int:
    """Run units and say how each ended, and first which of those that had ended lost a file.

    Args:
        units: in folders below `run`
        run: the run folder
        jobs: processes, or SLURM jobs
        engine: address of a Dask scheduler, or `slurm`

    Returns:
        how many failed
    """
    failed = 0
    for unit in units:
        if (lost := unit.damage) is not None:
            say(f"{lost}; {unit.folder.relative_to(run)} is run again")
    for i, outcome in enumerate(run_units(units, jobs, engine), start=1):
        name = outcome.folder.relative_to(run)
        if outcome.error is not None:
            failed += 1
            say(f"[{i}/{len(units)}] {name} FAILED: {outcome.error}")
        else:
            how = f"{outcome.seconds:.1f} s" if outcome.repeated else "done before"
            progress(f"[{i}/{len(units)}] {name} {how}")
    return failed
