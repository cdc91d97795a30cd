"""`fusion reproduce PAPER --report PAGE`: figures that were published beside ours, and what a paper's module draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.experiment.report import Figure, Prose, Report, Section, Table
from tasks.reproduce.rows import Result


def write(result: Result, what: str, drawn: Sequence[Figure], path: Path) -> Path:
    """Write the page.

    Args:
        result: of the paper's `run`
        what: one line on the paper
        drawn: figures of the same rows
        path: of the page

    Returns:
        the path
    """
    rows = [
        [row["name"], f"{row['published']:.3g}", f"{row['ours']:.3g}", f"{row['tolerance']:.3g}",
         "yes" if row["ok"] else "NO", row["note"]]
        for row in result["rows"]
    ]  # fmt: skip
    held = sum(row["ok"] for row in result["rows"])
    table = Table(
        ["what", "published", "ours", "tolerance", "holds", "note"], rows,
        "Where nothing was published, the column holds the bar that the row has to reach; its note says so.",
    )  # fmt: skip
    sections = [Section("What follows", [Prose(said)])] if (said := result.get("said")) else []
    sections += [Section("Figures", list(drawn))] if drawn else []
    return Report(
        f"Reproduction: {result['paper']}", f"{what}. {held} of {len(rows)} rows hold.",
        [*sections, Section("Rows", [table])], context="fusion reproduce",
    ).write(path)  # fmt: skip
