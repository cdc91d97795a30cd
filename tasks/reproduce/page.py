"""`fusion reproduce PAPER --report PAGE`: what ours is held against, and what a paper's module draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.experiment.report import Figure, Prose, Report, Section, Table
from tasks.reproduce.rows import Result, verdict
from tasks.reproduce.table import HEADER, LEGEND, cells


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
    table = Table(list(HEADER), [cells(row) for row in result["rows"]], LEGEND)
    sections = [Section("What follows", [Prose(said)])] if (said := result.get("said")) else []
    sections += [Section("Figures", list(drawn))] if drawn else []
    return Report(
        f"Reproduction: {result['paper']}", f"{what}. {verdict(result).capitalize()}.",
        [*sections, Section("Rows", [table])], context="fusion reproduce",
    ).write(path)  # fmt: skip
