"""Tables of items that users write: CSV, TSV or JSON lines, every value as text, and what each row is for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from data.errors import DataError
from data.pairs.items import SPLITS, split_of

TABLES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})
_SPLIT_NAMES = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}


def read_rows(path: Path) -> pd.DataFrame:
    """The rows of a table; a missing value is None.

    Raises:
        DataError: no such file, another format, or a line that cannot be read
    """
    if path.suffix.lower() not in TABLES:
        raise DataError(f"{path}: expected a table that ends in {', '.join(sorted(TABLES))}")
    try:
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            table = _json_lines(path)
        else:
            mark = "\t" if path.suffix.lower() == ".tsv" else ","
            table = pd.read_csv(path, sep=mark, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as problem:
        raise DataError(f"{path}: not readable as a table ({' '.join(str(problem).split())}); save as UTF-8") from None
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


def _json_lines(path: Path) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as problem:
            raise DataError(f"{path} line {number}: not readable as JSON ({problem.msg})") from None
        if not isinstance(row, dict):
            raise DataError(f"{path} line {number}: expected an object in braces, found {type(row).__name__}")
        rows.append(row)
    return pd.DataFrame(rows)
