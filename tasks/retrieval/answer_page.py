"""A query and its answers as a page: the items to look at or listen to, and which token matched which."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from data.pairs.sounds import played
from tasks.experiment.report import Exhibit, Exhibits, Facts, Figure, Part, Prose, Report, Section, Table
from tasks.experiment.report.numbers import count, decimal
from tasks.retrieval.alignment_pictures import pair_picture
from tasks.retrieval.scores import MEANING, Score
from tasks.retrieval.seen_items import Seen

SHOWN_AS_THEY_ARE = {"image", "melody", "text"}
"""Modalities that a page can show; of others there is only the alignment."""
SHOWN = 80
"""Characters of a text in a table."""

CAUTION = (
    "A token's partner is the token of the other item with the highest cosine in the trained space. It says what the "
    "score is made of, not why the model learned it."
)


@dataclass(frozen=True)
class Answer:
    """One hit.

    Attributes:
        rank: 1 = best
        id: of the item
        score: as ranked
        about: file or text, licence, attribution
        seen: its tokens; None when it cannot be read any more, or was not asked to be drawn
        right: whether it is a right answer, where that is known
        again: logit of the cross-encoder that read it again
    """

    rank: int
    id: str
    score: float
    about: dict[str, str]
    seen: Seen | None = None
    right: bool | None = None
    again: float | None = None

    @property
    def row(self) -> dict[str, object]:
        """As a table or JSON shows it."""
        said: dict[str, object] = {"rank": self.rank, "id": self.id, "score": round(self.score, 4)}
        if self.again is not None:
            said["read again"] = round(self.again, 4)
        if self.right is not None:
            said["right"] = self.right
        what = self.about.get("text") or self.about.get("file")
        return said | ({"what": what} if what else {}) | _credit(self.about)

    @property
    def line(self) -> dict[str, object]:
        """As a terminal shows it, where a long text would push everything else out of sight."""
        text = self.about.get("text")
        return self.row | ({"what": textwrap.shorten(text, SHOWN, placeholder="…")} if text else {})


def _credit(about: Mapping[str, str]) -> dict[str, object]:
    return {name: about[name] for name in ("attribution", "licence") if name in about}


def compose(
    asking: Seen, answers: Sequence[Answer], score: Score, facts: dict[str, object], context: str, lead: str
) -> Report:
    """The page as data.

    Args:
        asking: the query
        answers: best first
        score: what they were ranked by
        facts: where they were searched
        context: a short line above the title
        lead: the one sentence to remember
    """
    shown = [asking.about, *(answer.about for answer in answers)]
    credited = [(about.get("attribution", ""), about.get("licence", "")) for about in shown]
    credits = sorted({f"{who} ({terms})" if who and terms else who + terms for who, terms in credited} - {""})
    closing: list[Part] = [Facts({"score": f"{score}: {MEANING[score]}", **facts})]
    if credits:
        closing.append(Prose([f"Items shown: {'; '.join(credits)}."]))
    sections = [Section("Answers", [_table(answers), *_shown(asking, answers)])]
    if "condition" not in facts:
        sections.append(Section("Which token matched which", list(_pictures(asking, answers))))
        closing.insert(0, Prose([CAUTION]))
    sections.append(Section("How to read this", closing))
    return Report(title=f"What answers {asking.title}", lead=lead, sections=sections, context=context)


def exhibit(seen: Seen, title: str, note: str = "") -> Exhibit:
    """An item to look at or to listen to."""
    if seen.modality == "image":
        content = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(seen.raw.transpose(1, 2, 0))).save(content, "PNG")
        return Exhibit(title, note, picture=content.getvalue())
    if seen.modality == "melody":
        return Exhibit(title, note, sound=played(seen.raw))
    return Exhibit(title, note, text=str(seen.raw) if seen.modality == "text" else "")


def _shown(asking: Seen, answers: Sequence[Answer]) -> Iterator[Part]:
    """The query and the answers that could be read, where they can be looked at or listened to."""
    items = [(asking, "the query", asking.about)]
    items += [(answer.seen, f"{answer.rank}. {answer.id}", answer.about) for answer in answers if answer.seen]
    there = [item for item in items if item[0].modality in SHOWN_AS_THEY_ARE]
    if any(title != "the query" or seen.modality != "text" for seen, title, _ in there):
        yield Exhibits([exhibit(seen, title, _credited(about)) for seen, title, about in there])


def _credited(about: Mapping[str, str]) -> str:
    return ", ".join(map(str, _credit(about).values()))


def pictures(asking: Seen, answers: Sequence[Answer]) -> list[Figure]:
    """The alignment with every answer that can be drawn."""
    return [part for part in _pictures(asking, answers) if isinstance(part, Figure)]


def _pictures(asking: Seen, answers: Sequence[Answer]) -> Iterator[Part]:
    drawn = 0
    for answer in answers:
        if answer.seen is not None:
            judged = "" if answer.right is None else ", right" if answer.right else ", not its partner"
            drawn += 1
            yield pair_picture(
                f"answer-{answer.rank}",
                asking,
                answer.seen,
                f"{answer.rank}. {answer.id} ({decimal(answer.score)}{judged})",
            )
    if drawn < len(answers):
        yield Prose([f"Drawn: {count(drawn, 'answer')} of {len(answers)}."])


def _table(answers: Sequence[Answer]) -> Table:
    header = list(dict.fromkeys(name for answer in answers for name in answer.row))
    if len({_credited(answer.about) for answer in answers}) == 1:  # said once, below
        header = [name for name in header if name not in ("attribution", "licence")]
    rows = [[_cell(answer.row.get(name, "")) for name in header] for answer in answers]
    return Table(header, rows, f"{count(len(answers), 'answer')}, best first.")


def _cell(value: object) -> object:
    return ("yes" if value else "no") if isinstance(value, bool) else value
