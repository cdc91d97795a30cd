"""One row of a reproduction: what was published, what comes out here, and how far apart they may be."""

from collections.abc import Iterable
from typing import NotRequired, TypedDict


class Row(TypedDict):
    """A published figure beside ours; `note` says on how many patients and why the tolerance is what it is."""

    name: str
    published: float
    ours: float
    tolerance: float
    ok: bool
    note: str


class Result(TypedDict):
    """All rows of one paper; `ok` when every row is; `said` is what follows from them, in sentences."""

    paper: str
    ok: bool
    rows: list[Row]
    said: NotRequired[list[str]]


def close(name: str, published: float, ours: float, tolerance: float, note: str) -> Row:
    """A row that holds when ours is within the tolerance; an undefined (nan) value never is."""
    ours = float(ours)
    return Row(
        name=name,
        published=published,
        ours=ours,
        tolerance=tolerance,
        ok=abs(ours - published) <= tolerance * (1 + 1e-9),
        note=note,
    )


def at_least(name: str, published: float, ours: float, tolerance: float, note: str) -> Row:
    """A row that holds when ours is no more than the tolerance below what was published."""
    ours = float(ours)
    return Row(
        name=name, published=published, ours=ours, tolerance=tolerance, ok=ours >= published - tolerance, note=note
    )


def at_most(name: str, published: float, ours: float, tolerance: float, note: str) -> Row:
    """A row that holds when ours is no more than the tolerance above what was published."""
    ours = float(ours)
    return Row(
        name=name, published=published, ours=ours, tolerance=tolerance, ok=ours <= published + tolerance, note=note
    )


def result(paper: str, rows: Iterable[Row], said: Iterable[str] = ()) -> Result:
    """Collect rows, and sentences where a paper's module has some; a paper without rows is not reproduced."""
    listed, sentences = list(rows), list(said)
    whole = Result(paper=paper, ok=bool(listed) and all(row["ok"] for row in listed), rows=listed)
    if sentences:
        whole["said"] = sentences
    return whole
