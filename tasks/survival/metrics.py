"""Every survival metric of every arm, per fold, as mean over folds and pooled, with bootstrap intervals over patients.

A metric that does not exist on a fold (no event, no pair, no curves) is nan and its row says why. Collapsed and
inverted risks are named in the note and left as they are. All arms are resampled alike, so their rows can be compared.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from tasks.experiment.compare import Comparison, paired_difference, percentile_interval, resample, signed
from tasks.survival.brier import brier_shares, integrated, mean_share
from tasks.survival.calibration import bin_memberships, calibration_error, d_calibration, survival_at, unevenness
from tasks.survival.concordance import describe_ranking, harrell, uno
from tasks.survival.dynamic_auc import auc_at, mean_auc
from tasks.survival.follow_up import Censoring, FollowUp, censoring, kaplan_meier
from tasks.survival.predictions import Predictions, Run
from tasks.survival.risk_groups import logrank, split_at_quantiles

COLUMNS = ("arm", "fold", "metric", "value", "low", "high", "n", "events", "note")
LANDMARKS = (12.0, 36.0, 60.0)
LOWER_IS_BETTER = ("ibs", "unevenness", "calibration_error")


@dataclass(frozen=True)
class Measured:
    """A metric of one run (arm, fold, seed): its value and draws, a remark or the reason why it is undefined."""

    values: Float[np.ndarray, " b"]
    note: str = ""
    p_value: bool = False


Measures = dict[str, Measured]


def evaluate(
    predictions: pd.DataFrame,
    curves: pd.DataFrame | None,
    training: pd.DataFrame,
    *,
    draws: int = 1000,
    seed: int = 0,
    landmarks: tuple[float, ...] = LANDMARKS,
) -> pd.DataFrame:
    """Measure every arm on every fold.

    Args:
        predictions: arm, fold, case_id, time (months), event, risk (higher = worse), and seed if there are several
        curves: arm, fold, case_id (and seed) with one column per month of the grid holding the survival probability;
            None = none
        training: fold, time, event of the patients each fold was trained on: censoring weights, Kaplan-Meier, horizons
        draws: bootstrap resamples of patients
        seed: of the resamples
        landmarks: months at which AUC and calibration are read

    Returns:
        Rows of arm, fold (the fold's name, "mean" or "pooled"), metric, value, low, high (95 % percentile interval), n,
        events, note; arms in the order they came in. Several seeds are averaged: their spread is in the
        note. A p value has no interval and no mean over folds.

    Raises:
        DataError: a column is missing, a case stands twice in a run, an outcome is impossible, or a fold has no
        training patients
    """
    table = Predictions.of(predictions, curves, training)
    return _summary(table, draws, seed, lambda run, drawn: _measure(run, table, drawn, landmarks))


def rank(predictions: pd.DataFrame, *, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Only what risks alone allow, c-index and log-rank p: the rows of `evaluate` without training data or curves."""
    return _summary(Predictions.of(predictions, None, None), draws, seed, _rank_and_split)


def compare_arms(
    predictions: pd.DataFrame,
    a: str,
    b: str,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare the fold-mean c-index of two arms on the cases both have scored, resampling the same patients for both.

    Args:
        predictions: as for `evaluate`; folds and cases of only one of the arms are left out
        a: arm that should be better
        b: arm it is held against
        draws: bootstrap resamples
        seed: of the resamples

    Raises:
        DataError: if the arms share no fold
    """
    table = Predictions.of(predictions, None, None).shared_by(a, b)
    values = _fold_means(table, resample(len(table.cases), draws, seed))
    return paired_difference(a, b, values[a], values[b], metric="c_index", n=len(table.cases))


def fold_means(predictions: pd.DataFrame, *, draws: int = 1000, seed: int = 0) -> dict[str, Float[np.ndarray, " b"]]:
    """The fold-mean c-index of every arm, its value first and then its draws, all arms under the same resamples.

    Args:
        predictions: as for `evaluate`; every arm should have scored the same cases
        draws: bootstrap resamples of patients
        seed: of the resamples
    """
    table = Predictions.of(predictions, None, None)
    return _fold_means(table, resample(len(table.cases), draws, seed))


def _fold_means(table: Predictions, counts: Float[np.ndarray, "b n"]) -> dict[str, Float[np.ndarray, " b"]]:
    values = {}
    for arm in table.arms:
        folds = [
            np.mean([_ranking(run, counts[:, run.cases])["c_index"].values for run in table.runs(arm, fold)], axis=0)
            for fold in table.folds(arm)
        ]
        values[arm] = _nanmean(np.array(folds))
    return values


def higher_is_better(metric: str) -> bool:
    """Whether a larger value of a metric of `evaluate` is the better one."""
    return metric == "ibs_skill" or not metric.startswith(LOWER_IS_BETTER)


def _summary(table: Predictions, draws: int, seed: int, measure: Callable[[Run, np.ndarray], Measures]) -> pd.DataFrame:
    counts = resample(len(table.cases), draws, seed)

    def over_seeds(runs: list[Run]) -> Measures:
        return _over_seeds([measure(run, counts[:, run.cases]) for run in runs])

    rows: list[dict[str, object]] = []
    for arm in table.arms:
        by_fold = {fold: over_seeds(table.runs(arm, fold)) for fold in table.folds(arm)}
        for fold, measures in by_fold.items():
            rows += _rows(arm, str(fold), measures, table.outcome(arm, fold))
        outcome = table.outcome(arm)
        if len(by_fold) > 1:
            rows += _rows(arm, "mean", _over_folds(by_fold), outcome)
        rows += _rows(arm, "pooled", over_seeds(table.pooled(arm)), outcome)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _measure(run: Run, table: Predictions, drawn: Float[np.ndarray, "b n"], landmarks: tuple[float, ...]) -> Measures:
    weights = {fold: censoring(table.training(fold)) for fold in np.unique(run.fold)}
    measures = _rank_and_split(run, drawn)
    p_value = {"logrank_p": measures.pop("logrank_p")}
    broken = "" if np.isfinite(run.risk).all() else measures["c_index"].note
    measures |= _over_time(run, weights, drawn, landmarks, broken)
    return measures | _errors_of_curves(run, table, weights, drawn, landmarks) | p_value


def _rank_and_split(run: Run, drawn: Float[np.ndarray, "b n"]) -> Measures:
    ranking = _ranking(run, drawn)
    if np.isfinite(run.risk).all():
        p, why = logrank(run.outcome, split_at_quantiles(run.risk))
    else:
        p, why = np.nan, ranking["c_index"].note
    return ranking | {
        "logrank_p": Measured(np.array([p]), why or "risk above the median against the rest", p_value=True)
    }


def _ranking(run: Run, drawn: Float[np.ndarray, "b n"]) -> Measures:
    nothing = np.full(len(drawn), np.nan)
    broken = describe_ranking(run.risk, np.nan) if not np.isfinite(run.risk).all() else ""
    if broken:
        return {"c_index": Measured(nothing, f"undefined: {broken}")}
    if not run.outcome.events:
        return {"c_index": Measured(nothing, f"undefined: none of the {len(run.risk)} patients had the event")}
    values = harrell(run.outcome, run.risk, drawn)
    if np.isnan(values[0]):
        return {"c_index": Measured(values, "undefined: nobody is known to have outlived a patient with the event")}
    models = len(np.unique(run.fold))
    notes = [
        describe_ranking(run.risk, percentile_interval(values).high),
        f"one ranking of the risks of {models} models" if models > 1 else "",
    ]
    return {"c_index": Measured(values, "; ".join(filter(None, notes)))}


def _over_time(
    run: Run,
    weights: dict[object, Censoring],
    drawn: Float[np.ndarray, "b n"],
    landmarks: tuple[float, ...],
    broken: str,
) -> Measures:
    outcome, horizon = run.outcome, min(weight.horizon for weight in weights.values())
    names = ["c_uno", *(f"auc_{month:g}m" for month in landmarks), "auc_mean"]
    if broken:
        return {name: Measured(np.full(len(drawn), np.nan), broken) for name in names}
    ipcw = np.zeros(len(outcome))
    for fold, weight in weights.items():
        own = run.fold == fold
        ipcw[own] = weight.of_events(outcome[own])
    ipcw[outcome.time >= horizon] = 0.0
    early = np.unique(np.quantile(outcome.time[ipcw > 0], np.arange(1, 10) / 10)) if ipcw.any() else np.array([])
    asked: list[Callable[[], np.ndarray]] = [
        lambda: uno(outcome, run.risk, ipcw, drawn),
        *(lambda month=month: auc_at(outcome, run.risk, ipcw, month, drawn) for month in landmarks),
        lambda: mean_auc(outcome, run.risk, ipcw, early, drawn),
    ]
    measures = {}
    for name, month, ask in zip(names, [None, *landmarks, None], asked, strict=True):
        if month is not None and month > horizon:
            why = f"undefined: fewer than 10 % of the training patients were watched beyond month {horizon:.1f}"
            measures[name] = Measured(np.full(len(drawn), np.nan), why)
            continue
        values = ask()
        where = f"by month {month:g}" if month is not None else f"by month {horizon:.1f}"
        note = f"undefined: no pair of a patient with the event {where} and one who outlived it"
        limit = f"up to month {horizon:.1f}" if month is None else ""
        measures[name] = Measured(values, note if np.isnan(values[0]) else limit)
    return measures


def _errors_of_curves(
    run: Run,
    table: Predictions,
    weights: dict[object, Censoring],
    drawn: Float[np.ndarray, "b n"],
    landmarks: tuple[float, ...],
) -> Measures:
    calibrations = [f"calibration_error_{month:g}m" for month in landmarks]
    names = ["ibs", "ibs_kaplan_meier", "ibs_skill", "unevenness", *calibrations, "d_calibration_p"]
    nothing = np.full(len(drawn), np.nan)
    if run.survival is None or not np.isfinite(run.survival).all():
        why = (
            "no survival curves were predicted"
            if run.survival is None
            else "survival curves hold values that are not numbers"
        )
        return {name: Measured(nothing, f"undefined: {why}", name.endswith("_p")) for name in names}
    outcome, horizon, measures = run.outcome, min(weight.horizon for weight in weights.values()), {}
    grid = table.months <= horizon
    if grid.sum() > 1:
        months, ours, reference = table.months[grid], np.zeros(len(outcome)), np.zeros(len(outcome))
        for fold, weight in weights.items():
            own = run.fold == fold
            flat = np.broadcast_to(kaplan_meier(table.training(fold)).at(months), (int(own.sum()), len(months)))
            ours[own] = integrated(brier_shares(outcome[own], run.survival[own][:, grid], months, weight), months)
            reference[own] = integrated(brier_shares(outcome[own], flat, months, weight), months)
        error, of_all = mean_share(ours, drawn), mean_share(reference, drawn)
        up_to = f"months {months[0]:g} to {months[-1]:g}"
        measures["ibs"] = Measured(error, up_to)
        measures["ibs_kaplan_meier"] = Measured(of_all, f"the training patients' curve for everybody, {up_to}")
        skill = 1 - np.divide(error, of_all, out=nothing.copy(), where=of_all > 0)
        measures["ibs_skill"] = Measured(skill, "share of the Kaplan-Meier error that is removed; 0 = none")
    else:
        why = f"undefined: the curves' grid has fewer than two months up to month {horizon:.1f}"
        measures |= {name: Measured(nothing, why) for name in names[:3]}
    members = bin_memberships(outcome, survival_at(run.survival, table.months, outcome.time))
    statistic, p = d_calibration(members)
    measures["unevenness"] = Measured(
        unevenness(members, drawn), "of ten bins of predicted survival at the own time; 0 = calibrated"
    )
    for name, month in zip(calibrations, landmarks, strict=True):
        if month > min(horizon, table.months[-1]):
            measures[name] = Measured(nothing, f"undefined: month {month:g} is beyond the curves or the follow-up")
            continue
        predicted = survival_at(run.survival, table.months, np.full(len(outcome), month))
        measures[name] = Measured(
            calibration_error(outcome, predicted, month, drawn), "mean over five groups of |predicted - seen|"
        )
    measures["d_calibration_p"] = Measured(
        np.array([p]), f"chi-square {statistic:.1f} on {members.shape[1] - 1} df", p_value=True
    )
    return measures


def _over_seeds(each: list[Measures]) -> Measures:
    if len(each) == 1:
        return each[0]
    together = {}
    for name, first in each[0].items():
        values = np.array([measures[name].values for measures in each])
        if first.p_value:
            together[name] = Measured(np.median(values, axis=0), f"median of {len(each)} seeds", p_value=True)
            continue
        spread = f"{len(each)} seeds, sd {signed(values[:, 0].std())[1:]}"
        notes = dict.fromkeys(measures[name].note for measures in each if measures[name].note)
        together[name] = Measured(values.mean(axis=0), "; ".join([spread, *notes]))
    return together


def _over_folds(by_fold: dict[object, Measures]) -> Measures:
    means = {}
    for name, first in next(iter(by_fold.values())).items():
        if first.p_value:
            continue
        values = np.array([measures[name].values for measures in by_fold.values()])
        unknown = [str(fold) for fold, undefined in zip(by_fold, np.isnan(values[:, 0]), strict=True) if undefined]
        notes = (
            [f"over {len(values) - len(unknown)} of {len(values)} folds (undefined: {', '.join(unknown)})"]
            if unknown
            else []
        )
        for word in ("collapsed", "inverted"):
            folds = [str(fold) for fold, measures in by_fold.items() if word in measures[name].note]
            notes += [f"{word} on fold {', '.join(folds)}"] if folds else []
        means[name] = Measured(_nanmean(values), "; ".join(notes))
    return means


def _nanmean(values: Float[np.ndarray, "k b"]) -> Float[np.ndarray, " b"]:
    """Mean over folds; a resample in which a fold is undefined uses the others, as the value itself does."""
    known = ~np.isnan(values)
    return np.divide(
        np.where(known, values, 0.0).sum(axis=0),
        known.sum(axis=0),
        out=np.full(values.shape[1], np.nan),
        where=known.any(axis=0),
    )


def _rows(arm: str, fold: str, measures: Measures, outcome: FollowUp) -> Iterator[dict[str, object]]:
    for metric, measured in measures.items():
        interval = percentile_interval(measured.values)
        note = measured.note
        if interval.undefined and np.isfinite(interval.value):
            lost = f"undefined on {interval.undefined} of {len(measured.values) - 1} resamples"
            note = f"{note}; {lost}" if note else lost
        yield dict(
            zip(
                COLUMNS,
                (arm, fold, metric, interval.value, interval.low, interval.high, len(outcome), outcome.events, note),
                strict=True,
            )
        )
