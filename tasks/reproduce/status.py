"""The table at the top of REPRODUCED.md: which papers are reproduced, on what, when; `fusion list papers` reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

BEGIN, END = "<!-- status: written by the command -->", "<!-- status: end -->"
HEADER = ("paper", "state", "data", "date", "seeds")
NOT_YET = "not run yet"
_TABLE = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
_ROW = re.compile(r"^\| (?!paper \||--- )(?P<cells>.+) \|$", re.MULTILINE)


def with_status(text: str, row: Sequence[str], order: Sequence[str]) -> str:
    """The text with one paper's row in its status table, which is made below the first heading when there is none.

    Args:
        text: of REPRODUCED.md
        row: cells under `HEADER`, the key first
        order: keys of all papers; those without a row get one that says so
    """
    rows = _rows(text) | {row[0]: list(row)}
    keys = [*order, *(key for key in rows if key not in order)]
    lines = [rows.get(key, [key, NOT_YET, *["-"] * (len(HEADER) - 2)]) for key in keys]
    table = [HEADER, ["---"] * len(HEADER), *lines]
    whole = "\n".join([BEGIN, *(f"| {' | '.join(cells)} |" for cells in table), END])
    if _TABLE.search(text):
        return _TABLE.sub(lambda _: whole, text)
    heading, _, rest = text.partition("\n")
    return f"{heading}\n\n{whole}\n\n{rest.lstrip()}"


def states(paths: Sequence[Path]) -> dict[str, str]:
    """Paper -> its state with the date, from the first of these files that exists; empty without one."""
    for path in paths:
        if path.is_file():
            rows = _rows(path.read_text(encoding="utf-8", errors="replace"))
            return {key: state if date == "-" else f"{state} ({date})" for key, (_, state, _, date, *_) in rows.items()}
    return {}


def _rows(text: str) -> dict[str, list[str]]:
    """Key -> cells of the status table."""
    table = _TABLE.search(text)
    found = [named["cells"].split(" | ") for named in _ROW.finditer(table[0])] if table else []
    return {cells[0]: cells for cells in found if len(cells) == len(HEADER)}
