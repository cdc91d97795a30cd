"""The `retrieval` command. Heavy imports happen inside the commands, so that help is instant."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tasks.experiment.arguments import Json, Quiet, Run, add_train
from tasks.experiment.console import DONE, SOME_FAILED, print_json, print_table, run_command, say

app = typer.Typer(
    help="Retrieval of any modality by any other, token by token, beside the pooled vectors a sceptic would try.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class SideName(StrEnum):
    """A side of the run's pairs."""

    left = "left"
    right = "right"


class BackendName(StrEnum):
    """How an index is searched."""

    exact = "exact"
    flat = "flat"
    ivfpq = "ivfpq"
    hnsw = "hnsw"


class PrecisionName(StrEnum):
    """What an index keeps."""

    float32 = "float32"
    float16 = "float16"


IndexFolder = Annotated[Path, typer.Argument(metavar="INDEX", help="index folder")]
Arm = Annotated[str | None, typer.Option(help="whose towers; default: the arm under test")]
Seed = Annotated[int | None, typer.Option(help="which training; default: the first that is finished")]
Memory = Annotated[float, typer.Option(min=1, help="MB that an exact search may allocate")]


add_train(
    app,
    "retrieval",
    "retrieval/emoji",
    "Train, rank and report an objective beside others on the same towers and pairs.",
)


@app.command()
def evaluate(
    run: Run,
    draws: Annotated[int, typer.Option(min=0, help="bootstrap resamples of queries")] = 1000,
    json: Json = False,
) -> None:
    """Measure the finished units of a run again, with intervals, and rewrite its tables and report."""
    from tasks.retrieval.evaluation import evaluate_run
    from tasks.retrieval.report import write

    results = evaluate_run(run, draws)
    assert results.summary is not None
    page = write(run)
    rows = results.summary.to_dict("records")
    if json:
        comparisons = [] if results.comparisons is None else results.comparisons.to_dict("records")
        print_json({"run": str(run), "report": str(page), "metrics": rows, "comparisons": comparisons})
    else:
        print_table(rows)
        print(f"report: {page}")


@app.command()
def index(
    run: Run,
    items: Annotated[
        str, typer.Argument(help="folder, file, CSV or JSON lines of items; `collection:test` = the run's own")
    ] = "collection",
    output: Annotated[Path, typer.Option("-o", "--output", help="index folder; one that exists is extended")] = Path(
        "index"
    ),
    side: Annotated[SideName, typer.Option(help="which tower reads the items")] = SideName.left,
    backend: Annotated[BackendName, typer.Option(help="of a new index; all but exact need FAISS")] = BackendName.exact,
    precision: Annotated[PrecisionName, typer.Option(help="of a new index")] = PrecisionName.float32,
    text: Annotated[str, typer.Option(help="column of the texts, in a table")] = "caption",
    replace: Annotated[bool, typer.Option("--replace", help="update items that the index holds already")] = False,
    remove: Annotated[list[str] | None, typer.Option(help="take this id out instead; repeatable")] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(help="index left items in the space of this attribute, below the folder; repeatable, or `all`"),
    ] = None,
    arm: Arm = None,
    seed: Seed = None,
    quiet: Quiet = False,
) -> int:
    """Make an index of items, or extend one."""
    from tasks.experiment.report.numbers import count
    from tasks.retrieval import index_folder
    from tasks.retrieval.build_index import Opened, build
    from tasks.retrieval.progress import Progress

    if condition and not remove:
        return _index_spaces(run, items, output, condition, arm, seed, backend, precision, replace, side, quiet)
    if remove:
        held = index_folder.load(output)
        held.remove(remove)
        index_folder.save(held, output)
        print(f"{output}: {count(len(held), 'item')}")
        return DONE
    progress = None if quiet else Progress("items")
    held, notes = build(
        Opened.of(run, arm, seed), items, output, side.value, backend=backend.value, precision=precision.value,
        replace=replace, text=text, progress=progress,
    )  # fmt: skip
    for note in notes:
        say(note, "retrieval")
    print(f"{output}: {count(len(held), 'item')}, backend {held.settings.backend}")
    return _ended(notes)


