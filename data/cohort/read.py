"""Tables of any packing: CSV and TSV, plain, gzipped or zipped, and Parquet; only the columns that are asked for."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from data.errors import DataError

_PARQUET = (".parquet", ".pq")


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
    except zipfile.BadZipFile:
        raise DataError(f"{path}: not a zip file, or cut short; fetch or import it again") from None
    with archive:
        members = [m for m in archive.infolist() if not m.is_dir()]
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
        return list(_parquet(path, None).columns)
    try:
        with _opened(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig") as lines:
            first = next(csv.reader(lines, delimiter=_separator(path)), [])
    except (UnicodeDecodeError, OSError, EOFError) as problem:
        raise DataError(f"{path}: cannot be read as a table ({problem}); expected text with a header line") from problem
    if not first:
        raise DataError(f"{path}: the table is empty; expected a header line")
    twice = sorted({name for name in first if name and first.count(name) > 1}) if len(set(first)) < len(first) else []
    if twice:
        raise DataError(
            f"{path}: column {twice[0]!r} occurs more than once ({len(twice)} such names); rename or remove one"
        )
    return [name or f"(column {position + 1})" for position, name in enumerate(first)]


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
        return table.astype({c: t for c, t in types.items() if t is not str})
    try:
        return _read_csv(path, types)
    except (zipfile.BadZipFile, EOFError, UnicodeDecodeError, pd.errors.ParserError) as problem:
        raise DataError(f"{path}: cannot be read as a table ({problem}); fetch or export it again") from problem
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
