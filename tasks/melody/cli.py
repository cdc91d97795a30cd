"""The `melody` command. Heavy imports happen inside the commands, so that help is instant."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tasks.experiment.arguments import Json, Run, add_train
from tasks.experiment.console import DONE, print_json, print_table, run_command
from tasks.melody import song_commands

app = typer.Typer(
    help="Melodies from skeletons, phrase by phrase, that keep every promise; phrases, skeletons and chorales.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class ScaleName(StrEnum):
    """Which pitches may be added."""

    key = "key"
    any = "any"


Arm = Annotated[str | None, typer.Option(help="which model; default: the one under test")]
UnitSeed = Annotated[int | None, typer.Option(help="which training; default: the first that is finished")]
Rho = Annotated[float, typer.Option(help="share of a phrase's notes to keep, where the file marks no skeleton")]
Track = Annotated[str | None, typer.Option(help="name or number of the MIDI track; default: skeleton, else melody")]
KeyText = Annotated[str | None, typer.Option("--key", help="tonic and mode, D:zhi or A:min; default: the file's")]
MetreText = Annotated[str | None, typer.Option("--metre", help="such as 2/4; default: the file's")]


add_train(
    app,
    "melody",
    "melody/small_tunes",
    "Train, measure, generate and report a model beside others and a Markov table on the same pieces.",
)


@app.command()
def evaluate(
    run: Run,
    draws: Annotated[int, typer.Option(min=0, help="bootstrap resamples of pieces")] = 1000,
    json: Json = False,
) -> None:
    """Measure the finished units of a run again, with intervals, and rewrite its tables and report."""
    from tasks.melody.evaluation import evaluate_run
    from tasks.melody.report import write

    results = evaluate_run(run, draws)
    page = write(run)
    tables = {
        name: [] if table is None else table.to_dict("records")
        for name, table in (
            ("metrics", results.summary), ("comparisons", results.comparisons), ("generation", results.generation)
        )
    }  # fmt: skip
    if json:
        print_json({"run": str(run), "report": str(page), **tables})
        return
    print_table(tables["metrics"])
    print_table(tables["generation"])
    print(f"report: {page}")


@app.command()
def generate(
    run: Run,
    skeleton: Annotated[
        Path | None, typer.Option(help="MIDI, ABC, **kern or JSON: a skeleton, or a melody to take one from")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="out.mid; several become out-1.mid, ...")] = Path(
        "out.mid"
    ),
    key: KeyText = None,
    metre: MetreText = None,
    seed: Annotated[int, typer.Option(help="of the draws: the same seed gives the same melodies")] = 1,
    top_p: Annotated[float, typer.Option(help="choose among the likeliest values that hold this share")] = 0.9,
    temperature: Annotated[float, typer.Option(help="below 1: likelier values")] = 1.0,
    count: Annotated[int, typer.Option(min=1, help="melodies")] = 1,
    infill: Annotated[
        str | None, typer.Option(metavar="FROM-TO", help="fill in these bars, from 1, and keep all others")
    ] = None,
    bars: Annotated[int | None, typer.Option(min=1, help="of a chorale, which needs no skeleton; default: 8")] = None,
    low: Annotated[int | None, typer.Option(help="lowest MIDI pitch that may be added")] = None,
    high: Annotated[int | None, typer.Option(help="highest MIDI pitch that may be added")] = None,
    scale: Annotated[ScaleName, typer.Option(help="pitches that may be added")] = ScaleName.key,
    rho: Rho = 0.3,
    track: Track = None,
    stream: Annotated[bool, typer.Option("--stream", help="write each phrase as soon as it is there")] = False,
    wav: Annotated[bool, typer.Option("--wav", help="write sound beside each melody")] = False,
    roll: Annotated[bool, typer.Option("--roll", help="write a piano roll (PNG) beside each melody")] = False,
    arm: Arm = None,
    unit_seed: UnitSeed = None,
    json: Json = False,
) -> int:
    """Melodies that keep every skeleton note, in the given key and metre; or chorales, of a run that learned them."""
    from tasks.experiment.outputs import check_output
    from tasks.melody.generate import generate_files
    from tasks.melody.request import Request

    check_output(output)
    request = Request(
        run, output, skeleton, key=key, metre=metre, seed=seed, top_p=top_p, temperature=temperature, count=count,
        infill=infill, low=low, high=high, scale=scale.value, rho=rho, track=track, wav=wav, roll=roll, arm=arm,
        unit_seed=unit_seed, bars=bars, stream=stream,
    )  # fmt: skip
    told = (lambda line: print(line, flush=True)) if stream and not json else None
    rows, bound = generate_files(request, tell=told)
    if json:
        print_json({"run": str(run), "melodies": rows, "rules": bound})
        return DONE
    print_table(rows)
    print_table(bound)
    return DONE


@app.command()
def plot(
    file: Annotated[Path, typer.Argument(help="run folder, or a melody: MIDI, ABC, **kern or JSON")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="PNG or SVG of a melody")] = None,
    key: KeyText = None,
    rho: Rho = 0.3,
    track: Track = None,
) -> None:
    """Every figure of a run's report into RUN/figures, or the piano roll of a melody with phrases and skeleton."""
    from tasks.melody.plot import plot_file, plot_run

    for path in plot_run(file) if file.is_dir() else [plot_file(file, output, key, rho, track)]:
        print(path)


@app.command()
def explain(
    run: Run,
    file: Annotated[Path, typer.Argument(help="melody: MIDI, ABC, **kern or JSON")],
    key: KeyText = None,
    metre: MetreText = None,
    rho: Rho = 0.3,
    track: Track = None,
    arm: Arm = None,
    unit_seed: UnitSeed = None,
) -> None:
    """Note by note: how likely the model finds it, and which phrases of the skeleton it read for it."""
    from tasks.melody.explain import explain as run_explain

    print(run_explain(run, file, key=key, metre=metre, rho=rho, track=track, arm=arm, unit_seed=unit_seed))


song_commands.add(app)


def main() -> None:
    run_command(app, "melody")
