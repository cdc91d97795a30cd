"""One row of a reproduction: what stands against ours, whose figure that is, and how far apart they may be.

`fusion reproduce KEY --json` prints a `Result`: its `rows` with the fields of `Row`, and what they come to.
"""

from collections.abc import Iterable
from typing import Literal, NotRequired, TypedDict, Unpack

Kind = Literal["published", "recalled", "measured", "bar", "rival", "none"]
"""Whose figure a row's `against` is:

- published: of the paper or its authors' files
- recalled: remembered to be the paper's, not read again
- measured: came out before, of other code of this project on the same files
- bar: set by us beforehand, or chance
- rival: of another arm of the same run
- none: nobody's; the row describes and claims nothing
"""
State = Literal["reproduced", "in part", "not reproduced"]


class Found(TypedDict, total=False):
    """What is known of our figure beside its value.

    Attributes:
        low, high: ends of its 95 % interval
        n, of: cases behind it, and what they are: 96 blocks
        seeds: of the trainings or draws behind it
        line, at: the curve of the paper's figure that it is a point of, and where on the horizontal axis
    """

    low: float
    high: float
    n: int
    of: str
    seeds: list[int]
    line: str
    at: float


class Row(Found):
    """A figure of ours and what it is held against.

    Attributes:
        name: what was measured
        kind: whose figure `against` is
        against: None where nothing is claimed
        ours: our figure
        tolerance: how far ours may be on the worse side; None where nothing is claimed
        ok: whether the claim holds; None where nothing is claimed
        note: on what it was measured, and why the tolerance is what it is
    """

    name: str
    kind: Kind
    against: float | None
    ours: float
    tolerance: float | None
    ok: bool | None
    note: str


class Result(TypedDict):
    """All rows of one paper.

    Attributes:
        paper: its key
        ok: whether every claim holds
        held, claims: how many claims hold, of how many; descriptive rows are none
        rows: in the order of the table
        said: what follows from them, in sentences
    """

    paper: str
    ok: bool
    held: int
    claims: int
    rows: list[Row]
    said: NotRequired[list[str]]


def close(
    name: str, against: float, ours: float, tolerance: float, note: str, *, kind: Kind, **found: Unpack[Found]
) -> Row:
    """A claim that holds when ours is within the tolerance; an undefined (nan) value never is."""
    ok = bool(abs(ours - against) <= tolerance * (1 + 1e-9))
    return claim(name, against, ours, tolerance, note, ok, kind=kind, **found)


def at_least(
    name: str, against: float, ours: float, tolerance: float, note: str, *, kind: Kind, **found: Unpack[Found]
) -> Row:
    """A claim that holds when ours is no more than the tolerance below what it is held against."""
    return claim(name, against, ours, tolerance, note, bool(ours >= against - tolerance), kind=kind, **found)


def at_most(
    name: str, against: float, ours: float, tolerance: float, note: str, *, kind: Kind, **found: Unpack[Found]
) -> Row:
    """A claim that holds when ours is no more than the tolerance above what it is held against."""
    return claim(name, against, ours, tolerance, note, bool(ours <= against + tolerance), kind=kind, **found)


def claim(
    name: str,
    against: float,
    ours: float,
    tolerance: float,
    note: str,
    ok: bool,
    *,
    kind: Kind,
    **found: Unpack[Found],
) -> Row:
    """A claim that holds for another reason than the distance of two numbers; the note says which."""
    return Row(
        name=name,
        kind=kind,
        against=float(against),
        ours=float(ours),
        tolerance=float(tolerance),
        ok=ok,
        note=note,
        **found,
    )


def described(name: str, ours: float, note: str, **found: Unpack[Found]) -> Row:
    """A figure that claims nothing: a point of a curve, or the answer to an open question."""
    return Row(name=name, kind="none", against=None, ours=float(ours), tolerance=None, ok=None, note=note, **found)


def result(paper: str, rows: Iterable[Row], said: Iterable[str] = ()) -> Result:
    """Collect rows, and sentences where a paper's module has some; a paper without a claim is not reproduced."""
    listed, sentences = list(rows), list(said)
    verdicts = [row["ok"] for row in listed if row["ok"] is not None]
    whole = Result(
        paper=paper, ok=bool(verdicts) and all(verdicts), held=sum(verdicts), claims=len(verdicts), rows=listed
    )
    if sentences:
        whole["said"] = sentences
    return whole


def state_of(found: Result) -> State:
    """What the claims come to."""
    return "reproduced" if found["ok"] else "in part" if found["held"] else "not reproduced"


def verdict(found: Result) -> str:
    """The state with its counts: `in part: 13 of 14 claims hold`."""
    return f"{state_of(found)}: {found['held']} of {found['claims']} claims hold"


def seeds_of(found: Result) -> list[int]:
    """Seeds that any row names."""
    return sorted({seed for row in found["rows"] for seed in row.get("seeds", ())})
