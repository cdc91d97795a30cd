"""Train every arm of a config on every fold and seed, then measure, compare and report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tasks.experiment.config import build, experiment_class, overlay, resolve
from tasks.experiment.console import DONE, SOME_FAILED, print_table, say
from tasks.experiment.folder import RunError, RunFolder, write_whole
from tasks.experiment.signatures import ConfigError
from tasks.experiment.units import Unit, run_units
from tasks.survival import unit
from tasks.survival.ceiling import ceiling
from tasks.survival.evaluation import evaluate_run
from tasks.survival.experiment import SurvivalExperiment
from tasks.survival.report import write as write_report

FAST = ("trainer.max_epochs=2",)


def resolved_config(files: Sequence[str], overrides: Sequence[str], fast: bool = False) -> dict[str, Any]:
    """The config of a run, every default included.

    Raises:
        ConfigError: a mistake in it, in one line
    """
    tree = overlay(files, [*overrides, *(FAST if fast else ())])
    cls = experiment_class(tree)
    if cls is not SurvivalExperiment:
        raise ConfigError(f"task: this config is for another task than survival; run it with `fusion run {files[-1]}`")
    return resolve(cls, tree)


def train(
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
        seeds: one training per seed and fold; baselines need none and run once
        jobs: processes
        engine: address of a Dask scheduler instead
        resume: go on with a run that was interrupted or lacks units
        print_config: print the resolved config and stop
        fast: the first fold, two epochs: does it run at all?

    Returns:
        exit code
    """
    config = resolved_config(files, overrides, fast)
    if print_config:
        print(yaml.safe_dump({"task": "survival", **config}, sort_keys=False, allow_unicode=True), end="")
        return DONE
    experiment: SurvivalExperiment = build(SurvivalExperiment, config)
    folder = RunFolder(Path(experiment.runs) / "survival" / experiment.name)
    cohort = experiment.cohort.load()
    count = len(experiment.cohort.splits())
    chosen = [0] if fast else list(range(count)) if folds is None else list(folds)
    if outside := [fold for fold in chosen if not 0 <= fold < count]:
        raise RunError(f"--folds {outside[0]}: cohort {cohort.name} has folds 0 to {count - 1}")
    with folder.locked():
        folder.create({"task": "survival", **config}, sys.argv, resume)
        write_whole(folder.path / "account.txt", str(cohort.account))
        say(str(cohort.account))
        absent = experiment.left_out(cohort)
        for arm, why in absent.items():
            say(f"'{arm}' is left out: {why}")
        units = [
            Unit(folder.path / arm / f"fold{fold}-seed{seed}", unit.run, _arguments(config, arm, fold, seed))
            for fold in chosen
            for arm in experiment.arms
            if arm not in absent
            for seed in (seeds[:1] if arm in experiment.baselines else seeds)
        ]
        failed = _run(units, folder.path, jobs, engine)
        if failed == len(units):
            say(f"{folder.path}: no unit finished; mend the cause and repeat with --resume, or remove the folder")
            return SOME_FAILED
        for fold in chosen:
            ceiling(experiment, fold, folder.path / "ceiling" / f"fold{fold}-seed{seeds[0]}")
        return finish(folder.path, failed)


def _arguments(config: dict[str, Any], arm: str, fold: int, seed: int) -> dict[str, Any]:
    return {"config": config, "arm": arm, "fold": fold, "seed": seed}


def _run(units: list[Unit], run: Path, jobs: int, engine: str | None) -> int:
    failed = 0
    for i, outcome in enumerate(run_units(units, jobs, engine), start=1):
        name = outcome.folder.relative_to(run)
        if outcome.error is not None:
            failed += 1
            say(f"[{i}/{len(units)}] {name} FAILED: {outcome.error}")
        else:
            how = f"{outcome.seconds:.1f} s" if outcome.repeated else "done before"
            say(f"[{i}/{len(units)}] {name} {how}")
    return failed


def finish(run: Path, failed: int) -> int:
    """Measure, compare, report, and print the table with the page's path."""
    results = evaluate_run(run)
    assert results.summary is not None
    over = "mean" if (results.summary["fold"] == "mean").any() else "pooled"
    shown = results.summary[(results.summary["fold"] == over) & (results.summary["metric"] == "c_index")]
    print_table(shown.to_dict("records"), ["arm", "value", "low", "high", "n", "events", "note"])
    if results.comparisons is not None:
        for sentence in results.comparisons["sentence"]:
            print(sentence)
    print(f"report: {write_report(run, results.config['name'])}")
    return SOME_FAILED if failed else DONE
