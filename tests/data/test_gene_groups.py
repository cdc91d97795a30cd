"""Groups of genes: files in two formats, matched to feature columns by symbol."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.cohort.account import Account
from data.errors import DataError
from data.genes.groups import grouped, read_gmt, read_groups

SUFFIXES = ("_mut", "_cnv", "_rnaseq")
symbols = st.sampled_from([f"G{i}" for i in range(8)])


def test_gmt_and_csv_say_the_same(tmp_path: Path):
    (tmp_path / "sets.gmt").write_text("first\thttp://x\tA\tB\nsecond\t\tB\tC\tC\n\n")
    (tmp_path / "sets.csv").write_text("first,second\nA,B\nB,C\n,C\n")
    expected = {"first": ["A", "B"], "second": ["B", "C"]}
    assert read_groups(tmp_path / "sets.gmt") == read_groups(tmp_path / "sets.csv") == expected


@settings(max_examples=60, deadline=None)
@given(
    sets=st.dictionaries(st.sampled_from("XYZ"), st.lists(symbols, min_size=1, unique=True), min_size=1),
    features=st.lists(st.tuples(symbols, st.sampled_from(SUFFIXES)), min_size=1, unique=True),
)
def test_a_group_holds_every_column_of_its_genes_and_no_other(
    sets: dict[str, list[str]], features: list[tuple[str, str]]
):
    columns = [gene + suffix for gene, suffix in features]
    expected = {name: sorted(g + s for g, s in features if g in genes) for name, genes in sets.items()}
    expected = {name: group for name, group in expected.items() if group}
    if not expected:
        with pytest.raises(DataError, match="none of the"):
            grouped(columns, sets, SUFFIXES, "t", Account())
        return
    assert grouped(columns, sets, SUFFIXES, "t", Account()) == expected
    assert grouped(columns[::-1], sets, SUFFIXES, "t", Account()) == expected


def test_what_belongs_nowhere_is_counted():
    account = Account()
    grouped(["A_mut", "B_mut", "C_mut"], {"one": ["A"], "none": ["Q"]}, SUFFIXES, "t", account)
    assert "1 gene groups left out: no gene of theirs is in the table (none)" in str(account)
    assert "2 gene columns in no group" in str(account)


def test_groups_of_other_genes_are_refused():
    with pytest.raises(
        DataError, match=r"none of the 1 features .*\(features like 'ENSG1', groups of symbols like 'A'\)"
    ):
        grouped(["ENSG1"], {"one": ["A"]}, (), "t", Account())


def test_broken_group_files_are_refused(tmp_path: Path):
    path = tmp_path / "sets.gmt"
    path.write_text("first\tonly\n")
    with pytest.raises(DataError, match=r"line 1 has 2 fields; expected name, description, genes"):
        read_gmt(path)
    path.write_text("a\tx\tA\na\tx\tB\n")
    with pytest.raises(DataError, match=r"line 2: set 'a' occurs twice"):
        read_gmt(path)
    path.write_text("")
    with pytest.raises(DataError, match=r"no gene set in this file"):
        read_gmt(path)
    with pytest.raises(DataError, match=r"no such file of gene groups; .*hallmark\+reactome"):
        read_groups(tmp_path / "nothing.gmt")
