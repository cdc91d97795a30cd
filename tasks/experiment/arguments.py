"""The command-line arguments that every task's `train` shares, with one wording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. trainer.max_epochs=5")]
Configs = Annotated[list[str] | None, typer.Option("--config", "-c", help="YAML file or shipped name; repeatable")]
Folds = Annotated[str, typer.Option(help="all, or indices with commas")]
Seeds = Annotated[str, typer.Option(help="whole numbers with commas")]
Jobs = Annotated[int, typer.Option(min=1, help="processes on this machine, or SLURM jobs")]
Engine = Annotated[str | None, typer.Option(help="Dask scheduler, tcp://host:port, or slurm")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with an interrupted run")]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="print the resolved config and stop")]
Fast = Annotated[bool, typer.Option("--fast", help="first fold, two epochs: does it run?")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="only results and errors")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Run = Annotated[Path, typer.Argument(help="run folder, runs/TASK/NAME")]
