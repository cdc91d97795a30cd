"""Search the options of a config inside the training side of a fold, then score what was chosen on its held-out side.

Trials are units. They are proposed in rounds of a fixed size, each from (seed, fold, number) and the scores before its
round, so neither `--jobs` nor an interruption changes what is tried. A trial that failed stays open in the journal: the
search goes on without it, and `--resume` runs it again with the same values.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from tasks.experiment.cluster import check_engine
from tasks.experiment.config import Tree, build, experiment_class, merge, overlay, override
from tasks.experiment.console import DONE, SOME_FAILED, print_table, progress, say
from tasks.experiment.folder import RunError, RunFolder, placeless, write_whole
from tasks.experiment.signatures import ConfigError
from tasks.experiment.space import Space, read_space
from tasks.experiment.task import Task, Tuning, devices, run_all, task_named
from tasks.experiment.units import Unit

ROUND = 4
JOURNAL, SEARCH, TABLE, TRIALS = "trials.journal", "search.json", "trials.csv", "trials"
GIVEN = "as given"
FIXED = ("task", "name", "runs", "let", "extends", "rivals", "baselines")


@dataclass(frozen=True)
class Search:
    """One search: what was asked for, and where it is kept."""

    task: Task
    tuning: Tuning
    files: Sequence[str]
    overrides: Sequence[str]
    space: Space
    seed: int
    run: Path

    def config(self, values: dict[str, Any]) -> dict[str, Any]:
        """The resolved config of units with other values."""
        return placeless(self.task.resolved_config(self.files, [*self.overrides, *_texts(values)]))

    def study(self, fold: int) -> Any:
        """The trials of a fold, as Optuna keeps them in the run folder."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = JournalStorage(JournalFileBackend(str(self.run / JOURNAL)))
        direction: Any = "maximize" if self.tuning.higher_is_better else "minimize"
        return optuna.create_study(storage=storage, study_name=f"fold{fold}", direction=direction, load_if_exists=True)

    def units(self, fold: int, number: int, values: dict[str, Any]) -> list[Unit]:
        """What a trial consists of."""
        config = self.config(values)
        return [
            Unit(
                self.run / TRIALS / f"fold{fold}" / f"{number:04d}-part{part}",
                self.tuning.unit,
                {"config": config, "fold": fold, "part": part, "seed": self.seed},
                devices(config),
            )
            for part in range(self.tuning.parts)
        ]


