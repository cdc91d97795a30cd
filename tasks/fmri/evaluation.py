"""From a run's units to its tables: every arm measured, per subject and per class, and compared with ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.brain.order import natural
from data.errors import DataError
from tasks.experiment.folder import write_whole
from tasks.experiment.state import nothing_finished
from tasks.fmri.galleries import MANY_SUBJECTS, gallery_hits, retrieval_rows
from tasks.fmri.metrics import MEASURES, compare_judged, judge, places, summary, top_k, two_way
from tasks.fmri.permutation import permuted_within_runs
from tasks.fmri.reconstructed import COLUMNS, judged_reconstructions
from tasks.fmri.results import Results, read
from tasks.fmri.unit import WHO, read_scores

ALL = "all"
"""Stands for every subject together."""

CHANCE = "chance"
"""A baseline of this name is an end of the scale, not a competitor."""

_WORTH: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "accuracy": top_k,
    "two_way": two_way,
    "top5": lambda matrix, truth: top_k(matrix, truth, 5),
}
"""What a sample gets for each measure if a given candidate were the right one."""


def evaluate_run(run: Path, draws: int = 1000) -> Results:
    """Measure whatever units of a run are finished; write `summary.csv`, `classes.csv` and `comparisons.csv`, and
    `reconstruction.csv` where something was reconstructed.

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
    unit = resampled_unit(results)
    judged = {arm: judged_samples(results, arm) for arm in results.arms}
    permutations = int((results.config.get("controls") or {}).get("permutations", 0))
    hits = {arm: gallery_hits(results, arm) for arm in judged}
    rows = [row for arm in judged for row in _arm_rows(results, arm, judged[arm], hits[arm], unit, draws, permutations)]
    write_whole(run / "summary.csv", pd.DataFrame(rows).to_csv(index=False))
    size = len(results.candidates)
    classes = [row for arm in judged for row in _class_rows(arm, judged[arm], hits[arm], size, unit, draws)]
    compared = _compared(results, judged, unit, draws)
    networks = (results.config.get("controls") or {}).get("networks") or {}
    made = [
        row
        for arm in judged
        for row in judged_reconstructions(run, arm, judged[arm], results.candidates, unit, draws, networks)
    ]
    if made:
        table = pd.DataFrame(made, columns=list(COLUMNS)).assign(cuts_runs=results.leaks)
        write_whole(run / "reconstruction.csv", table.to_csv(index=False))
    for name, table in (("classes", pd.DataFrame(classes)), ("comparisons", compared)):
        write_whole(run / f"{name}.csv", table.assign(cuts_runs=results.leaks).to_csv(index=False))
    return read(run)


def resampled_unit(results: Results) -> str:
    """What intervals draw again: subjects when there are many, stimuli when those were held out, else whole runs."""
    samples = results.predictions.drop_duplicates("sample")
    split = results.config.get("split") or {}
    options = split.get("init_args") or {}
    if samples["subject"].nunique() >= MANY_SUBJECTS:
        return "subject"
    if str(split.get("class_path", "")).endswith("HeldOutStimuli") or options.get("test_stimuli"):
        return "stimulus"
    return "run" if len(samples[["subject", "run"]].drop_duplicates()) > 1 else "sample"


def judged_samples(results: Results, arm: str) -> pd.DataFrame:
    """What each sample got from an arm, the mean over seeds; the guess is that of the first seed.

    Returns:
        of `metrics.judge`, indexed by sample id
    """
    own = results.predictions[results.predictions["arm"] == arm]
    parts = [
        judge(read_scores(part, results.candidates), part.set_index("sample")[list(WHO[1:])], "truth")
        for _, part in own.groupby(["seed", "fold"], sort=True)
    ]
    every = pd.concat(parts)
    first = every[~every.index.duplicated()]
    means = every.groupby(level=0)[list(MEASURES)].mean()
    return first.assign(**{measure: means.loc[first.index, measure] for measure in MEASURES})


