"""The page of the demo: what was seen in each part, then the parts of the tasks' own reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.demo.parts import Part
from tasks.demo.verdict import Verdict
from tasks.experiment.report import Failure, Failures, Figure, Listing, Prose, Report, Section, Table
from tasks.experiment.report import Part as Shown
from tasks.experiment.report.numbers import count

NAME = "demo.html"


@dataclass(frozen=True)
class Ended:
    """How one part of the demo ended.

    Attributes:
        part: which
        run: its folder
        page: its report; None when the run left nothing to report
        verdicts: what its intervals say; none when it was not measured
        failure: what went wrong; None when nothing did
    """

    part: Part
    run: Path
    page: Report | None = None
    verdicts: Sequence[Verdict] = ()
    failure: Failure | None = None


def compose(ended: Sequence[Ended]) -> Report:
    """The page as data.

    Args:
        ended: the parts in reading order
    """
    failed = [one for one in ended if one.failure is not None]
    notice = ""
    if failed:
        what = "; ".join(one.failure.unit for one in failed if one.failure)
        notice = f"{len(failed)} of {count(len(ended), 'part')} did not end well: {what}. The others are complete."
    return Report(
        title="Four tasks on made data",
        lead=_lead(ended),
        sections=[Section("At a glance", list(_glance(ended))), *(_section(one) for one in ended)],
        notice=notice,
        context="fusion demo",
    )


def _lead(ended: Sequence[Ended]) -> str:
    """In how many parts the model under test is better than everything beside it, by their intervals."""
    measured = [one for one in ended if one.verdicts]
    if not measured:
        return "Nothing can be concluded: no part was measured."
    others = [one.part.task for one in measured if not all(verdict.beats_all for verdict in one.verdicts)]
    rest = f"; not so in {', '.join(others)}, where the part says what was seen" if others else ""
    return (
        f"In {len(measured) - len(others)} of {count(len(measured), 'part')} the model under test is better than every "
        f"baseline and rival on the same held-out cases{rest}. All data are made, so nothing here is about real ones."
    )


def _glance(ended: Sequence[Ended]) -> Iterator[Shown]:
    rows = [[one.part.task, *verdict.row.values()] for one in ended for verdict in one.verdicts]
    if rows:
        header = next(list(verdict.row) for one in ended for verdict in one.verdicts)
        yield Table(
            ["", *header],
            rows,
            "The model under test against the strongest of the other arms, on the same held-out cases.",
        )
    if failures := [one.failure for one in ended if one.failure is not None]:
        yield Failures(failures)


def _section(one: Ended) -> Section:
    """A part: what was seen, the tables and figures of its report, and how to run it alone."""
    said = [verdict.sentence for verdict in one.verdicts]
    notice = [one.page.notice] if one.page is not None and one.page.notice else []
    parts: list[Shown] = [Prose([*said, *notice, one.part.about])]
    if one.failure is not None:
        parts.append(Failures([one.failure]))
    if one.page is not None:
        sections = {section.title: section.parts for section in one.page.sections}
        shown = [part for title in one.part.shown for part in sections.get(title, ())]
        parts += [part.under(one.part.task) if isinstance(part, Figure) else part for part in shown]
        parts.append(Prose([f"Everything else of this run is in {one.run / 'report.html'}. The part alone:"]))
    parts.append(Listing(f"{one.part.task} train -c {one.part.config} --jobs 2"))
    return Section(one.part.title, parts)
