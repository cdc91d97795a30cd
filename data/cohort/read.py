"""Tables of any packing: CSV and TSV, plain, gzipped or zipped, and Parquet; only the columns that are asked for."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from data.errors import DataError
from data.zips import ZIP_FAULTS

_PARQUET = (".parquet", ".pq")
UNREADABLE = (
    *ZIP_FAULTS,
    OverflowError,
    csv.Error,
    pd.errors.ParserError,
    pd.errors.EmptyDataError,
)
"""What readers raise on bytes that are no table, or of which a part is missing."""


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a table. Of a zip the first member is read in place, whatever its name says, and never unpacked."""
    if path.suffix != ".zip":
        with path.open("rb") as plain:
            if path.suffix != ".gz":
                yield plain
                return
        import gzip

        with gzip.open(path) as unpacked:
            yield unpacked  # type: ignore[misc]
        return
    try:
        archive = zipfile.ZipFile(path)
    except UNREADABLE:
        raise DataError(f"{path}: not a zip file, or cut short; fetch or import it again") from None
    with archive:
        members = [m for m in archive.infolist() if not m.filename.endswith("/")]
        if not members:
            raise DataError(f"{path}: the zip file is empty; expected one CSV inside")
        with archive.open(members[0]) as member:
            yield member


def _separator(path: Path) -> str:
    return "\t" if {".tsv", ".txt"} & set(path.suffixes) else ","


def read_header(path: Path) -> list[str]:
    """Column names of a table, in order; a nameless one is called `(column 1)` by its place.

    Raises:
        DataError: no such file, an empty one, or a column name that occurs twice
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix in _PARQUET:
        first = [str(name) for name in _parquet(path, None).columns]
    else:
        first = _first_line(path)
    if not first:
        raise DataError(f"{path}: the table is empty; expected a header line")
    twice = sorted({name for name in first if name and first.count(name) > 1}) if len(set(first)) < len(first) else []
    if twice:
        raise DataError(
            f"{path}: column {twice[0]!r} occurs more than once ({len(twice)} such names); rename or remove one"
        )
    return [name or f"(column {position + 1})" for position, name in enumerate(first)]


def _first_line(path: Path) -> list[str]:
    try:
        with _opened(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig") as lines:
            return next(csv.reader(lines, delimiter=_separator(path)), [])
    except UNREADABLE as problem:
        raise DataError(f"{path}: cannot be read as a table ({problem}); expected text with a header line") from None


def read_table(path: Path, text: Collection[str], numbers: Mapping[str, type]) -> pd.DataFrame:
    """Read some columns of a table.

    Args:
        path: .csv, .tsv, .csv.gz, .csv.zip or .parquet
        text: columns to read as text
        numbers: column -> numpy type (a float type: empty cells become NaN)

    Raises:
        DataError: a cell of a number column is not a number; names column, row and cell
    """
    wanted = [*text, *numbers]
    types: dict[str, type] = {**dict.fromkeys(text, str), **numbers}
    if path.suffix in _PARQUET:
        table = _parquet(path, wanted)
        return pd.DataFrame({column: _typed(table[column], kind, path) for column, kind in types.items()})
    try:
        return _read_csv(path, types)
    except UNREADABLE as problem:
        raise DataError(f"{path}: cannot be read as a table ({problem}); fetch or export it again") from None
    except DataError:
        raise
    except ValueError as problem:
        raise _not_a_number(path, numbers) or DataError(f"{path}: {problem}") from None


def _read_csv(path: Path, types: Mapping[str, type]) -> pd.DataFrame:
    names = read_header(path)
    with _opened(path) as raw:
        return pd.read_csv(
            raw,
            sep=_separator(path),
            header=0,
            names=names,
            index_col=False,
            usecols=list(types),
            dtype=dict(types),  # type: ignore[arg-type]
            engine="c",
            low_memory=False,
        )


def _not_a_number(path: Path, numbers: Mapping[str, type]) -> DataError | None:
    table = _read_csv(path, dict.fromkeys(numbers, str))
    for column in numbers:
        bad = pd.to_numeric(table[column], errors="coerce").isna() & table[column].notna()
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            return DataError(
                f"{path}: column {column!r}, row {row + 1}: {table[column].iloc[row]!r} is not a number "
                f"({int(bad.sum())} such cells); correct them or leave them empty"
            )
    return None


def _parquet(path: Path, columns: list[str] | None) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=columns)
    except ImportError:
        raise DataError(
            f"{path}: reading Parquet needs pyarrow; pip install pyarrow, or export the table as CSV"
        ) from None
    except Exception as problem:  # pyarrow takes foreign bytes for sizes and types and stumbles over them in any way
        raise DataError(f"{path}: cannot be read as Parquet ({problem}); export the table again") from None


def _typed(column: pd.Series, kind: type, path: Path) -> pd.Series:
    """A column of a Parquet table as CSV would give it: numbers, or text with its gaps."""
    try:
        return column.astype(object).map(str, na_action="ignore") if kind is str else column.astype(kind)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{path}: column {column.name!r} holds {column.dtype}; expected numbers") from None


def text_table(path: Path, expected: str, **options: Any) -> pd.DataFrame:
    """A small table, every cell as text.

    Args:
        path: of a text file
        expected: what should stand in it, for the message
        options: of `pandas.read_csv`

    Raises:
        DataError: no such file, or no table
    """
    try:
        return pd.read_csv(path, **{"dtype": str, "encoding": "utf-8-sig", **options})
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (*UNREADABLE, ValueError) as problem:
        said = str(problem).strip()
        raise DataError(f"{path}: not readable as a table ({said}); expected {expected}, in UTF-8") from None