def tune(
    files: Sequence[str],
    space_file: Path,
    overrides: Sequence[str] = (),
    trials: int = 20,
    folds: Sequence[int] | None = (0,),
    seed: int = 1,
    jobs: int = 1,
    engine: str | None = None,
    resume: bool = False,
) -> int:
    """Search, write down every trial and the best config, and score it once on cases no trial has seen.

    Args:
        files: configs, laid over one another
        space_file: what may change, see `tasks.experiment.space`
        overrides: KEY=VALUE
        trials: how many for each fold; more of them continue an earlier search with `resume`
        folds: each has a search of its own inside its training side; None = all
        seed: of the proposals and of every training
        jobs: processes, or SLURM jobs
        engine: address of a Dask scheduler, or `slurm`
        resume: go on with a search that was interrupted, had fewer trials, or had trials that failed

    Returns:
        exit code

    Raises:
        ConfigError: a mistake in config or space, or a task that cannot be tuned
        RunError: the folder holds another search, or a fold does not exist
    """
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise RunError("fusion tune needs Optuna: pip install 'multimodal-fusion[tune]'") from None
    task = task_named(overlay(files, overrides).get("task"))
    if task.tuning is None:
        raise ConfigError(f"tune: {task.name} cannot be tuned: {task.untuned}")
    space = read_space(space_file, {*FIXED, *task.tuning.fixed})
    given = task.resolved_config(files, overrides)
    for key, entry in space.items():
        for value in entry.corners:
            task.resolved_config(files, [*overrides, *_texts({key: value})])
    about = {**given, "name": f"{given['name']}_tuned", "rivals": {GIVEN: given[task.tuning.subject]}}
    written = {"task": task.name, **about}
    experiment = build(experiment_class(dict(written)), about)
    folder = RunFolder(Path(experiment.runs) / task.name / experiment.name)
    plan = task.plan(experiment)
    folds = range(plan.folds) if folds is None else folds
    if outside := [fold for fold in folds if not 0 <= fold < plan.folds]:
        raise RunError(f"--folds {outside[0]}: {plan.data} has folds 0 to {plan.folds - 1}")
    search = Search(task, task.tuning, files, overrides, space, seed, folder.path)
    if engine is not None:
        check_engine(engine)
    with folder.locked():
        _same_search(folder.path, space_file, seed)
        folder.create(written, ["fusion", "tune", *map(str, files), str(space_file), *overrides], resume)
        write_whole(folder.path / "account.txt", plan.account)
        failed = _searched(search, folds, trials, given, jobs, engine)
        chosen = {fold: best for fold in folds if (best := _best(search, fold)) is not None}
        for fold, values in chosen.items():
            _write_overlay(search, fold, values)
        if not chosen:
            say(f"{folder.path}: no trial finished; see the error.txt files below {TRIALS}")
            return SOME_FAILED
        held_out, plain = [], placeless(given)
        for fold, values in chosen.items():
            arms = {experiment.name: (search.config(values), given["name"]), GIVEN: (plain, given["name"])}
            arms |= {arm: (plain, arm) for arm in plan.seedless}
            held_out += [
                Unit(
                    folder.path / arm / f"fold{fold}-seed{seed}",
                    task.unit,
                    {"config": config, "arm": of, "fold": fold, "seed": seed},
                    1 if arm in plan.seedless else devices(config),
                )
                for arm, (config, of) in arms.items()
                if arm not in plan.absent
            ]
        failed += run_all(held_out, folder.path, jobs, engine)
        print_table(pd.read_csv(folder.path / TABLE).to_dict("records"))
        for fold in chosen:
            print(f"best of fold {fold}: {folder.path / f'best-fold{fold}.yaml'}")
        task.finish(experiment, folder.path, list(chosen), [seed])
        return SOME_FAILED if failed else DONE


def _same_search(run: Path, space_file: Path, seed: int) -> None:
    """Write down what is searched, or check that it is what was searched before.

    Raises:
        RunError: it is not
    """
    search = {"space": yaml.safe_load(space_file.read_text(encoding="utf-8")), "seed": seed}
    kept = run / SEARCH
    if kept.is_file() and json.loads(kept.read_text()) != search:
        raise RunError(f"{run}: holds a search of another space or seed; give another name=NAME")
    write_whole(kept, json.dumps(search, indent=2))


def _searched(
    search: Search, folds: Sequence[int], trials: int, given: dict[str, Any], jobs: int, engine: str | None
) -> int:
    """Run rounds until every fold has its trials; how many units failed."""
    failed = 0
    given_up: set[tuple[int, int]] = set()
    while True:
        asked = {fold: _round(search, fold, trials, given, given_up) for fold in folds}
        units = {
            (fold, number): search.units(fold, number, values)
            for fold, proposed in asked.items()
            for number, values in proposed.items()
        }
        if not units:
            return failed
        failed += run_all([unit for parts in units.values() for unit in parts], search.run, jobs, engine)
        given_up |= {
            (fold, number) for (fold, number), parts in units.items() if not _told(search, fold, number, parts)
        }
        _write_table(search, folds)


