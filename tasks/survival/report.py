"""The survival report: from whatever a run folder holds now to one page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.experiment.compare import best_of_noise
from tasks.experiment.report import Figure, Listing, MetricTable, Part, Prose, Report, Section, Table
from tasks.experiment.report.estimates import Estimate, dots, forest
from tasks.experiment.report.numbers import count, decimal, interval, sentence
from tasks.experiment.report.run_parts import closing_sections, context, notice
from tasks.survival import figures
from tasks.survival.calibration import calibration_curve, survival_at
from tasks.survival.concordance import harrell, harrell_of_many
from tasks.survival.follow_up import FollowUp
from tasks.survival.report_tables import CEILING, CHANCE, Scores, all_metrics, by_fold, headline
from tasks.survival.results import Results, months, read

EPOCH_SCORE = "c_index"
"""Column of epochs.csv with the c-index on the scored fold."""


def write(run: Path, own: str | None = None) -> Path:
    """Write `report.html` into a run folder, which may be incomplete: the page then says so.

    Args:
        run: the run folder
        own: the arm this run is about; by default the one the config is named after

    Returns:
        the page

    Raises:
        RunError: there is no run at this path
        ValueError: the run has no arm of that name
    """
    return compose(read(run), own).write(run / "report.html")


def plot(run: Path, own: str | None = None) -> list[Path]:
    """Write every figure of the report as a file of its own into `run/figures`."""
    results = read(run)
    return [figure.save(run / "figures") for figure in all_figures(results, _own_arm(results, own))]


def compose(results: Results, own: str | None = None) -> Report:
    """The report of a run as data."""
    own = _own_arm(results, own)
    scores = Scores.of_summary(results.summary, own)
    drawn = list(all_figures(results, own))
    sections = [
        Section("Result", list(_result(results, scores))),
        Section("Figures", drawn or [Prose(["There is no finished unit to draw yet."])]),
        Section("Folds and further metrics", list(_detail(scores))),
        Section("Patients", list(_patients(results))),
        *closing_sections(results, "survival"),
    ]
    return Report(
        title=_title(results),
        lead=_lead(results, scores),
        sections=[section for section in sections if section.parts],
        notice=notice(results, results.summary is not None),
        context=context(results, "survival"),
    )


def all_figures(results: Results, own: str) -> Iterator[Figure]:
    """Every figure the run has the numbers for."""
    scores = Scores.of_summary(results.summary, own)
    everyone = results.predictions
    ours = _one_seed(everyone[everyone["arm"] == own])
    if ours.empty:
        return
    n = figures.cases(ours)
    yield figures.kaplan_meier(ours, title=f"Survival by risk of {own}")
    rival = scores.strongest_rival
    if rival and not (theirs := _one_seed(everyone[everyone["arm"] == rival])).empty:
        yield figures.kaplan_meier(theirs, key="kaplan-meier-baseline", title=f"Survival by risk of {rival}")
    yield from _arms(scores, n)
    if (differences := _differences(results, own)) is not None:
        yield differences
    yield from _epochs(results, own, ours, n)
    yield from _calibration(results, own, ours, n)


def _arms(scores: Scores, n: str) -> Iterator[Figure]:
    estimates = scores.estimates("c_index")
    if not estimates:
        return
    lines = {"chance": 0.5} | ({"ceiling": scores.ceiling} if scores.ceiling is not None else {})
    axis = "C-index (higher is better)"
    what = "mean of folds" if scores.over == "mean" else "all patients together"
    caption = f"Harrell's c-index, {what}, with 95 % intervals from resampling patients."
    yield forest(
        "arms", estimates, title="Every arm on the same patients", axis=axis, caption=caption, n=n, lines=lines
    )
    if scores.over == "mean":
        caption = "One dot for every fold; the bar is their mean."
        yield dots("folds", estimates, title="The folds behind the means", axis=axis, caption=caption, n=n, lines=lines)


def _result(results: Results, scores: Scores) -> Iterator[Part]:
    if results.summary is None:
        yield Prose(["This run has not been evaluated yet: it has no summary.csv. `survival evaluate RUN` writes it."])
        return
    yield headline(scores, _on_whom(results, scores.own))
    if results.comparisons is not None and len(results.comparisons):
        yield Prose(list(_sentences(results.comparisons, scores.own)))
    if results.left_out:
        yield Prose([f"{arm} was not run: {why}." for arm, why in results.left_out.items()])


def _detail(scores: Scores) -> Iterator[MetricTable | Table]:
    if scores.own in scores.arms:
        if scores.over == "mean":
            yield by_fold(scores)
        yield all_metrics(scores)


def _title(results: Results) -> str:
    """`CMTA on tcga_blca`, from the classes and files that the config names."""
    model, cohort = results.config.get("model") or {}, results.config.get("cohort") or {}
    options = cohort.get("init_args") or {}
    on = options.get("name") or options.get("study") or Path(str(options.get("table") or "")).name.split(".")[0]
    on = str(on or str(cohort.get("class_path") or "").rsplit(".", 1)[-1])
    words = [str(model.get("class_path", "")).rsplit(".", 1)[-1], on.removesuffix("_all_clean")]
    return " on ".join(filter(None, words)) or results.path.resolve().name


def _lead(results: Results, scores: Scores) -> str:
    """What was reached, and whether it beats the strongest baseline."""
    row = scores.of(scores.own, "c_index")
    if row is None:
        finished = [unit for unit in results.done if unit.rsplit("/", 1)[0] == scores.own]
        what = f"{count(len(finished), 'unit')} of {scores.own}" if finished else f"no unit of {scores.own}"
        return f"Nothing can be concluded yet: {what} {'is' if len(finished) < 2 else 'are'} finished."
    if np.isnan(row["value"]):
        return f"The c-index of {scores.own} is undefined: {row['note']}."
    span = interval(row["low"], row["high"])
    reached = f"{scores.own} orders patients with a c-index of {decimal(row['value'])}" + (f" ({span})" if span else "")
    if scores.ceiling is not None and scores.ceiling > 0.5:
        share = (row["value"] - 0.5) / (scores.ceiling - 0.5)
        reached += f", {share:.0%} of the way from chance to the ceiling of {decimal(scores.ceiling)}"
    sentences = _against(results.comparisons, scores.own)
    verdict = sentences.get(scores.strongest_rival or "") or next(iter(sentences.values()), "")
    return f"{sentence(verdict)} {sentence(reached)}" if verdict else sentence(reached)


def _against(comparisons: pd.DataFrame | None, own: str) -> dict[str, str]:
    """Other arm -> the sentence that compares ours with it."""
    if comparisons is None:
        return {}
    ours = _rivals_only(comparisons, own)
    return dict(zip(ours["b"], ours["sentence"], strict=True))


def _sentences(comparisons: pd.DataFrame, own: str) -> Iterator[str]:
    for said in _rivals_only(comparisons, own)["sentence"]:
        yield sentence(said)


def _rivals_only(comparisons: pd.DataFrame, own: str) -> pd.DataFrame:
    """Ours against the other arms; nobody needs to be told that the ceiling is higher."""
    return comparisons[(comparisons["a"] == own) & ~comparisons["b"].isin([CHANCE, CEILING])]


def _differences(results: Results, own: str) -> Figure | None:
    if results.comparisons is None:
        return None
    ours = _rivals_only(results.comparisons, own)
    if ours.empty:
        return None
    rows = [Estimate(f"minus {c.b}", c.difference, c.low, c.high, "own") for c in ours.itertuples()]
    return forest(
        "differences",
        rows,
        title=f"Paired differences: {own} …",
        axis="Difference in c-index (right: ours is better)",
        caption="Each difference on the same patients, with the 95 % interval of a paired bootstrap over patients.",
        n=count(int(ours["n"].max()), "patient"),
        lines={"no difference": 0.0},
        signed=True,
    )


def _epochs(results: Results, own: str, ours: pd.DataFrame, n: str) -> Iterator[Figure]:
    epochs = results.epochs[results.epochs["arm"] == own]
    if EPOCH_SCORE not in epochs or epochs["epoch"].nunique() < 2:
        return
    everyone = results.predictions[results.predictions["arm"] == own]
    epochs = _with_untrained(epochs.rename(columns={EPOCH_SCORE: "c_index"}), everyone)
    folds = dict(list(ours.groupby("fold")))
    outcomes = [FollowUp.of(fold["time"], fold["event"]) for fold in folds.values()]
    scorers = [lambda risks, outcome=outcome: harrell_of_many(outcome, risks) for outcome in outcomes]
    tries = epochs.groupby("fold")["epoch"].nunique()[list(folds)].tolist()
    noise = best_of_noise(scorers, [len(fold) for fold in folds.values()], epochs=tries).value
    nested = (results.config.get("fit") or {}).get("select") == "nested"
    yield figures.epoch_choice(epochs, n, noise, tries[0] if len(set(tries)) == 1 else None, nested)


def _with_untrained(epochs: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Epoch -1 for each unit whose selection chose the untrained model: it has a result, and no epochs."""
    trained = set(zip(epochs["fold"], epochs["seed"], strict=True))
    rows = [
        {
            "fold": fold,
            "seed": seed,
            "epoch": -1,
            "c_index": float(harrell(FollowUp.of(own["time"], own["event"]), own["risk"].to_numpy(float))[0]),
        }
        for (fold, seed), own in predictions.groupby(["fold", "seed"])
        if (fold, seed) not in trained
    ]
    return pd.concat([epochs, pd.DataFrame(rows)], ignore_index=True) if rows else epochs


