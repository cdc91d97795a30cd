"""Cohort and gene tables, gene sets and folds: whatever a file holds, it is read or refused in one line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

from data.cohort.splits import aligned, published_splits
from data.cohort.tables import TableCohort
from data.genes.groups import read_groups
from tests.fuzz.damage import ODD_TEXT, ODD_VALUES, files, table_files, text_of
from tests.fuzz.tried import Tried, law

HEADER = ["case_id", "slide_id", "site", "age", "is_female", "survival_months", "censorship", "A_rnaseq", "B_rnaseq"]
_RNG = np.random.default_rng(8)
ROWS = [
    [f"P{i}", f"P{i}.svs", "AB"[i % 2], str(50 + i), str(i % 2), f"{3 + 2 * i}.5", str(i % 3 // 2)]
    + [f"{value:.3f}" for value in _RNG.standard_normal(2)]
    for i in range(8)
]
GENES = [["sample", "A", "B"], *([row[0], *row[-2:]] for row in ROWS)]
SETS = "first\tx\tA\tB\nsecond\tx\tB\n"
FOLDS = [["", "train", "val"], ["0", "P0", "P4"], ["1", "P1", "P5"], ["2", "P2", ""]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "sets.gmt").write_text(SETS)
    (folder / "good.csv").write_text(text_of([HEADER, *ROWS]))
    return folder


def cohort(table: Path, **options: Any) -> None:
    source = TableCohort(str(table), groups=str(table.parent / "sets.gmt"), folds=2, **options)
    source.load()
    source.splits()


@law(made=table_files(HEADER, ROWS, [".csv", ".csv", ".tsv", ".csv.gz", ".csv.zip"]))
def test_tables_of_patients(made: tuple[str, bytes], place: Path, tried: Tried):
    ending, content = made
    path = place / f"patients{ending}"
    path.write_bytes(content)
    tried(cohort, path)


@law(made=table_files(GENES[0], GENES[1:], [".csv", ".tsv", ".csv.zip"]))
def test_tables_of_genes(made: tuple[str, bytes], place: Path, tried: Tried):
    ending, content = made
    path = place / f"genes{ending}"
    path.write_bytes(content)
    tried(lambda: TableCohort(str(place / "good.csv"), groups="none", genes=str(path), features=["A", "B"]).load())


@st.composite
def parquet_files(draw: st.DrawFn) -> bytes:
    """A table of patients as Parquet, with columns of other types, other names, and damage."""
    table = pd.DataFrame(ROWS, columns=HEADER)
    for column in HEADER[3:]:
        table[column] = pd.to_numeric(table[column])
    for _ in range(draw(st.integers(0, 2))):
        column = draw(st.sampled_from(HEADER))
        kind = draw(st.sampled_from(["text", "value", "bytes", "time", "list", "name", "drop", "bool", "category"]))
        n = len(table)
        if column not in table:
            continue
        if kind == "text":
            table[column] = table[column].map(str)
        elif kind == "value":
            table[column] = draw(ODD_VALUES.filter(lambda value: not isinstance(value, dict | list)))
        elif kind == "bytes":
            table[column] = [b"\xff\x00"] * n
        elif kind == "time":
            table[column] = pd.Timestamp("2026-11-25")
        elif kind == "list":
            table[column] = [[1, 2]] * n
        elif kind == "name":
            table = table.rename(columns={column: draw(ODD_TEXT)})
        elif kind == "drop":
            table = table.drop(columns=column)
        elif kind == "bool":
            table[column] = [k % 2 == 0 for k in range(n)]
        elif kind == "category":
            table[column] = table[column].map(str).astype("category")
    out = io.BytesIO()
    try:
        table.to_parquet(out)
    except (OverflowError, ValueError, TypeError, ArithmeticError, UnicodeError):
        return b"PAR1"  # what Parquet cannot hold
    content = out.getvalue()
    return draw(files([content])) if draw(st.booleans()) else content


@law(content=parquet_files())
def test_parquet(content: bytes, place: Path, tried: Tried):
    pytest.importorskip("pyarrow")
    path = place / "patients.parquet"
    path.write_bytes(content)
    tried(cohort, path)


@law(content=files([SETS.encode(), b"name,other\nA,B\n,C\n"]), ending=st.sampled_from([".gmt", ".csv"]))
def test_gene_sets(content: bytes, ending: str, place: Path, tried: Tried):
    path = place / f"other{ending}"
    path.write_bytes(content)
    tried(read_groups, path)


@law(made=table_files(FOLDS[0], FOLDS[1:], [".csv"]))
def test_published_folds(made: tuple[str, bytes], place: Path, tried: Tried):
    folder = place / "folds"
    folder.mkdir(exist_ok=True)
    (folder / "splits_0.csv").write_bytes(made[1])
    known = TableCohort(str(place / "good.csv"), groups="none").load()
    tried(lambda: aligned(published_splits(folder), known))