def _round(
    search: Search, fold: int, trials: int, given: dict[str, Any], given_up: set[tuple[int, int]]
) -> dict[int, dict[str, Any]]:
    """Number and values of the trials to run next: those left open by an interruption or a failure, and new ones.

    Args:
        search: the search
        fold: whose trials
        trials: how many there are to be
        given: the config as it is, the first trial
        given_up: fold and number of those that failed in this call
    """
    from optuna.trial import Trial, TrialState

    study = search.study(fold)
    start = {key: _at(given, key) for key in search.space}
    if not study.get_trials(deepcopy=False) and all(entry.holds(start[key]) for key, entry in search.space.items()):
        study.enqueue_trial(start)
    begun = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    asked = [
        Trial(study, trial._trial_id)
        for trial in begun
        if trial.state == TrialState.RUNNING and (fold, trial.number) not in given_up
    ]
    # A round is told before the next begins; one that was cut off while it was asked for is filled up.
    end = -(-len(begun) // ROUND) * ROUND if asked else (len(begun) // ROUND + 1) * ROUND
    asked += [study.ask() for _ in range(len(begun), min(end, trials))]
    return {trial.number: _values(search, study, fold, trial) for trial in asked}


def _values(search: Search, study: Any, fold: int, trial: Any) -> dict[str, Any]:
    """What a trial is to try; a value that it was given before an interruption stays."""
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import TPESampler

    values = {}
    for place, (key, entry) in enumerate(search.space.items()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            drawn = np.random.SeedSequence((search.seed, fold, trial.number, place)).generate_state(1)
            study.sampler = TPESampler(seed=int(drawn[0]), constant_liar=True)
        values[key] = entry.suggested(trial, key)
    return values


def _told(search: Search, fold: int, number: int, parts: list[Unit]) -> bool:
    """Tell the study the score of a trial; whether it has one. A failed trial is left open."""
    done = [json.loads((part.folder / "done.json").read_text()) for part in parts if part.done]
    score = sum(facts["score"] for facts in done) / len(parts)
    if len(done) < len(parts) or not math.isfinite(score):
        return False
    search.study(fold).tell(number, score)
    return True


def _best(search: Search, fold: int) -> dict[str, Any] | None:
    """Values of the best finished trial, the earlier one of equals; None when none finished."""
    from optuna.trial import TrialState

    finished = search.study(fold).get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = -1 if search.tuning.higher_is_better else 1
    best = min(finished, key=lambda trial: (sign * trial.value, trial.number), default=None)
    return None if best is None else dict(best.params)


def _write_table(search: Search, folds: Sequence[int]) -> None:
    """After a round, so a trial that is still open has failed."""
    from optuna.trial import TrialState

    rows = [
        {
            "fold": fold,
            "trial": trial.number,
            "state": "fail" if trial.state == TrialState.RUNNING else trial.state.name.lower(),
            search.tuning.measure: trial.value,
            **{key: trial.params.get(key) for key in search.space},
        }
        for fold in folds
        for trial in search.study(fold).get_trials(deepcopy=False)
    ]
    write_whole(search.run / TABLE, pd.DataFrame(rows).to_csv(index=False))


def _write_overlay(search: Search, fold: int, values: dict[str, Any]) -> None:
    """What differs from the config, as a file for `-c`."""
    tree, own = overlay(search.files, search.overrides), dict[str, Any]()
    for text in _texts(values):
        own = merge(own, override(text, tree))
    said = (
        f"# Chosen inside the training side of fold {fold} by {search.tuning.measure}.\n"
        f"# Lay it over the config with -c. Other folds held-out cases took part: only fold {fold} judges the choice.\n"
    )
    path = search.run / f"best-fold{fold}.yaml"
    write_whole(path, said + yaml.safe_dump(own, sort_keys=False))
    progress(f"{path}: {', '.join(_texts(values))}")


def _texts(values: dict[str, Any]) -> list[str]:
    """Values as overrides."""
    return [
        f"{key}={yaml.safe_dump([value], default_flow_style=True, width=10**6).strip()[1:-1]}"
        for key, value in values.items()
    ]


def _at(tree: Tree, key: str) -> Any:
    """The value under a dotted key, whatever `init_args` lie on the way; the class's name where an object is."""
    node: Any = tree
    for name in key.split("."):
        if isinstance(node, dict) and "class_path" in node and name not in ("class_path", "init_args"):
            node = node.get("init_args") or {}
        node = node.get(name) if isinstance(node, dict) else None
    return node["class_path"].rpartition(".")[2] if isinstance(node, dict) and "class_path" in node else node
