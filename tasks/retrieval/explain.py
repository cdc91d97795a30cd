"""`retrieval explain RUN QUERY`: what the run's own gallery answers, and which token matched which."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.errors import DataError
from data.pairs.items import Gallery, Pairs, Side
from fusion.tokens import Tokens
from tasks.experiment.folder import write_whole
from tasks.experiment.report import Report
from tasks.experiment.report.numbers import count, decimal
from tasks.experiment.signatures import did_you_mean
from tasks.retrieval.alignment_pictures import cosines
from tasks.retrieval.answer_page import Answer, compose, pictures
from tasks.retrieval.build_index import Opened
from tasks.retrieval.exact_search import best_of
from tasks.retrieval.feed import Feed, encode
from tasks.retrieval.metrics import per_query
from tasks.retrieval.new_items import described_in, query_of
from tasks.retrieval.scores import scores_of
from tasks.retrieval.seen_items import Seen
from tasks.retrieval.two_towers import Encoded


@dataclass(frozen=True)
class Explained:
    """A query and what was found.

    Attributes:
        asking: the query
        answers: best first
        facts: where they were searched
        page: all of it as a report
        notes: one line on whatever was cut
    """

    asking: Seen
    answers: list[Answer]
    facts: dict[str, object]
    page: Report
    notes: list[str]

    @property
    def as_json(self) -> dict[str, object]:
        """The numbers behind the pictures: per answer the best partner of each token that asks."""
        found = []
        for answer in self.answers:
            partners = []
            if answer.seen is not None:
                table = cosines(self.asking, answer.seen)
                for name, at, value in zip(self.asking.labels, table.argmax(axis=1), table.max(axis=1), strict=True):
                    partners.append(
                        {"token": name, "partner": answer.seen.labels[at], "cosine": round(float(value), 4)}
                    )
            found.append({**answer.row, "partners": partners})
        return {"query": self.asking.id, "modality": self.asking.modality, **self.facts, "answers": found}


def explain(run: Path, query: str, k: int = 5, **where: Any) -> Path:
    """Explain what a run answers to one query, and write it down.

    Args:
        run, query, k, where: see `explained`

    Raises:
        RunError, DataError: see `explained`
    """
    return write_down(explained(run, query, k, **where), run)


def write_down(found: Explained, run: Path) -> Path:
    """Write `RUN/explain/QUERY/`: explain.html, explanation.json and the pictures as files; returns the page."""
    folder = run / "explain" / (re.sub(r"[^\w.-]+", "-", found.asking.id).strip("-")[:60] or "query")
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures(found.asking, found.answers):
        picture.save(folder)
    write_whole(folder / "explanation.json", json.dumps(found.as_json, indent=2, ensure_ascii=False))
    return found.page.write(folder / "explain.html")


def explained(
    run: Path, query: str, k: int = 5, *, arm: str | None = None, seed: int | None = None, gallery: str | None = None
) -> Explained:
    """What a run answers to one query.

    Args:
        run: the run folder
        query: id of an item of the run's collection, a text, or the path of a picture or a MIDI file
        k: how many answers
        arm: whose towers; None = the arm under test
        seed: which training; None = the first that is finished
        gallery: name of the gallery that is searched; None = the first test gallery that asks the query

    Raises:
        RunError: no run, or no finished training
        DataError: no tower reads the query, or there is no such gallery
    """
    opened = Opened.of(run, arm, seed)
    pairs = opened.experiment.collection()
    (which, side, row), notes = _asked(query, pairs, opened)
    inside = side is (pairs.left if which == "left" else pairs.right)
    asking = Seen.of(opened.reader(which), side, row, described_in(pairs, which, [row])[0] if inside else None)
    searched = _gallery(pairs, gallery, which, row if inside else None)
    other = "right" if which == "left" else "left"
    rows = searched.right_gallery if which == "left" else searched.left_gallery
    items = _encoded(opened, pairs, other, rows)
    trained = opened.trained
    one = Encoded(Tokens.full(torch.from_numpy(asking.x)[None]), torch.from_numpy(asking.vector)[None])
    scores = scores_of(one, items, trained.score, trained.weight)
    truth = _truth(pairs, which, row, rows) if inside else None
    best = best_of(scores, k, 0)
    opposite = pairs.right if other == "right" else pairs.left
    found = [rows[at] for at in best.row[0].tolist()]
    answers = [
        Answer(
            rank,
            opposite.ids[item],
            score,
            about,
            Seen.of(opened.reader(other), opposite, item, about),
            None if truth is None else bool(truth[at]),
        )
        for rank, (item, score, about, at) in enumerate(
            zip(found, best.score[0].tolist(), described_in(pairs, other, found), best.row[0].tolist(), strict=True), 1
        )
    ]
    lead = _lead(asking, answers, scores, truth, searched.name, len(rows))
    facts: dict[str, object] = {
        "unit": opened.unit,
        "gallery": searched.name,
        "items": len(rows),
        "encoder": trained.hash,
    }
    page = compose(asking, answers, trained.score, facts, f"retrieval · {run.resolve().name} · {opened.unit}", lead)
    return Explained(asking, answers, facts, page, notes)


def _asked(query: str, pairs: Pairs, opened: Opened) -> tuple[tuple[str, Side, int], list[str]]:
    """The query as an item of a side, of the collection by its id, else from outside; and a line on what was cut."""
    for which, side in (("left", pairs.left), ("right", pairs.right)):
        if query in side.ids:
            return (which, side, side.ids.index(query)), []
    if re.fullmatch(r"[\w.-]+/[\w./-]+", query) and not Path(query).exists():
        near = did_you_mean(query, [*pairs.left.ids, *pairs.right.ids])
        raise DataError(f"{query}: no item of {pairs.name} and no file{near}")
    which, found = query_of(query, opened.trained.encoders)
    if len(found.side) > 1:
        raise DataError(f"{query}: holds {len(found.side)} items; a page explains one, give a file of one")
    cut = opened.trained.encoder(which).cut(found.side.load([0]))
    return (which, found.side, 0), [*found.notes, *cut.values()]


def _gallery(pairs: Pairs, name: str | None, which: str, row: int | None) -> Gallery:
    tested = [gallery for gallery in pairs.galleries if gallery.split == "test"]
    if name is not None:
        named = [gallery for gallery in pairs.galleries if gallery.name == name]
        if not named:
            known = ", ".join(gallery.name for gallery in pairs.galleries)
            raise DataError(f"gallery '{name}': {pairs.name} has {known}")
        return named[0]
    if not tested:
        raise DataError(f"{pairs.name}: no test items to search; give some items the split test")
    asks = [g for g in tested if row in (g.left_queries if which == "left" else g.right_queries)]
    return (asks or tested)[0]


def _encoded(opened: Opened, pairs: Pairs, which: str, rows: list[int]) -> Encoded:
    towers, trained = opened.trained.towers, opened.trained
    project = towers.project_left if which == "left" else towers.project_right
    side = pairs.left if which == "left" else pairs.right
    return encode(project, Feed(trained.encoder(which), side, opened.run / "features"), rows)


def _truth(pairs: Pairs, which: str, row: int, rows: list[int]) -> np.ndarray:
    return pairs.relevance([row], rows)[0] if which == "left" else pairs.relevance(rows, [row])[:, 0]


def _lead(
    asking: Seen, answers: list[Answer], scores: torch.Tensor, truth: np.ndarray | None, gallery: str, size: int
) -> str:
    among = f"among {count(size, 'item')} of {gallery}"
    if truth is None or not truth.any():
        return f"{answers[0].id} answers best {among}, with a score of {decimal(answers[0].score)}."
    rank = int(per_query(scores, torch.from_numpy(truth)[None])["rank"].iloc[0])
    return f"The first right answer to {asking.title} stands at rank {rank} {among}."
