"""`retrieval search`: a text, a picture or a melody against an index, and a page that shows what matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from data.errors import DataError
from data.pairs.items import Side
from tasks.experiment.folder import RunError
from tasks.experiment.report.numbers import count, decimal
from tasks.retrieval import index_folder
from tasks.retrieval.answer_page import Answer, compose
from tasks.retrieval.build_index import Opened
from tasks.retrieval.index import Index
from tasks.retrieval.late_interaction import Query
from tasks.retrieval.new_items import query_of
from tasks.retrieval.reader import Reader
from tasks.retrieval.rerank import CrossEncoder
from tasks.retrieval.seen_items import Seen, seen_again
from tasks.retrieval.space_index import place_of, reader
from tasks.retrieval.space_unit import TrainedSpaces

DRAWN = 6
"""Answers whose alignment a page shows."""


@dataclass(frozen=True)
class Searched:
    """What came back.

    Attributes:
        asking: the query
        answers: best first
        index: what was searched
        origin: the run and unit that made it, side and attribute
        notes: one line on whatever was cut or left out
    """

    asking: Seen
    answers: list[Answer]
    index: Index
    origin: dict[str, str]
    notes: list[str] = field(default_factory=list)


class Asking(NamedTuple):
    """One query as its tower sees it, and which tower that is."""

    seen: Seen
    which: str


class Behind(NamedTuple):
    """What made an index: its hash, what reads each side, and the towers where there are two."""

    hash: str
    readers: Mapping[str, Reader]
    opened: Opened | None


@dataclass(frozen=True)
class How:
    """How an index is asked.

    Attributes:
        k: how many answers
        side: left or right: the tower that reads the query; None = the one of its modality
        memory_mb: bound on what an exact search allocates
        draw: how many answers are read again, for a page
        rerank: so many first hits are read again by the run's cross-encoder; 0 = none
        prompts: wordings of the text, `{}` for it; items are ranked by the mean of their scores
    """

    k: int = 10
    side: str | None = None
    memory_mb: float = 256.0
    draw: int = 0
    rerank: int = 0
    prompts: Sequence[str] = ()


class Searcher:
    """An index and the towers that made it, read once for any number of queries.

    Args:
        folder: of the index, or of one index per attribute
        run: the run folder, when it has moved since the index was made
        condition: the attribute whose space is asked; None = the index has none

    Raises:
        RunError: the run of the index is not there
        DataError: no index, or an index of another encoder
    """

    def __init__(self, folder: Path, run: Path | None = None, condition: str | None = None):
        place = place_of(folder, condition)
        self.index = index_folder.load(place)
        self._behind = _behind(place, self.index, run)
        origin = {name: str(value) for name, value in self.index.settings.origin.items()}
        self._origin = origin | ({"run": str(run)} if run else {})

    def ask(self, query: str, how: How = How()) -> list[Searched]:
        """Ask one query.

        Args:
            query: a text, the path of a file that one of the towers reads, or the id of an item that the index holds
            how: see there

        Returns:
            one, or one per row where the file is an array or a table of several

        Raises:
            RunError: the run trained no cross-encoder
            DataError: a query that nothing reads
        """
        cross = _cross_encoder(self._behind) if how.rerank else None
        found, notes = _asked(query, self.index, self._behind.readers, how.side)
        if how.k > len(self.index) > 0:
            notes.append(f"k={how.k}, but the index holds {count(len(self.index), 'item')}; all of them are ranked")
        return [self._answered(one, how, cross, notes if not at else []) for at, one in enumerate(found)]

    def _answered(self, asking: Asking, how: How, cross: CrossEncoder | None, notes: list[str]) -> Searched:
        origin, readers = self.index.settings.origin, self._behind.readers
        if cross is not None and asking.which == origin["side"]:
            raise DataError(
                f"--rerank: query and items are both {asking.which}; the cross-encoder reads one of each side"
            )
        ask = asking.seen.query if not how.prompts else _worded(asking.seen, readers[asking.which], how.prompts)
        wanted = max(how.k, how.rerank)
        hits = self.index.search([ask], wanted, self._behind.hash, memory_mb=how.memory_mb)[0]
        answers = []
        for rank, hit in enumerate(hits, start=1):
            about = self.index.about.get(hit.id, {})
            read = rank <= max(how.draw, how.rerank)
            seen = seen_again(readers[origin["side"]], hit.id, about) if read else None
            answers.append(Answer(rank, hit.id, hit.score, about, seen))
        lost: list[str] = []
        if cross is not None:
            answers, lost = _read_again(cross, asking.seen, asking.which, answers, how.rerank)
        return Searched(asking.seen, answers[: how.k], self.index, self._origin, [*notes, *lost])


def search(
    folder: Path, query: str, k: int = 10, *, run: Path | None = None, condition: str | None = None, **how: Any
) -> Searched:
    """Ask an index once; see `Searcher` and `How`.

    Raises:
        RunError, DataError: see `Searcher`; also a file of several queries
    """
    found = Searcher(folder, run, condition).ask(query, How(k, **how))
    if len(found) > 1:
        raise DataError(f"{query}: {len(found)} queries in one file; ask a `Searcher`")
    return found[0]


def page(searched: Searched, folder: Path, path: Path) -> Path:
    """Write what was found as a page."""
    best, settings, origin = searched.answers[0], searched.index.settings, searched.origin
    facts: dict[str, object] = {
        "index": str(folder),
        "items": len(searched.index),
        "backend": settings.backend,
        "encoder": settings.encoder,
        **{name: origin[name] for name in ("run", "unit", "condition") if name in origin},
    }
    under = f" under {origin['condition']}" if "condition" in origin else ""
    lead = f"Of {count(len(searched.index), 'item')}, {best.id} answers best{under}, with a score of "
    lead += f"{decimal(best.score)}."
    context = f"retrieval · {folder.name}"
    return compose(searched.asking, searched.answers, settings.score, facts, context, lead).write(path)


def _behind(place: Path, index: Index, run: Path | None) -> Behind:
    origin = index.settings.origin
    if not {"run", "unit", "side"} <= origin.keys():
        raise DataError(f"{place}: made from Python, not by `retrieval index`; search it with `Index.search`")
    arm, _, unit = origin["unit"].rpartition("/")
    folder, seed = run or Path(origin["run"]), int(unit.rsplit("-seed", 1)[1])
    if "condition" in origin:
        spaces = TrainedSpaces.of(folder, arm, seed)
        behind = Behind(spaces.hash, {"left": reader(spaces, origin["condition"])}, None)
    else:
        opened = Opened.of(folder, arm, seed)
        behind = Behind(opened.trained.hash, opened.readers, opened)
    if behind.hash != index.settings.encoder:
        raise DataError(
            f"{place}: made by encoder {index.settings.encoder}, but the run {folder} now holds {behind.hash}; index "
            "the items again"
        )
    return behind


def _asked(query: str, index: Index, readers: Mapping[str, Reader], side: str | None) -> tuple[list[Asking], list[str]]:
    """The query as its tower sees it, or every row of it, and a line on what was cut or left out."""
    held = index.settings.origin["side"]
    if query in index.items and side in (None, held):
        seen = seen_again(readers[held], query, index.about.get(query, {}))
        if seen is None:
            raise DataError(f"{query}: an item of the index that can no longer be read; is its file still there?")
        return [Asking(seen, held)], []
    which, found = query_of(query, {name: one.encoder for name, one in readers.items()}, side)
    rows = range(len(found.side))
    cut = readers[which].encoder.cut(found.side.load(rows)).values()
    return [Asking(Seen.of(readers[which], found.side, row), which) for row in rows], [*found.notes, *cut]


def _worded(asking: Seen, reads: Reader, prompts: Sequence[str]) -> Query:
    """One query that scores what its wordings score on average.

    Raises:
        DataError: it is no text, or a wording has no place for it
    """
    if asking.modality != "text":
        raise DataError(f"--prompt: words a text, but the query is of modality {asking.modality}")
    if wrong := [prompt for prompt in prompts if prompt.count("{}") != 1]:
        raise DataError(f"--prompt '{wrong[0]}': expected {{}} once, where the text goes")
    texts = [prompt.replace("{}", str(asking.raw)) for prompt in prompts]
    side = Side("text", [str(at) for at in range(len(texts))], lambda rows: [texts[row] for row in rows])
    return Query.ensemble([Seen.of(reads, side, row).query for row in range(len(texts))])


def _cross_encoder(behind: Behind) -> CrossEncoder:
    if behind.opened is None:
        raise RunError("--rerank: the spaces of attributes have no cross-encoder; ask an index of the towers")
    return behind.opened.cross_encoder()


@torch.no_grad()
def _read_again(
    cross: CrossEncoder, asking: Seen, which: str, answers: list[Answer], number: int
) -> tuple[list[Answer], list[str]]:
    """The first answers in the order of the cross-encoder; those that cannot be read keep their place after them."""
    first = [answer for answer in answers[:number] if answer.seen is not None]
    lost = [answer for answer in answers[:number] if answer.seen is None]
    notes = [f"{answer.id}: can no longer be read, so it is not ranked again" for answer in lost]
    judged = []
    for answer in first:
        assert answer.seen is not None
        assert asking.source is not None
        assert answer.seen.source is not None
        pair = asking.source, answer.seen.source
        logit = cross(*(pair if which == "left" else reversed(pair)))
        judged.append(replace(answer, again=float(logit)))
    judged.sort(key=lambda answer: -(answer.again or 0.0))
    ordered = [*judged, *lost, *answers[number:]]
    return [replace(answer, rank=rank) for rank, answer in enumerate(ordered, start=1)], notes
