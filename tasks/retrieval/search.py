"""`retrieval search`: a text, a picture or a melody against an index, and a page that shows what matched."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from data.errors import DataError
from tasks.experiment.report.numbers import count, decimal
from tasks.retrieval import index_folder
from tasks.retrieval.answer_page import Answer, compose
from tasks.retrieval.build_index import Opened
from tasks.retrieval.index import Index
from tasks.retrieval.new_items import query_of
from tasks.retrieval.seen_items import Seen, seen_again

DRAWN = 6
"""Answers whose alignment a page shows."""


@dataclass(frozen=True)
class Searched:
    """What came back.

    Attributes:
        asking: the query
        answers: best first
        index: what was searched
        opened: the run that made it
        notes: one line on whatever was cut or left out
    """

    asking: Seen
    answers: list[Answer]
    index: Index
    opened: Opened
    notes: list[str] = field(default_factory=list)


def search(
    folder: Path,
    query: str,
    k: int = 10,
    *,
    run: Path | None = None,
    side: str | None = None,
    memory_mb: float = 256.0,
    draw: int = 0,
) -> Searched:
    """Ask an index.

    Args:
        folder: of the index
        query: a text, or the path of a picture or a MIDI file
        k: how many answers
        run: the run folder, when it has moved since the index was made
        side: left or right: the tower that reads the query; None = the one of its modality
        memory_mb: bound on what an exact search allocates
        draw: how many answers are read again, for a page

    Raises:
        RunError: the run of the index is not there
        DataError: no index, an index of another encoder, or a query that no tower reads
    """
    index = index_folder.load(folder)
    origin = index.settings.origin
    arm, _, unit = origin["unit"].rpartition("/")
    opened = Opened.of(run or Path(origin["run"]), arm, int(unit.rsplit("-seed", 1)[1]))
    if opened.trained.hash != index.settings.encoder:
        raise DataError(
            f"{folder}: made by encoder {index.settings.encoder}, but the run {opened.run} now holds "
            f"{opened.trained.hash}; index the items again"
        )
    which, found = query_of(query, opened.trained, side)
    notes = list(found.notes)
    notes += opened.trained.encoder(which).cut(found.side.load([0])).values()
    asking = Seen.of(opened, which, found.side, 0)
    if k > len(index) > 0:
        notes.append(f"k={k}, but the index holds {count(len(index), 'item')}; all of them are ranked")
    hits = index.search([asking.query], k, opened.trained.hash, memory_mb=memory_mb)[0]
    answers = []
    for rank, hit in enumerate(hits, start=1):
        about = index.about.get(hit.id, {})
        seen = seen_again(opened, origin["side"], hit.id, about) if rank <= draw else None
        answers.append(Answer(rank, hit.id, hit.score, about, seen))
    return Searched(asking, answers, index, opened, notes)


def page(searched: Searched, folder: Path, path: Path) -> Path:
    """Write what was found as a page."""
    best, settings = searched.answers[0], searched.index.settings
    facts: dict[str, object] = {
        "index": str(folder),
        "items": len(searched.index),
        "backend": settings.backend,
        "encoder": settings.encoder,
        "run": str(searched.opened.run),
        "unit": searched.opened.unit,
    }
    lead = f"Of {count(len(searched.index), 'item')}, {best.id} answers best, with a score of {decimal(best.score)}."
    context = f"retrieval · {folder.name}"
    return compose(searched.asking, searched.answers, settings.score, facts, context, lead).write(path)
