"""The `retrieval` command. Heavy imports happen inside the commands, so that help is instant."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tasks.experiment.arguments import Json, Quiet, Run, add_train
from tasks.experiment.console import DONE, SOME_FAILED, print_json, print_table, run_command, say

if TYPE_CHECKING:
    from tasks.retrieval.index import Index

LONGEST_CELL = 60

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
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Make an index of items, or extend one."""
    from tasks.retrieval.build_index import Opened, build, take_out
    from tasks.retrieval.progress import Progress
    from tasks.retrieval.space_index import build_spaces, places_of
    from tasks.retrieval.space_unit import TrainedSpaces

    progress = None if quiet else Progress("items")
    notes: list[str] = []
    if remove:
        made = {place: take_out(place, remove) for place in places_of(output, condition)}
    elif condition:
        if side is SideName.right:
            raise typer.BadParameter("spaces per attribute are those of the left items", param_hint="--side")
        spaces, notes = build_spaces(
            TrainedSpaces.of(run, arm, seed), items, output, condition, backend=backend.value,
            precision=precision.value, replace=replace, progress=progress,
        )  # fmt: skip
        made = {output / name: held for name, held in spaces.items()}
    else:
        held, notes = build(
            Opened.of(run, arm, seed), items, output, side.value, backend=backend.value, precision=precision.value,
            replace=replace, text=text, progress=progress,
        )  # fmt: skip
        made = {output: held}
    return _indexed(made, notes, json)


def _column(query: str) -> str:
    """A query as a cell of a table; a long one by its beginning."""
    return query if len(query) <= LONGEST_CELL else f"{query[: LONGEST_CELL - 3]}..."


@app.command()
def search(
    folder: IndexFolder,
    queries: Annotated[
        list[str],
        typer.Argument(
            metavar="QUERY...", help="a text, a file of what the run reads, or the id of an item; repeatable"
        ),
    ],
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
) -> int:
    """Ask an index: a table or JSON, best first. Of several queries, one that cannot be asked costs one line."""
    from tasks.experiment.outputs import check_output
    from tasks.retrieval.search import DRAWN, How, Searcher, page

    if report is not None:
        check_output(report)
    which = None if side is None else side.value
    how = How(k, which, memory_mb, min(k, DRAWN) if report is not None else 0, rerank, prompt or ())
    searcher = Searcher(folder, run, condition)
    found, failed = [], 0
    for query in queries:
        try:
            found += searcher.ask(query, how)
        except ValueError as problem:
            if len(queries) == 1:
                raise
            say(str(problem), "retrieval")
            failed += 1
    if report is not None and len(found) > 1:
        raise typer.BadParameter(f"a page shows one query, these are {len(found)}; ask one", param_hint="--report")
    for note in dict.fromkeys(note for one in found for note in one.notes):
        say(note, "retrieval")
    if json:
        about = {"index": str(folder), "items": len(searcher.index)}
        answers = [{"query": one.asking.name, "answers": [answer.row for answer in one.answers]} for one in found]
        print_json({**about, **answers[0]} if len(answers) == len(queries) == 1 else {**about, "queries": answers})
    else:
        several = len(found) > 1 or len(queries) > 1
        rows = [
            ({"query": _column(one.asking.name)} if several else {}) | answer.line
            for one in found
            for answer in one.answers
        ]
        print_table(rows, list(dict.fromkeys(column for row in rows for column in row)))
    if report is not None and found:
        say(f"report: {page(found[0], folder, report)}")
    return SOME_FAILED if failed else DONE


@app.command()
def verify(folder: IndexFolder, json: Json = False) -> int:
    """Check every file of an index against its manifest."""
    from tasks.experiment.report.numbers import count
    from tasks.retrieval import index_folder

    faults = index_folder.verify(folder)
    for fault in faults:
        say(f"{folder}: {fault}", "retrieval")
    if json:
        print_json({"index": str(folder), "whole": not faults, "faults": faults})
    else:
        print(f"{folder}: {'whole' if not faults else count(len(faults), 'fault')}")
    return SOME_FAILED if faults else DONE


@app.command()
def explain(
    run: Run,
    query: Annotated[str, typer.Argument(help="id of an item, a text, or a file of what the run reads")],
    k: Annotated[int, typer.Option("-k", min=1, help="how many answers")] = 5,
    gallery: Annotated[str | None, typer.Option(help="which gallery; default: the first that asks the query")] = None,
    arm: Arm = None,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """What the run's gallery answers to one query, and which token matched which."""
    from tasks.retrieval.explain import explained, write_down

    found = explained(run, query, k, arm=arm, seed=seed, gallery=gallery)
    for note in found.notes:
        say(note, "retrieval")
    page = write_down(found, run)
    if json:
        print_json({"page": str(page), **found.as_json})
    else:
        print(page)


def _indexed(made: dict[Path, Index], notes: list[str], json: bool) -> int:
    """Say what was made; the exit code: some items were not taken, or none was refused."""
    from tasks.experiment.report.numbers import count

    for note in notes:
        say(note, "retrieval")
    if json:
        found = [{"index": str(at), "items": len(one), "backend": one.settings.backend} for at, one in made.items()]
        print_json({"indices": found, "notes": notes})
    else:
        for at, one in made.items():
            print(f"{at}: {count(len(one), 'item')}, backend {one.settings.backend}")
    return SOME_FAILED if any(lost in note for note in notes for lost in ("left out", "stands twice")) else DONE


def main() -> None:
    run_command(app, "retrieval")
