"""The `survival` command. Heavy imports happen inside the commands, so that help is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tasks.experiment.arguments import Json, Run, add_train
from tasks.experiment.console import print_json, print_table, run_command
from tasks.survival.features_cli import features

app = typer.Typer(
    help="Survival analysis from slides and genes, beside the baselines a sceptic would try.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


add_train(
    app, "survival", "survival/tcga_genes", "Train, score and report a model beside its baselines on the same folds."
)


@app.command()
def evaluate(
    run: Run,
    draws: Annotated[int, typer.Option(min=0, help="bootstrap resamples of patients")] = 1000,
    json: Json = False,
) -> None:
    """Measure the finished units of a run again, with intervals, and rewrite its tables and report."""
    from tasks.survival.evaluation import evaluate_run
    from tasks.survival.report import write

    results = evaluate_run(run, draws)
    assert results.summary is not None
    page = write(run, results.config["name"])
    rows = results.summary.to_dict("records")
    if json:
        comparisons = [] if results.comparisons is None else results.comparisons.to_dict("records")
        print_json({"run": str(run), "report": str(page), "metrics": rows, "comparisons": comparisons})
    else:
        print_table(rows)
        print(f"report: {page}")


@app.command()
def predict(
    run: Run,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE...", help="where the new patients are, e.g. table=new.csv slides=features/"),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="CSV of risks; curves go beside it")] = Path(
        "risks.csv"
    ),
) -> None:
    """Risks and survival curves of new patients, averaged over the run's folds and seeds."""
    from tasks.survival.predict import predict as run_predict

    risks, curves = run_predict(run, overrides or [], output)
    print(f"risks: {risks}\ncurves: {curves}")


@app.command()
def plot(run: Run) -> None:
    """Write every figure of the report as a file into RUN/figures."""
    from tasks.experiment.folder import RunFolder
    from tasks.survival.report import plot as draw

    for path in draw(run, RunFolder.open(run).config["name"]):
        print(path)


@app.command()
def explain(
    run: Run,
    patient: Annotated[str, typer.Argument(help="case_id")],
    slides: Annotated[Path | None, typer.Option(help="folder of the slides themselves, for the thumbnail")] = None,
) -> None:
    """Who looked where for one patient, and what each modality contributed."""
    from tasks.survival.explain import explain as run_explain

    print(run_explain(run, patient, slides))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="evaluated runs of the same arms, for example one per cohort")],
    json: Json = False,
) -> None:
    """Arms over several runs: the c-index of each arm in each run, and its mean over the runs."""
    from tasks.survival.across import across

    rows = across(runs)
    print_json(rows) if json else print_table(rows)


app.command()(features)


def main() -> None:
    run_command(app, "survival")