def _calibration(results: Results, own: str, ours: pd.DataFrame, n: str) -> Iterator[Figure]:
    curves = results.curves[results.curves["arm"] == own]
    if curves.empty:
        return
    joined = ours.merge(curves, on=["arm", "fold", "seed", "case_id"], validate="one_to_one")
    grid = months(curves)
    survival = joined[grid].to_numpy(dtype=float)
    if joined.empty or not np.isfinite(survival).all():
        return
    at = _calibration_month(joined["time"], float(grid[-1]))
    predicted = survival_at(survival, np.array([float(month) for month in grid]), np.full(len(joined), at))
    outcome = FollowUp.of(joined["time"], joined["event"])
    yield figures.calibration(calibration_curve(outcome, predicted, at), at, n)


def _calibration_month(time: pd.Series, last: float) -> float:
    """The latest of 60, 36 and 12 months that a quarter of the patients were watched for, or half of the follow-up."""
    watched = min(float(np.quantile(time, 0.75)), last)
    return next((month for month in (60.0, 36.0, 12.0) if month <= watched), watched / 2)


def _patients(results: Results) -> Iterator[Part]:
    if results.account:
        yield Prose(["Who was read, dropped and found incomplete, and why."])
        yield Listing(results.account.rstrip())


def _on_whom(results: Results, own: str) -> str:
    ours = results.predictions[results.predictions["arm"] == own]
    if ours.empty:
        return "Intervals: 95 %, bootstrap over patients."
    seeds = ours["seed"].nunique()
    return (
        f"{figures.cases(ours)}, {count(ours['fold'].nunique(), 'fold')}"
        + (f", {count(seeds, 'seed')}" if seeds > 1 else "")
        + ". Every arm was scored on the same held-out patients. Intervals: 95 %, bootstrap over patients."
    )


def _one_seed(predictions: pd.DataFrame) -> pd.DataFrame:
    """The first seed: a figure of patients must not show anybody twice."""
    return predictions[predictions["seed"] == predictions["seed"].min()]


def _own_arm(results: Results, own: str | None) -> str:
    arms = [arm for arm in results.arms if arm not in (CHANCE, CEILING)]
    named = results.config.get("name")
    if own is None:
        return str(named or next(iter(arms), ""))
    if own not in (*arms, named):
        raise ValueError(f"{results.path}: no arm {own!r}; there are {', '.join(map(repr, arms)) or 'none yet'}")
    return own
