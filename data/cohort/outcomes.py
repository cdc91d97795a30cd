"""From rows of a table to one checked line per patient: time, event, age."""

from __future__ import annotations

import numpy as np
import pandas as pd

from data.cohort.account import Account
from data.cohort.schema import MONTHS, TableSchema
from data.errors import DataError


def patients_from_rows(
    rows: pd.DataFrame, schema: TableSchema, where: str, account: Account
) -> tuple[pd.DataFrame, dict[str, str]]:
    """One row per patient: time (months), event, age, and is_female and site when there.

    Args:
        rows: columns as named by the schema, in any order; a patient may have several rows
        schema: with the columns that exist (`TableSchema.found`)
        where: the file, for messages
        account: told about repeated rows, missing ages and dropped patients

    Returns:
        the patients, and who was dropped -> why

    Raises:
        DataError: missing or duplicate identifiers, rows of one patient that contradict one another, times that are
            negative or zero, events that are not 0/1 or coded the other way round
    """
    ids = rows[schema.id]
    if ids.isna().any():
        row = int(np.flatnonzero(ids.isna())[0])
        raise DataError(
            f"{where}: row {row + 1} has no {schema.id} ({int(ids.isna().sum())} such rows); every row needs one"
        )
    _refuse_duplicates(rows, schema, where)
    kept = {role: getattr(schema, role) for role in ("time", "event", "censorship", "age", "is_female", "site")}
    columns = {role: column for role, column in kept.items() if column is not None}
    _refuse_contradictions(rows, schema.id, list(columns.values()), where)

    single = rows.drop_duplicates(schema.id).set_index(schema.id)
    single.index = single.index.astype(str)
    patients = pd.DataFrame(index=pd.Index(single.index, name="case_id"))
    patients["time"] = single[columns["time"]].to_numpy(float) * MONTHS[schema.unit] if "time" in columns else np.nan
    patients["event"] = _event(single, columns, where)
    patients["age"] = single[columns["age"]].to_numpy(float) if "age" in columns else np.nan
    if "is_female" in columns:
        patients["is_female"] = single[columns["is_female"]].to_numpy(float)
    if "site" in columns:
        patients["site"] = _site(single[columns["site"]])
    account.note("rows", len(rows), "in the table")
    account.note("patients", len(patients), "after joining the rows of one patient")
    dropped = _check_times(patients, schema, where) if "time" in columns else {}
    account.note("patients dropped", len(dropped), "time is 0, no follow-up", dropped)
    patients = patients.drop(index=list(dropped))
    if "age" in columns:
        missing = patients.index[patients["age"].isna()]
        account.note("patients without age", len(missing), "kept, the age counts as average", missing)
    else:
        account.note("patients without age", len(patients), "the table has no age column")
    return patients, dropped


def _refuse_duplicates(rows: pd.DataFrame, schema: TableSchema, where: str) -> None:
    key = schema.slide or schema.id
    twice = rows.loc[rows[key].duplicated() & rows[key].notna(), key]
    if len(twice):
        what = "slide" if schema.slide else "patient"
        remedy = "each slide once" if schema.slide else "each patient once, or name the slide column (schema.slide)"
        raise DataError(
            f"{where}: {what} {twice.iloc[0]!r} occurs more than once ({twice.nunique()} such {what}s); list {remedy}"
        )


def _refuse_contradictions(rows: pd.DataFrame, key: str, columns: list[str], where: str) -> None:
    if not rows[key].duplicated().any():
        return
    values = rows.groupby(key, sort=False)[columns].nunique(dropna=False)
    for column in columns:
        differing = values.index[values[column] > 1]
        if len(differing):
            found = sorted(map(str, rows.loc[rows[key] == differing[0], column].unique()))
            raise DataError(
                f"{where}: patient {differing[0]} has rows with different {column} ({' and '.join(found[:3])}; "
                f"{len(differing)} such patients); a patient has one {column}"
            )


def _binary(values: pd.Series, where: str) -> np.ndarray:
    """Values as booleans.

    Raises:
        DataError: a value is missing or not 0/1
    """
    odd = values[~values.isin([0, 1])]
    if len(odd):
        shown = "empty" if pd.isna(odd.iloc[0]) else f"{odd.iloc[0]:g}"
        raise DataError(
            f"{where}: column {values.name!r} is {shown} for patient {odd.index[0]} "
            f"({len(odd)} patients are not 0 or 1); code it as 0 and 1"
        )
    return values.to_numpy(float) == 1


def _event(single: pd.DataFrame, columns: dict[str, str], where: str) -> np.ndarray:
    if "time" not in columns:
        return np.zeros(len(single), dtype=bool)
    censored = _binary(single[columns["censorship"]], where) if "censorship" in columns else None
    event = _binary(single[columns["event"]], where) if "event" in columns else None
    if event is not None and censored is not None and (event == censored).any():
        agree = int((event == censored).sum())
        raise DataError(
            f"{where}: columns {columns['event']!r} and {columns['censorship']!r} agree for {agree} of {len(event)} "
            f"patients ({single.index[np.flatnonzero(event == censored)[0]]} first); each must be 1 - the other: "
            + ("one of them is coded the other way round" if agree == len(event) else "correct these rows")
        )
    if event is None:
        assert censored is not None, "TableSchema asks for event or censorship"
        event = ~censored
    return event


def _check_times(patients: pd.DataFrame, schema: TableSchema, where: str) -> dict[str, str]:
    time = patients["time"]
    bad = patients.index[~np.isfinite(time) | (time < 0)]
    if len(bad):
        found = "missing" if np.isnan(time[bad[0]]) else f"{time[bad[0]]:g} months"
        raise DataError(
            f"{where}: the time of patient {bad[0]} ({schema.time}) is {found} ({len(bad)} such patients); "
            "a time must be a positive number. Correct or remove these rows"
        )
    zero = patients.index[time == 0]
    if len(zero) and schema.zero_times == "refuse":
        raise DataError(
            f"{where}: the time of patient {zero[0]} ({schema.time}) is 0 ({len(zero)} such patients); a time must be "
            "positive. Correct these rows, or drop the patients with schema.zero_times=drop"
        )
    return dict.fromkeys(zero, "time is 0")


def _site(site: pd.Series) -> np.ndarray:
    """Sites as text; TCGA's two-character codes regain the zero that a spreadsheet took from them ("2" is "02")."""
    tcga = pd.Series(site.index, index=site.index).str.match(r"TCGA-\w\w-")
    text = site.astype("string")
    return text.where(~tcga, text.str.removesuffix(".0").str.zfill(2)).astype(object).to_numpy()
