"""Which column of a table is what."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from data.errors import DataError

_DEATH = re.compile(r"((os|dss|pfi)[._])?(event|died|dead|death|deceased)([._](os|dss|pfi))?", re.IGNORECASE)
MONTHS = {"months": 1.0, "days": 12 / 365.25, "years": 12.0}


@dataclass(frozen=True)
class TableSchema:
    """Names of the columns of a gene table. The defaults are the PORPOISE / MCAT layout.

    Args:
        id: patient identifier; a patient may have several rows (slides) that repeat everything else
        time: follow-up; None (with event and censorship None) for new patients that are only to be predicted
        event: 1 = died. Give this or `censorship`; where both exist they must be each other's complement, a column
            `event` beside the default `censorship` too
        censorship: 1 = censored; used when `event` is None
        unit: of `time`
        slide: slide identifier, with or without file suffix; None when the table has none
        age: in years; None when the table has none
        is_female: 0 or 1; None when the table has none
        site: tissue source site, for stratified folds; None when the table has none
        suffixes: endings of the feature columns, ("_mut", "_cnv", "_rnaseq"); what precedes is the gene's symbol
        zero_times: what to do with a patient whose time is 0: refuse the table, or drop the patient and say so
    """

    id: str = "case_id"
    time: str | None = "survival_months"
    event: str | None = None
    censorship: str | None = "censorship"
    unit: Literal["months", "days", "years"] = "months"
    slide: str | None = "slide_id"
    age: str | None = "age"
    is_female: str | None = "is_female"
    site: str | None = "site"
    suffixes: Sequence[str] = ("_mut", "_cnv", "_rnaseq")
    zero_times: Literal["refuse", "drop"] = "refuse"

    def __post_init__(self) -> None:
        if self.unit not in MONTHS:
            raise ValueError(f"unit={self.unit!r}: expected one of {', '.join(MONTHS)}")
        if self.time is not None and self.event is None and self.censorship is None:
            raise ValueError("a time without event and without censorship: name the column that says who died")
        if self.event is not None and self.event.lower().startswith("censor"):
            raise ValueError(
                f"event={self.event!r}: by its name this column is 1 for censored patients, the other way round. "
                f"Give it as censorship={self.event!r} and leave event empty"
            )

        if self.event is None and self.censorship is not None and _DEATH.fullmatch(self.censorship):
            raise ValueError(
                f"censorship={self.censorship!r}: by its name this column is 1 for the dead, the other way round. "
                f"Give it as event={self.censorship!r}"
            )

    def found(self, header: Collection[str], where: str) -> TableSchema:
        """This schema with the optional columns that the table really has.

        Raises:
            DataError: a column that must be there, or that was named other than the default, is missing
        """
        default = TableSchema()
        there: dict[str, str | None] = {}
        for role in ("id", "time", "event", "censorship", "slide", "age", "is_female", "site"):
            column = getattr(self, role)
            optional = role in ("slide", "age", "is_female", "site") or (
                role == "censorship" and self.event is not None
            )
            if column is None or column in header:
                there[role] = column
            elif optional and column == getattr(default, role):
                there[role] = None
            else:
                near = get_close_matches(column, list(header), n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise DataError(
                    f"{where}: no column {column!r} (schema.{role}){hint}. The table begins with {_first(header)}"
                )
        if there["event"] is None and there["censorship"] == default.censorship and "event" in header:
            there["event"] = "event"  # a table that tells it twice has to tell it alike
        return TableSchema(**there, unit=self.unit, suffixes=tuple(self.suffixes), zero_times=self.zero_times)  # type: ignore[arg-type]


def _first(header: Collection[str], shown: int = 8) -> str:
    return ", ".join(list(header)[:shown])
