"""The command-line arguments that tasks share, with one wording, and the command that takes them all: `train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tasks.experiment.console import numbers, seed_numbers, speak_up

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. trainer.max_epochs=5")]
Configs = Annotated[list[str] | None, typer.Option("--config", "-c", help="YAML file or shipped name; repeatable")]
Folds = Annotated[str, typer.Option(help="all, or indices with commas")]
Seeds = Annotated[str, typer.Option(help="whole numbers from 0 with commas")]
Jobs = Annotated[int, typer.Option(min=1, help="processes on this machine, or SLURM jobs")]
Engine = Annotated[str | None, typer.Option(help="Dask scheduler, tcp://host:port, or slurm")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with an interrupted run")]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="print the resolved config and stop")]
Fast = Annotated[bool, typer.Option("--fast", help="first fold, two epochs: does it run?")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="only results and errors")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Run = Annotated[Path, typer.Argument(help="run folder, runs/TASK/NAME")]


def add_train(app: typer.Typer, task: str, example: str, words: str) -> None:
    """Give a task's command its `train`.

    Args:
        app: of the task
        task: its name; its module is imported when the command runs
        example: a shipped config, for who gives none
        words: what the help says
    """

    def train(
        overrides: Overrides = None,
        config: Configs = None,
        folds: Folds = "all",
        seeds: Seeds = "1",
        jobs: Jobs = 1,
        engine: Engine = None,
        resume: Resume = False,
        print_config: PrintConfig = False,
        fast: Fast = False,
        quiet: Quiet = False,
    ) -> int:
        if not config:
            raise typer.BadParameter(f"give at least one config: -c {example}", param_hint="-c")
        chosen, seeded = numbers(folds, "--folds"), seed_numbers(seeds)
        speak_up(quiet)
        from tasks.experiment.task import task_named

        found = task_named(task)
        return found.train(config, overrides or [], chosen, seeded, jobs, engine, resume, print_config, fast)

    app.command(help=words)(train)