@app.command()
def search(
    folder: IndexFolder,
    query: Annotated[str, typer.Argument(help="a text, the path of a picture or a MIDI file, or the id of an item")],
    k: Annotated[int, typer.Option("-k", min=1, help="how many answers")] = 10,
    report: Annotated[Path | None, typer.Option(help="write a page with the token alignment here")] = None,
    condition: Annotated[str | None, typer.Option(help="attribute whose space is asked")] = None,
    rerank: Annotated[int, typer.Option(min=0, help="first hits that the run's cross-encoder reads again")] = 0,
    prompt: Annotated[
        list[str] | None, typer.Option(help="wording of the text, {} for it; repeatable: scores are averaged")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="the run folder, when it has moved")] = None,
    side: Annotated[SideName | None, typer.Option(help="which tower reads the query")] = None,
    memory_mb: Memory = 256.0,
    json: Json = False,
) -> None:
    """Ask an index: a table or JSON, best first."""
    from tasks.retrieval.search import DRAWN, page
    from tasks.retrieval.search import search as ask

    found = ask(
        folder, query, k, run=run, side=None if side is None else side.value, memory_mb=memory_mb,
        draw=min(k, DRAWN) if report is not None else 0, condition=condition, rerank=rerank, prompts=prompt or (),
    )  # fmt: skip
    for note in found.notes:
        say(note, "retrieval")
    rows = [answer.row for answer in found.answers]
    if json:
        print_json({"query": query, "index": str(folder), "items": len(found.index), "answers": rows})
    else:
        print_table(rows, list(dict.fromkeys(name for row in rows for name in row)))
    if report is not None:
        say(f"report: {page(found, folder, report)}")


@app.command()
def verify(folder: IndexFolder) -> int:
    """Check every file of an index against its manifest."""
    from tasks.experiment.report.numbers import count
    from tasks.retrieval import index_folder

    faults = index_folder.verify(folder)
    for fault in faults:
        say(f"{folder}: {fault}", "retrieval")
    print(f"{folder}: {'whole' if not faults else count(len(faults), 'fault')}")
    return SOME_FAILED if faults else DONE


@app.command()
def explain(
    run: Run,
    query: Annotated[str, typer.Argument(help="id of an item, a text, or the path of a picture or a MIDI file")],
    k: Annotated[int, typer.Option("-k", min=1, help="how many answers")] = 5,
    gallery: Annotated[str | None, typer.Option(help="which gallery; default: the first that asks the query")] = None,
    arm: Arm = None,
    seed: Seed = None,
) -> None:
    """What the run's gallery answers to one query, and which token matched which."""
    from tasks.retrieval.explain import explain as run_explain

    print(run_explain(run, query, k, arm=arm, seed=seed, gallery=gallery))


def _ended(notes: list[str]) -> int:
    """Some items were not taken, or none was refused."""
    return SOME_FAILED if any(lost in note for note in notes for lost in ("left out", "stands twice")) else DONE


def _index_spaces(
    run: Path, items: str, output: Path, conditions: list[str], arm: str | None, seed: int | None,
    backend: BackendName, precision: PrecisionName, replace: bool, side: SideName, quiet: bool,
) -> int:  # fmt: skip
    from tasks.experiment.report.numbers import count
    from tasks.retrieval.progress import Progress
    from tasks.retrieval.space_index import build_spaces
    from tasks.retrieval.space_unit import TrainedSpaces

    if side is SideName.right:
        raise typer.BadParameter("spaces per attribute are those of the left items", param_hint="--side")
    found, notes = build_spaces(
        TrainedSpaces.of(run, arm, seed), items, output, conditions, backend=backend.value,
        precision=precision.value, replace=replace, progress=None if quiet else Progress("items"),
    )  # fmt: skip
    for note in notes:
        say(note, "retrieval")
    for name, held in found.items():
        print(f"{output / name}: {count(len(held), 'item')}, backend {held.settings.backend}")
    return _ended(notes)


def main() -> None:
    run_command(app, "retrieval")
