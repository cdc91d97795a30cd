"""What was shown and when: events.tsv, onset files of OpenfMRI, and labels per volume."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from data.cohort.read import text_table
from data.errors import DataError

EVENT_COLUMNS = ("onset", "duration", "label", "stimulus")
UNLABELLED = "n/a"


def read_events(path: Path, label: str = "trial_type", stimulus: str | None = None) -> pd.DataFrame:
    """A BIDS events table.

    Args:
        path: tab-separated, columns onset and duration in s
        label: column of the class
        stimulus: column of what exactly was shown; None = the label

    Returns:
        onset, duration, label, stimulus, in order of onset; a row without a label keeps the label n/a

    Raises:
        DataError: a column missing, no event, an onset or duration that is not a number or negative in length
    """
    if not path.is_file():
        raise DataError(f"{path}: no such events file; a run without events cannot be decoded")
    expected = f"tab-separated onset, duration, {label}"
    table = text_table(path, expected, sep="\t", na_values=["n/a"], keep_default_na=False)
    wanted = ["onset", "duration", label, *([stimulus] if stimulus else [])]
    missing = [column for column in wanted if column not in table]
    if missing:
        raise DataError(f"{path}: no column {missing[0]}; there are {', '.join(table.columns)}. Name the right column")
    events = pd.DataFrame({"onset": _seconds(table, "onset", path), "duration": _seconds(table, "duration", path)})
    events["label"] = table[label].str.strip().fillna(UNLABELLED)
    events["stimulus"] = events["label"]
    if stimulus is not None:
        events["stimulus"] = table[stimulus].str.strip().where(events["label"] != UNLABELLED, UNLABELLED)
    if events["stimulus"].isna().any():
        row = int(np.flatnonzero(events["stimulus"].isna())[0]) + 2
        raise DataError(f"{path}: line {row} has no {stimulus}; name every stimulus, or leave stimulus out")
    return checked_events(events, path)


def checked_events(events: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The events in order of onset.

    Raises:
        DataError: no event, or one of negative length
    """
    if events.empty:
        raise DataError(f"{path}: no event; a run without events cannot be decoded")
    if (events["duration"] < 0).any():
        bad = events["duration"].min()
        raise DataError(f"{path}: a duration of {bad:g} s; durations are seconds, 0 for an instant")
    return events.sort_values("onset", kind="stable").reset_index(drop=True)[list(EVENT_COLUMNS)]


def _seconds(table: pd.DataFrame, column: str, path: Path) -> pd.Series:
    values = pd.to_numeric(table[column], errors="coerce")
    bad = np.flatnonzero(~np.isfinite(values.to_numpy(dtype=float)))
    if len(bad):
        cell = table[column].iloc[bad[0]]
        raise DataError(f"{path}: {column} {cell!r} in row {bad[0] + 1} is not a number of seconds; correct it")
    return values.astype(float)


def read_onsets(folder: Path, conditions: dict[str, str]) -> pd.DataFrame:
    """OpenfMRI onset files `cond001.txt`: onset, duration, weight in each line.

    Args:
        folder: `model/model001/onsets/task001_run001`
        conditions: `cond001` -> class

    Raises:
        DataError: no such folder, a file of an unknown condition, or one that cannot be read
    """
    files = sorted(folder.glob("cond*.txt"))
    if not files:
        raise DataError(f"{folder}: no cond001.txt here and no events.tsv beside the run; give one of them")
    rows = []
    for path in files:
        if path.stem not in conditions:
            raise DataError(f"{path}: condition_key.txt does not name {path.stem}; add it there")
        try:
            numbers = np.atleast_2d(np.loadtxt(path, ndmin=2)) if path.stat().st_size else np.empty((0, 3))
        except ValueError as problem:
            raise DataError(f"{path}: {problem}; expected onset, duration and weight in each line") from None
        if numbers.shape[1] < 2:
            raise DataError(f"{path}: {numbers.shape[1]} column; expected onset, duration and weight in each line")
        name = conditions[path.stem]
        rows.append(pd.DataFrame({"onset": numbers[:, 0], "duration": numbers[:, 1], "label": name, "stimulus": name}))
    return checked_events(pd.concat(rows, ignore_index=True), folder)


def read_volume_labels(path: Path) -> pd.DataFrame:
    """A label and a run for each volume: PyMVPA and nilearn's Haxby files, with or without a header.

    Returns:
        columns label and run, a row per volume

    Raises:
        DataError: not two columns
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file of labels per volume")
    table = text_table(path, "a label and a run in each line", sep=r"\s+", header=None, keep_default_na=False)
    if table.shape[1] < 2:
        raise DataError(f"{path}: {table.shape[1]} column; expected a label and a run for each volume")
    if not str(table.iloc[0, 1]).isdigit():
        table = table.iloc[1:].reset_index(drop=True)
    if len(short := np.flatnonzero(table[[0, 1]].isin([None, ""]).any(axis=1))):
        raise DataError(f"{path}: volume {short[0] + 1} has no label or no run; name both for each volume")
    if table.empty:
        raise DataError(f"{path}: no volume in it; expected a label and a run for each")
    return pd.DataFrame({"label": table[0].str.strip(), "run": table[1].str.strip()})


def stretches(labels: Collection[str], tr: float) -> pd.DataFrame:
    """Events of one run from a label per volume: each stretch of one label is an event.

    Args:
        labels: of each volume in turn
        tr: s between volumes
    """
    names = np.asarray(list(labels), dtype=object)
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    lengths = np.diff(np.r_[starts, len(names)])
    shown = list(names[starts])
    return pd.DataFrame({"onset": starts * tr, "duration": lengths * tr, "label": shown, "stimulus": shown})


def without(events: pd.DataFrame, labels: Collection[str], path: Path) -> tuple[pd.DataFrame, int]:
    """The events of other labels, and how many were left out.

    Raises:
        DataError: none is left
    """
    out = events["label"].isin(list(labels))
    if out.all():
        raise DataError(f"{path}: every event is one of {', '.join(labels)}, which are left out; name other events")
    return events[~out].reset_index(drop=True), int(out.sum())


def check_within(events: pd.DataFrame, frames: int, tr: float, path: Path) -> None:
    """Every event must begin while the scanner runs.

    Raises:
        DataError: one begins after the last volume; times in ms, another run's events or a wrong TR look like this
    """
    length = frames * tr
    beyond = int((events["onset"] >= length).sum())
    if beyond:
        raise DataError(
            f"{path}: {beyond} of {len(events)} events begin after the scan, which ends at {length:g} s (the last at "
            f"{events['onset'].max():g} s). Check that onsets are seconds, that the events are of this run, and the TR "
            f"({tr:g} s)"
        )
