"""Gene features of a table: chosen by suffix or by list, never by position, and never an outcome."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from math import comb

import numpy as np
import pandas as pd

from data.cohort.account import Account
from data.errors import DataError

OUTCOME_NAMES = re.compile(
    r"(survival_?(months|days|time|years)|censor(ship|ed|ing)?|vital_?status|days_to_(death|last_?follow_?up)|"
    r"(os|dss|pfi|dfi|pfs)(_?(time|event|status|months|days))?|overall_survival|event|death|dead|deceased|died|train)"
    r"(_(os|dss|pfi|dfi))?",
    re.IGNORECASE,
)
_BY_CHANCE = 1e-6


def choose_features(
    header: Sequence[str],
    listed: Sequence[str] | None,
    suffixes: Sequence[str],
    taken: Collection[str],
    where: str,
    account: Account,
) -> list[str]:
    """Names of the feature columns, in the table's order (or the list's).

    Args:
        header: all columns of the table
        listed: the features by name; None = all columns that end in one of the suffixes
        suffixes: endings of feature columns
        taken: columns that hold identifiers, times, events and covariates
        where: the file, for messages
        account: told how many columns were not used

    Raises:
        DataError: nothing matches, a listed column does not exist or is listed twice, or one is an outcome
    """
    if listed is None:
        chosen = [c for c in header if c.endswith(tuple(suffixes)) and c not in taken]
        if not chosen and suffixes:
            raise DataError(
                f"{where}: no column ends in {' or '.join(suffixes)}. Name the endings (schema.suffixes) or list the "
                "features"
            )
        used = {*chosen, *taken}
        rest = [c for c in header if c not in used and not c.startswith(("Unnamed", "(column"))]
        account.note("columns not used", len(rest), f"do not end in {', '.join(suffixes)}", rest)
    else:
        chosen = list(listed)
        missing = [c for c in chosen if c not in set(header)]
        if missing:
            near = get_close_matches(missing[0], header, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{where}: no column {missing[0]!r} ({len(missing)} listed features are missing){hint}")
        if len(set(chosen)) < len(chosen):
            twice = next(c for c in chosen if chosen.count(c) > 1)
            raise DataError(f"{where}: feature {twice!r} is listed more than once; list each once")
    outcomes = [c for c in chosen if c in taken or OUTCOME_NAMES.fullmatch(c)]
    if outcomes:
        raise DataError(
            f"{where}: {', '.join(map(repr, outcomes[:3]))} among the features is an outcome or a split mark, not a "
            "gene: a model would read the answer. Remove it from the features"
        )
    return chosen


def refuse_outcome_copies(genes: pd.DataFrame, time: pd.Series, event: pd.Series, where: str) -> None:
    """Refuse a feature that repeats the outcome under another name.

    A feature is refused when it correlates perfectly (|r| > 1 - 1e-6) with time, with the order of times, or with the
    event; with the event only where so exact a match has a chance below 1e-6 over all features (a mutation found in
    just the one patient who died is no leak).

    Args:
        genes: features, one row per patient
        time: months, of the same patients
        event: True = died, of the same patients
        where: the file, for messages

    Raises:
        DataError: names the column and what it repeats
    """
    n = len(genes)
    if n < 5:
        return
    values = genes.to_numpy(np.float64)
    telling = comb(n, int(event.sum())) * _BY_CHANCE > genes.shape[1]
    targets = {"the event": event.to_numpy(float)} if telling else {}
    targets["the time"] = time.to_numpy(float)
    for name, target in targets.items():
        r = np.abs(_correlation(values, target))
        _refuse(genes, r, name, where)
        if name == "the time":
            near = np.flatnonzero(r > 0.5)
            ranks = genes.iloc[:, near].rank().to_numpy()
            _refuse(
                genes.iloc[:, near],
                np.abs(_correlation(ranks, time.rank().to_numpy())),
                "the order of the times",
                where,
            )


def _refuse(genes: pd.DataFrame, r: np.ndarray, target: str, where: str) -> None:
    copies = genes.columns[r > 1 - 1e-6]
    if len(copies):
        raise DataError(
            f"{where}: feature {copies[0]!r} repeats {target} exactly ({len(copies)} such columns): "
            "a model would read the answer. Remove it from the features"
        )


def _correlation(values: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Pearson correlation of each column with the target; 0 where a column is constant or has gaps."""
    centred = values - values.mean(axis=0)
    aim = target - target.mean()
    scale = np.sqrt((centred**2).sum(axis=0) * (aim**2).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        r = aim @ centred / scale
    return np.nan_to_num(r, nan=0.0, posinf=0.0, neginf=0.0)


def one_row_per_patient(rows: pd.DataFrame, ids: pd.Series, where: str) -> pd.DataFrame:
    """Join the rows of each patient, which must repeat the same features.

    Args:
        rows: features, one line per slide
        ids: patient of each row
        where: the file, for messages

    Raises:
        DataError: rows of one patient differ; names patient and column
    """
    code, patients = pd.factorize(ids)
    first = np.unique(code, return_index=True)[1]
    values = rows.to_numpy(np.float32)
    repeats = np.setdiff1d(np.arange(len(rows)), first)
    again, model = values[repeats], values[first[code[repeats]]]
    differing = (again != model) & ~(np.isnan(again) & np.isnan(model))
    if differing.any():
        row, column = np.argwhere(differing)[0]
        raise DataError(
            f"{where}: patient {ids.iloc[repeats[row]]} has rows with different {rows.columns[column]} "
            f"({model[row, column]:g} and {again[row, column]:g}); the rows of a patient must repeat its genes"
        )
    return pd.DataFrame(values[first], index=pd.Index(patients.astype(str), name="case_id"), columns=rows.columns)


def without_gaps(genes: pd.DataFrame, where: str, account: Account) -> pd.DataFrame:
    """Account for missing and constant values: empty columns and empty patients go, everything else stays.

    A patient without any value has no gene data. Single gaps stay NaN and count as average once scaled; a constant
    column stays and carries no information, so that the groups are the same in every study and fold.

    Raises:
        DataError: a value is infinite, or there is none
    """
    values = genes.to_numpy()
    if np.isinf(values).any():
        row, column = np.argwhere(np.isinf(values))[0]
        raise DataError(
            f"{where}: {genes.columns[column]} of patient {genes.index[row]} is infinite "
            f"({int(np.isinf(values).sum())} such values); correct them or leave them empty"
        )
    gaps = np.isnan(values)
    if gaps.any():
        empty = genes.columns[gaps.all(axis=0)]
        absent = genes.index[gaps.all(axis=1)]
        if len(absent) == len(genes):
            raise DataError(f"{where}: {len(empty)} gene columns and not one value in them; fill them or remove them")
        account.note("gene columns dropped", len(empty), "no value at all", empty)
        genes = genes.drop(columns=empty, index=absent)
        values = genes.to_numpy()
        gaps = np.isnan(values)
        account.note("gene values missing", int(gaps.sum()), "count as average", genes.columns[gaps.any(axis=0)])
    spread = pd.Series(np.nanmax(values, axis=0) == np.nanmin(values, axis=0), index=genes.columns)
    constant = genes.columns[spread.to_numpy()]
    account.note("constant gene columns", len(constant), "kept, carry no information", constant)
    return genes
