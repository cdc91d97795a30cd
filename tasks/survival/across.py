"""Several runs side by side: every arm's c-index in each, and its mean over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.experiment.folder import RunError
from tasks.survival.results import Results, read

UNDER_TEST = "model under test"


def across(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """One row per arm: its fold-mean c-index in each run, the mean over the runs that have it, and how many those are.

    Args:
        runs: evaluated run folders; the arm named like its run is the model under test in each

    Raises:
        RunError: a run has not been evaluated, or two have one name
    """
    columns = {}
    for path in runs:
        results = read(path)
        if results.summary is None:
            raise RunError(f"{path}: not evaluated yet; survival evaluate {path}")
        name = path.resolve().name
        if name in columns:
            raise RunError(f"{path}: another of these runs is called {name} too, and one column cannot hold both")
        columns[name] = _scores(results, results.summary)
    table = pd.DataFrame(columns)
    table = table.reindex([UNDER_TEST, *(arm for arm in table.index if arm != UNDER_TEST)])
    table["mean"] = table.mean(axis=1)
    table["runs"] = table[list(columns)].notna().sum(axis=1)
    rows = table.rename_axis("arm").reset_index().to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]


def _scores(results: Results, summary: pd.DataFrame) -> pd.Series:
    """c-index by arm, over the folds where there are several."""
    over = "mean" if (summary["fold"] == "mean").any() else "pooled"
    rows = summary[(summary["metric"] == "c_index") & (summary["fold"] == over)]
    return rows.set_index("arm")["value"].rename(index={results.config["name"]: UNDER_TEST})
