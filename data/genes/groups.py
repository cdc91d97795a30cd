"""Groups of genes: the six functional families, Hallmark and Reactome pathways, any GMT or CSV of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from data.cohort.account import Account
from data.cohort.read import text_table
from data.errors import DataError
from data.text.reading import read_text

NAMED_GROUPS = {
    "functional": "signatures.csv",
    "hallmark": "survpath/hallmarks_signatures.csv",
    "reactome": "survpath/xena_signatures.csv",
    "hallmark+reactome": "survpath/combine_signatures.csv",
}


def read_gmt(path: Path) -> dict[str, list[str]]:
    """Gene sets of a GMT file: one a line, name, description, symbols, separated by tabs.

    Raises:
        DataError: no such file, a line with fewer than three fields, or a set that occurs twice
    """
    _there(path)
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        name, *rest = line.rstrip().split("\t")
        if len(rest) < 2:
            raise DataError(
                f"{path}: line {number} has {1 + len(rest)} fields; expected name, description, genes, tab separated"
            )
        if name in sets:
            raise DataError(f"{path}: line {number}: set {name!r} occurs twice; rename or remove one")
        sets[name] = list(dict.fromkeys(symbol.strip() for symbol in rest[1:] if symbol.strip()))
    return _not_empty(sets, path)


def read_signatures(path: Path) -> dict[str, list[str]]:
    """Gene sets of a CSV file with one column per set: header = names, cells = symbols, ragged."""
    _there(path)
    table = text_table(path, "a column per group of genes")
    sets = {str(name): list(dict.fromkeys(table[name].dropna().str.strip())) for name in table.columns}
    return _not_empty(sets, path)


def _there(path: Path) -> None:
    if not path.is_file():
        raise DataError(
            f"{path}: no such file of gene groups; give a GMT file, a CSV with one column per group, or one of "
            f"{', '.join(NAMED_GROUPS)}"
        )


def _not_empty(sets: dict[str, list[str]], path: Path) -> dict[str, list[str]]:
    if not sets:
        raise DataError(f"{path}: no gene set in this file; expected one a line (GMT) or one a column (CSV)")
    return sets


def read_groups(path: Path) -> dict[str, list[str]]:
    """Gene sets of a .gmt or .csv file: name -> symbols."""
    return read_gmt(path) if path.suffix == ".gmt" else read_signatures(path)


def grouped(
    columns: Sequence[str], sets: Mapping[str, Sequence[str]], suffixes: Sequence[str], where: str, account: Account
) -> dict[str, list[str]]:
    """The feature columns of each gene set, sorted by name, as MCAT and CMTA order them.

    Args:
        columns: feature columns, `SYMBOL` + one of the suffixes, or the symbol alone
        sets: group name -> gene symbols
        suffixes: endings of feature columns; empty when columns are symbols
        where: the table, for messages
        account: told about sets without any column and columns without any set

    Raises:
        DataError: no column belongs to any set
    """
    present = set(columns)
    endings = (*suffixes, "") if suffixes else ("",)
    groups: dict[str, list[str]] = {}
    for name, symbols in sets.items():
        found = sorted({symbol + ending for symbol in symbols for ending in endings} & present)
        if found:
            groups[name] = found
    if not groups:
        some = next(iter(next(iter(sets.values()))), "")
        raise DataError(
            f"{where}: none of the {len(columns)} features belongs to any of the {len(sets)} gene groups "
            f"(features like {columns[0] if columns else '(none)'!r}, groups of symbols like {some!r}); "
            "choose other groups or suffixes"
        )
    empty = [name for name in sets if name not in groups]
    account.note("gene groups left out", len(empty), "no gene of theirs is in the table", empty)
    used = {column for group in groups.values() for column in group}
    loose = [column for column in columns if column not in used]
    account.note("gene columns in a group", len(used), f"{len(groups)} groups")
    account.note("gene columns in no group", len(loose), "only models without groups read them", loose)
    return groups
