"""The `fusion` command: any config, data sets, reports, benches, reproductions and a look at the installation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tasks.experiment.arguments import Engine, Folds, Jobs, Json, Overrides, Quiet, Resume, Run, Seeds
from tasks.experiment.console import (
    BAD_INPUT,
    DONE,
    SOME_FAILED,
    numbers,
    print_json,
    print_table,
    run_command,
    say,
    seed_numbers,
    speak_up,
)

app = typer.Typer(
    help="Multimodal fusion: from raw files to fused models, beside the simplest baseline.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data = typer.Typer(
    help="Data sets: what can be had, from where, and whether the copy here is whole.", no_args_is_help=True
)
app.add_typer(data, name="data")

REPRODUCED = Path("REPRODUCED.md")
DataSet = Annotated[str, typer.Argument(help="data set; `fusion data list` shows them")]


@app.command()
def run(
    config: Annotated[str, typer.Argument(help="YAML file or shipped name; its `task` says what is run")],
    overrides: Overrides = None,
    folds: Folds = "all",
    seeds: Seeds = "1",
    jobs: Jobs = 1,
    engine: Engine = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> int:
    """Run any config."""
    chosen, seeded = numbers(folds, "--folds"), seed_numbers(seeds)
    speak_up(quiet)
    from tasks.experiment.config import overlay
    from tasks.experiment.task import task_named

    task = task_named(overlay([config], overrides or []).get("task"))
    return task.train([config], overrides or [], chosen, seeded, jobs, engine, resume)


@app.command()
def tune(
    config: Annotated[str, typer.Argument(help="YAML file or shipped name")],
    space: Annotated[Path, typer.Argument(help="YAML file: KEY: [choices] or KEY: {low, high, log}")],
    overrides: Overrides = None,
    trials: Annotated[int, typer.Option(min=1, help="of each fold")] = 20,
    folds: Folds = "0",
    seed: Annotated[int, typer.Option(min=0, help="of the proposals and of every training")] = 1,
    jobs: Jobs = 1,
    engine: Engine = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> int:
    """Search options inside the training side of a fold, then score the best config on its held-out side."""
    chosen = numbers(folds, "--folds")
    speak_up(quiet)
    from tasks.experiment.tune import tune as search

    return search([config], space, overrides or [], trials, chosen, seed, jobs, engine, resume)


@app.command("list")
def list_(
    kind: Annotated[
        str, typer.Argument(help="encoders, operators, models, tasks, papers, configs, data or benches")
    ] = "tasks",
    json: Json = False,
) -> None:
    """Show what there is."""
    from tasks.catalogue import listing

    rows = listing(kind)
    print_json(rows) if json else print_table(rows)


@data.command("list")
def data_list(json: Json = False) -> None:
    """Every data set: size, licence, official address, and whether it is here."""
    from tasks.catalogue import listing

    rows = listing("data")
    print_json(rows) if json else print_table(rows)


@data.command("import")
def data_import(name: DataSet, folder: Annotated[Path, typer.Option("--from", help="folder with your copy")]) -> None:
    """Take a data set from a local copy and verify every file."""
    from data.sources import import_from

    print(import_from(name, folder, say))


@data.command("fetch")
def data_fetch(name: DataSet) -> int:
    """Download a data set's files from their official address and verify them."""
    from data.sources import fetch

    return _faults(name, fetch(name, say))


@data.command("verify")
def data_verify(name: DataSet) -> int:
    """Compare every file of the copy here with its size and checksum."""
    from data.sources import verify

    return _faults(name, verify(name))


def _faults(name: str, faults: list) -> int:
    for fault in faults:
        say(str(fault), name)
    from data.sources import source

    print(f"{name}: {f'{len(faults)} files are missing or wrong' if faults else 'whole'}")
    if faults:
        say(source(name).how_to_get, name)
    return SOME_FAILED if faults else DONE


