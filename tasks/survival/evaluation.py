"""From a run's units to its tables: every arm measured, the model under test compared with each of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from data.errors import DataError
from tasks.experiment.folder import RunError, write_whole
from tasks.experiment.inventory import fault
from tasks.experiment.state import UNIT, nothing_finished, unit_table
from tasks.survival.metrics import compare_arms, evaluate
from tasks.survival.report_tables import CHANCE
from tasks.survival.results import Results, months, read


def evaluate_run(run: Path, draws: int = 1000) -> Results:
    """Measure whatever units of a run are finished; write `summary.csv` and `comparisons.csv`.

    Args:
        run: the run folder
        draws: bootstrap resamples

    Returns:
        the run as it is now

    Raises:
        RunError: no run at this path, or none of its units is finished
    """
    results = read(run)
    if results.predictions.empty:
        raise nothing_finished(run)
    own = results.config["name"]
    rank = {arm: i for i, arm in enumerate([own, *arms_in_order(results.config)])}
    predictions = results.predictions.sort_values("arm", key=lambda arm: arm.map(rank), kind="stable")
    curves = results.curves if months(results.curves) else None
    summary = evaluate(predictions, curves, training_follow_up(run), draws=draws)
    order = summary["arm"].map(rank)
    write_whole(run / "summary.csv", summary.iloc[order.argsort(kind="stable")].to_csv(index=False))
    write_whole(run / "comparisons.csv", compared(predictions, own, draws).to_csv(index=False))
    return read(run)


def arms_in_order(config: dict[str, Any]) -> list[str]:
    """Rivals, then baselines, then the ceiling, as the config lists them."""
    return [*(config.get("rivals") or {}), *(config.get("baselines") or {}), "ceiling"]


def training_follow_up(run: Path) -> pd.DataFrame:
    """Fold, time and event of the patients each fold was trained on.

    Raises:
        RunError: no unit says it, or the table of one is damaged
    """
    parts: dict[str, pd.DataFrame] = {}
    for path in sorted(run.glob("*/fold*-seed*/training.csv")):
        named = UNIT.fullmatch(path.parent.name)
        if named and named["fold"] not in parts and fault(path.parent) is None:
            known = unit_table(path.parent, path.name, ["time", "event"])
            parts[named["fold"]] = known[["time", "event"]].assign(fold=named["fold"])
    if not parts:
        raise RunError(f"{run}: no unit left its training.csv; train again with --resume")
    return pd.concat(parts.values(), ignore_index=True)


def compared(predictions: pd.DataFrame, own: str, draws: int) -> pd.DataFrame:
    """Paired differences in c-index of the model under test and every other arm."""
    rows = []
    for other in dict.fromkeys(predictions["arm"]):
        if other in (own, CHANCE) or own not in set(predictions["arm"]):
            continue
        try:
            result = compare_arms(predictions, own, str(other), draws=draws)
        except DataError:
            # The arms share no finished fold yet; the report says which units are open.
            continue
        rows.append(
            {
                "a": result.a,
                "b": result.b,
                "metric": result.metric,
                "a_value": result.a_value,
                "b_value": result.b_value,
                "difference": result.difference.value,
                "low": result.difference.low,
                "high": result.difference.high,
                "n": result.n,
                "sentence": result.sentence,
            }
        )
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else ["a", "b", "sentence"])