def _arm_rows(
    results: Results, arm: str, judged: pd.DataFrame, hits: pd.DataFrame, unit: str, draws: int, permutations: int
) -> Iterator[dict[str, Any]]:
    """Every metric of an arm, of all subjects together and of each."""
    own = results.predictions[results.predictions["arm"] == arm]
    cuts = bool(own["cuts_runs"].astype(bool).any())
    people = sorted(judged["subject"].unique(), key=natural)
    for subject in [ALL, *people] if len(people) > 1 else [ALL]:
        part = judged if subject == ALL else judged[judged["subject"] == subject]
        inner = unit if subject == ALL or unit != "subject" else "run"
        if inner == "run" and len(part[["subject", "run"]].drop_duplicates()) == 1:
            # Resampling one run gives it back: an interval of no width, which would be believed.
            inner = "sample"
        rows = summary(part, len(results.candidates), unit=inner, draws=draws)
        null = _null(own[own["sample"].isin(part.index)], results.candidates, permutations)
        for row in rows.to_dict("records"):
            p95 = null.get(row["metric"], np.nan)
            yield {"arm": arm, "subject": subject, **row, "null_p95": p95, "cuts_runs": cuts}
    people = sorted(hits["subject"].unique(), key=natural)
    for subject in [ALL, *people] if len(people) > 1 else [ALL]:
        for row in retrieval_rows(hits if subject == ALL else hits[hits["subject"] == subject], draws):
            yield {"arm": arm, "subject": subject, **row, "null_p95": np.nan, "cuts_runs": cuts}


def _null(own: pd.DataFrame, candidates: list[str], permutations: int) -> dict[str, float]:
    """The 95th percentile of each measure when true labels are permuted within runs around the first seed's scores."""
    if not permutations:
        return {}
    own = own[own["seed"] == own["seed"].min()].set_index("sample")
    try:
        order = permuted_within_runs(own, permutations)
    except DataError:
        # Every run has one sample, so there is nothing to permute within.
        return {}
    scores = read_scores(own.reset_index(), candidates)
    truth = places(scores, own["truth"])
    every = np.arange(len(candidates))
    worth = {name: np.stack([of(scores.matrix, np.full(len(own), k)) for k in every]) for name, of in _WORTH.items()}
    return {
        name: float(np.quantile(of[truth[order], np.arange(len(own))].mean(axis=1), 0.95)) for name, of in worth.items()
    }


def _class_rows(
    arm: str, judged: pd.DataFrame, hits: pd.DataFrame, candidates: int, unit: str, draws: int
) -> Iterator[dict[str, Any]]:
    """Every metric of an arm in each class."""
    for label, part in judged.groupby("label", sort=True):
        inner = unit if len(part[["subject", "run"]].drop_duplicates()) > 1 or unit != "run" else "sample"
        means = summary(part, candidates, unit=inner, draws=draws)
        # Resampling one sample gives it back: an interval of no width, which would be believed.
        means.loc[means["units"] == 1, ["low", "high"]] = np.nan
        rows = means.to_dict("records")
        for row in (*rows, *retrieval_rows(hits[hits["label"] == label], draws)):
            yield {"arm": arm, "label": label, **row}


def _compared(results: Results, judged: dict[str, pd.DataFrame], unit: str, draws: int) -> pd.DataFrame:
    """Paired differences in accuracy of the model under test and every other arm, on the samples both have scored."""
    rows: list[dict[str, Any]] = []
    for other in judged:
        if results.own not in judged or other in (results.own, CHANCE):
            continue
        try:
            found = compare_judged(results.own, other, judged[results.own], judged[other], unit=unit, draws=draws)
        except DataError:
            # The arms share no finished fold yet; the report says which units are open.
            continue
        rows.append(
            {
                "a": found.a, "b": found.b, "metric": found.metric, "a_value": found.a_value, "b_value": found.b_value,
                "difference": found.difference.value, "low": found.difference.low, "high": found.difference.high,
                "n": found.n, "unit": unit, "sentence": found.sentence.replace("on this cohort", "on these samples"),
            }
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else ["a", "b", "sentence"])
