"""The `fmri` command. Heavy imports happen inside the commands, so that help is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from tasks.experiment.arguments import Configs, Jobs, Json, Quiet, Resume, Run, add_train
from tasks.experiment.console import print_json, print_table, run_command, speak_up

app = typer.Typer(
    help=(
        "Decode brains by whole held-out runs, beside chance, a permutation null, position alone and classical "
        "decoders. As a BIDS app: fmri BIDS OUT participant --participant-label 01 --lag 5"
    ),
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


add_train(app, "fmri", "fmri/haxby", "Train, score and report a decoder beside its baselines on the same folds.")


@app.command()
def evaluate(
    run: Run,
    draws: Annotated[int, typer.Option(min=0, help="bootstrap resamples of runs")] = 1000,
    json: Json = False,
) -> None:
    """Measure the finished units of a run again, with intervals, and rewrite its tables, derivatives and report."""
    from tasks.fmri.evaluation import evaluate_run
    from tasks.fmri.experiment import experiment_of_run
    from tasks.fmri.outputs import write_outputs
    from tasks.fmri.report import write

    results = evaluate_run(run, draws)
    assert results.summary is not None
    write_outputs(results, experiment_of_run(run), run / "derivatives")
    page = write(run)
    rows = results.summary.to_dict("records")
    if json:
        comparisons = [] if results.comparisons is None else results.comparisons.to_dict("records")
        print_json({"run": str(run), "report": str(page), "metrics": rows, "comparisons": comparisons})
    else:
        print_table(rows)
        print(f"report: {page}")


@app.command()
def decode(
    run: Run,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE...", help="where the new data are, in the words of the run's `brains`"),
    ] = None,
    bold: Annotated[
        list[Path] | None, typer.Option(help="instead: a 4-D image without events, every volume of it; repeatable")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="whose images those are")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of the fit; by default the first one of the run")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="folder of the derivatives")] = Path("decoded"),
) -> None:
    """Decode new data of the run's subjects; every sample gets a score for each candidate.

    The model under test is fitted on all samples of the run, repeats averaged where the run averages them.
    """
    from tasks.fmri.decode import decode as run_decode

    for path in run_decode(run, overrides or [], output, bold or [], subject, seed):
        print(path)


@app.command()
def plot(run: Run) -> None:
    """Write every figure of the report as a file into RUN/figures."""
    from tasks.fmri.report import plot as draw

    for path in draw(run):
        print(path)


@app.command()
def explain(
    run: Run,
    subject: Annotated[str | None, typer.Argument(help="label; by default every subject")] = None,
    arm: Annotated[str | None, typer.Option(help="which decoder; by default the model under test")] = None,
) -> None:
    """Which voxels a decoder uses in a subject, where they are, and what it gets right and wrong there."""
    from tasks.fmri.explain import explain as run_explain

    for path in run_explain(run, subject, arm):
        print(path)


@app.command()
def rsa(
    rdms: Annotated[Path, typer.Argument(help="dissimilarities of several people: npz, npy or mat")],
    models: Annotated[
        list[Path] | None, typer.Option(help="table with a column per model, or dissimilarities; repeatable")
    ] = None,
    key: Annotated[str | None, typer.Option(help="which array of an npz")] = None,
    draws: Annotated[int, typer.Option(min=1, help="permutations and resamples")] = 1000,
    json: Json = False,
) -> None:
    """Noise ceiling, identification and models of dissimilarities that are computed already."""
    from tasks.fmri.rsa_files import compare_files

    rows = compare_files(rdms, models or [], key, draws)
    if json:
        print_json(rows)
        return
    for part in rows.values():
        print_table(part)


@app.command(hidden=True)
def bids_app(
    bids: Annotated[Path, typer.Argument(help="BIDS dataset or BIDS derivatives, e.g. of fMRIPrep")],
    out: Annotated[Path, typer.Argument(help="folder of the derivatives")],
    level: Annotated[Literal["participant", "group"], typer.Argument(help="one by one, or all together")],
    lag: Annotated[
        float | None, typer.Option(help="seconds from a labelled onset to the response that is decoded; no default")
    ] = None,
    participant_label: Annotated[list[str] | None, typer.Option(help="without sub-; by default all")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE; repeatable")] = None,
    config: Configs = None,
    jobs: Jobs = 1,
    resume: Resume = False,
    quiet: Quiet = False,
) -> int:
    """Decode a BIDS dataset and write BIDS derivatives."""
    if lag is None:
        raise typer.BadParameter(
            "say how many seconds after a labelled onset the response is decoded: about 5 where events hold times of "
            "presentation, 0 where they are shifted already (the report shows which)",
            param_hint="--lag",
        )
    speak_up(quiet)
    from tasks.fmri.bids_app import run_bids_app

    return run_bids_app(bids, out, level, participant_label or [], lag, config or [], overrides or [], jobs, resume)


def bids_arguments(arguments: list[str]) -> list[str]:
    """The call of a BIDS app (`BIDS OUT participant --participant-label 01 02`) as our command; others as they are.

    Args:
        arguments: without the program's name
    """
    levels = ("participant", "group")
    if (
        len(arguments) < 3
        or arguments[0].startswith("-")
        or not (any(word in levels for word in arguments[1:]) or Path(arguments[0]).is_dir())
    ):
        return arguments
    if arguments[0] in {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }:
        return arguments
    spread: list[str] = ["bids-app"]
    of_label, nobody = False, False
    for word, after in zip(arguments, [*arguments[1:], "-"], strict=True):
        if word.startswith("-"):
            of_label = word in ("--participant-label", "--participant_label")
            nobody |= of_label and after.startswith("-")
            if not of_label:
                spread.append(word)
        elif of_label:
            spread += ["--participant-label", word.removeprefix("sub-")]
        else:
            spread.append(word)
    # Without a label it is not everybody who is meant: the option stands bare at the end and is refused.
    return [*spread, *(["--participant-label"] if nobody else [])]


def main() -> None:
    sys.argv[1:] = bids_arguments(sys.argv[1:])
    run_command(app, "fmri")
