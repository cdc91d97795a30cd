"""Tables of items that users write: CSV, TSV or JSON lines, every value as text, and what each row is for."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from data.cohort.read import text_table
from data.errors import DataError
from data.pairs.items import SPLITS, split_of
from data.text.reading import object_lines

TABLES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})
_SPLIT_NAMES = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}


def read_rows(path: Path) -> pd.DataFrame:
    """The rows of a table; a missing value is None.

    Raises:
        DataError: no such file, another format, or a line that cannot be read
    """
    if path.suffix.lower() not in TABLES:
        raise DataError(f"{path}: expected a table that ends in {', '.join(sorted(TABLES))}")
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        table = pd.DataFrame(object_lines(path))
    else:
        mark = "\t" if path.suffix.lower() == ".tsv" else ","
        table = text_table(path, "a header and a row per item", sep=mark, keep_default_na=False)
    table = table.astype(object)
    return table.where(table.notna() & (table != ""), None)


def column(table: pd.DataFrame, name: str, path: Path) -> list[str | None]:
    """One column.

    Raises:
        DataError: there is none of that name
    """
    if name not in table:
        near = get_close_matches(name, list(table.columns), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{path}: no column {name!r}{hint} (there are {', '.join(map(str, table.columns))})")
    return [None if value is None else str(value).strip() for value in table[name]]


def splits(stated: Sequence[object], keys: Sequence[str], where: str) -> list[str]:
    """Train, val or test of each item: as stated, else from a hash of its key.

    Raises:
        DataError: another word than train, val or test
    """
    found = []
    for said, key in zip(stated, keys, strict=True):
        name = split_of(key) if said is None else _SPLIT_NAMES.get(str(said).lower(), str(said).lower())
        if name not in SPLITS:
            raise DataError(f"{where}: split {said!r} of {key}; expected one of {', '.join(SPLITS)}")
        found.append(name)
    return found