@app.command()
def report(run: Run) -> None:
    """Write a run's report again; it may still be going."""
    from tasks.experiment.task import task_of

    print(task_of(run).report(run))


@app.command()
def slurm() -> None:
    """Show the job script that `--engine slurm` submits; docs/scale.md says where its settings are."""
    from tasks.experiment.cluster import script

    print(script(), end="")


@app.command()
def demo(
    runs: Annotated[Path, typer.Option(help="where run folders go")] = Path("runs"),
    gallery: Annotated[Path | None, typer.Option(help="folder that gets a page of small pictures")] = None,
) -> int:
    """Train, judge and report a small model of every task on made data: one page, RUNS/demo.html."""
    speak_up(quiet=False)
    from tasks.demo.run import demo as run_demo

    return run_demo(runs, gallery=gallery)


@app.command()
def reproduce(
    paper: Annotated[str, typer.Argument(help="key; `fusion list papers` shows them")],
    small: Annotated[bool, typer.Option("--small", help="the form that ends within three minutes")] = False,
    report: Annotated[Path | None, typer.Option(help="write the rows and their figures as a page")] = None,
    write: Annotated[bool, typer.Option("--write", help="put the table into ./REPRODUCED.md")] = False,
    features: Annotated[
        Path | None, typer.Option(help="of cmta: folder with slide features, one folder in it per cohort")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="processes, or SLURM jobs; all cores unless said")] = None,
    engine: Engine = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Ours beside what was published, recalled or measured before: a row each, with the tolerance and why."""
    if quiet:  # else parts and units say when they end; their epochs are in their own logs
        speak_up(quiet)
    from tasks.catalogue import PAPERS, reproduction, reproduction_page
    from tasks.experiment.outputs import check_output
    from tasks.reproduce.writing import check_section, write_section

    run_paper = reproduction(paper, features, jobs or os.cpu_count() or 1, engine)
    if report is not None:
        check_output(report)
    if write:
        check_section(REPRODUCED, paper, small)
    result = run_paper(small)
    if report is not None:
        reproduction_page(paper, result, report)
    if write:
        from importlib import import_module

        known = PAPERS[paper]
        write_section(REPRODUCED, known.title, import_module(known.module), result, small, known.on, list(PAPERS))
    if json:
        print_json(result)
    else:
        from tasks.reproduce.rows import verdict
        from tasks.reproduce.table import HEADER, cells

        print_table([dict(zip(HEADER, cells(row), strict=True)) for row in result["rows"]])
        for sentence in result.get("said", ()):
            print(sentence)
        print(f"{paper}: {verdict(result)}")
    return DONE if result["ok"] else SOME_FAILED


@app.command()
def bench(
    name: Annotated[str | None, typer.Argument(help="bench; `fusion list benches` shows them")] = None,
    every: Annotated[bool, typer.Option("--all", help="all of them")] = False,
    json: Json = False,
) -> int:
    """Time our code beside a peer in the same run."""
    from tasks.catalogue import BENCHES
    from tasks.catalogue import bench as find

    if name is None and not every:
        say(f"name a bench ({', '.join(BENCHES)}) or give --all", "fusion")
        return BAD_INPUT
    results = [find(key)() for key in (BENCHES if every else [str(name)])]
    if json:
        print_json(results if every else results[0])
        return DONE
    for result in results:
        print(f"{result['bench']} on {result['device']}")
        print_table(result["rows"])
    return DONE


@app.command()
def doctor(json: Json = False) -> int:
    """Check the installation: versions, devices, names, data, disk; each line with a remedy."""
    from tasks.experiment.doctor import examine

    findings = examine()
    if json:
        print_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            print(
                f"{finding.state:4} {finding.what}: {finding.found}{f' -> {finding.remedy}' if finding.remedy else ''}"
            )
    return SOME_FAILED if any(finding.state == "FAIL" for finding in findings) else DONE


def main() -> None:
    run_command(app, "fusion")
