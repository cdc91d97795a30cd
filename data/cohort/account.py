"""Who was dropped, and why: the lines that a source prints about itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd


class AccountRow(NamedTuple):
    """One line of an account: how many (`number`) of what, and why; `examples` are the first few identifiers."""

    what: str
    number: int
    why: str
    examples: tuple[str, ...] = ()


@dataclass
class Account:
    """What was read, kept, dropped and found missing while a cohort was loaded."""

    rows: list[AccountRow] = field(default_factory=list)

    def note(self, what: str, count: int, why: str = "", examples: Iterable[object] = ()) -> None:
        """Add a line; a count of 0 is not worth one."""
        if count:
            self.rows.append(AccountRow(what, int(count), why, tuple(str(e) for e in examples)[:3]))

    def table(self) -> pd.DataFrame:
        """The rows as a table with columns what, count, why, examples."""
        shown = [(r.what, r.number, r.why, ", ".join(r.examples)) for r in self.rows]
        return pd.DataFrame(shown, columns=["what", "count", "why", "examples"])

    def __str__(self) -> str:
        width = max((len(str(r.number)) for r in self.rows), default=1)
        lines = []
        for r in self.rows:
            shown = f" ({', '.join(r.examples)}{', ...' if r.number > len(r.examples) else ''})" if r.examples else ""
            lines.append(f"{r.number:>{width}} {r.what}{': ' + r.why if r.why else ''}{shown}")
        return "\n".join(lines)
