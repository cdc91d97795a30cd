"""The two mistakes this field makes most, made on purpose and measured: a wrong lag, and folds that cut runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from data.brain.brain import Brains
from data.brain.splits import CutRuns, LeaveRunsOut, Splitting
from tasks.fmri.decoder import Decoder, held_out
from tasks.fmri.metrics import judge, summary


def lag_sweep(at_lag: Callable[[float], Brains], lags: Sequence[float], decoder: Decoder) -> pd.DataFrame:
    """Accuracy at each lag, whole runs held out.

    Choosing the lag with the best accuracy looks at the scored runs; the sweep shows whether the lag that was set, from
    the design or the class-blind response, is a sensible one.

    Args:
        at_lag: the data with a lag in seconds
        lags: to try
        decoder: fitted anew at each

    Returns:
        Rows of lag, value, low, high (interval over runs), chance, n.
    """
    rows = []
    for lag in lags:
        rows.append({"lag": lag} | _accuracy(at_lag(lag), decoder, LeaveRunsOut()))
    return pd.DataFrame(rows)


def leakage(brains: Brains, decoder: Decoder, folds: int = 12, seed: int = 0) -> pd.DataFrame:
    """Accuracy when whole runs are held out, beside that of random folds, which cut runs and leak.

    Returns:
        Rows of split (`whole runs`, `random folds (leaky)`), value, low, high (interval over runs), chance, n.
    """
    splittings: dict[str, Splitting] = {"whole runs": LeaveRunsOut(), "random folds (leaky)": CutRuns(folds, seed)}
    return pd.DataFrame([{"split": name} | _accuracy(brains, decoder, how) for name, how in splittings.items()])


def _accuracy(brains: Brains, decoder: Decoder, how: Splitting) -> dict[str, float]:
    judged = judge(held_out(decoder, brains, how.splits(brains)), brains.table, brains.truth)
    row = summary(judged, len(brains.candidates)).set_index("metric").loc["accuracy"]
    return {key: row[key] for key in ("value", "low", "high", "chance", "n")}
