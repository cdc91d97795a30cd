"""mcat-predictions: score the published held-out risks of MCAT and its baselines (Chen et al. 2021) with our metrics.

Nothing is trained. The risks and the per-epoch curves come from the authors' repository (tcga/predictions of the data
set). Fold means and pooled c-indices are in the authors' own summary; the rest was computed from the same files before,
by other code of ours.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from data.sources import not_here
from tasks.experiment.compare import best_epoch_rule, best_of_noise
from tasks.reproduce.rows import Found, Result, Row, close, result
from tasks.survival.concordance import harrell_of_many
from tasks.survival.follow_up import FollowUp
from tasks.survival.metrics import rank

PAPER = "mcat-predictions"
COHORTS = ("blca", "brca", "gbmlgg", "luad", "ucec")
MCAT = "MCATsm_nll_surv_a0.0_5foldcv_gc32_concat"
SNN = "SNNsm_nll_surv_a0.0_reg1e-04_5foldcv_gc32_sig"
ABMIL = "AMILsm_nll_surv_a0.0_5foldcv_gc32_sig"
DEEP_SETS = "DSsm_nll_surv_a0.0_5foldcv_gc32_sig"

FOLD_MEAN = {
    MCAT: (0.6243, 0.5801, 0.8174, 0.6201, 0.6219),
    SNN: (0.5407, 0.4661, 0.5984, 0.5387, 0.4932),
    ABMIL: (0.5362, 0.5644, 0.7870, 0.5593, 0.6251),
}
COLLAPSED = {"blca": 0.5, "brca": 0.5, "ucec": 0.5}
POOLED = (0.6182, 0.5782, 0.8061, 0.6124, 0.6060)
INTERVAL = ((0.568, 0.671), (0.521, 0.642), (0.786, 0.849), (0.568, 0.668), (0.557, 0.683))
# p value and one unit of its last stated digit
LOG_RANK = ((6.6e-4, 1e-5), (0.060, 1e-3), (4e-31, 1e-31), (0.011, 1e-3), (0.0013, 1e-4))
BEST_EPOCH = (0.666, 0.662, 0.842, 0.674, 0.667)
BEST_MINUS_LAST = 0.046
NOISE_OF_30 = (0.613, 0.648, 0.614, 0.617, 0.668)


def run(data_root: Path, small: bool = False) -> Result:
    """Score the published risks.

    Args:
        data_root: the imported data set tcga
        small: leave out the bootstrap and the simulation of noise (about 4 s instead of 10)

    Raises:
        DataError: the data set is not there
    """
    folder = data_root / "predictions"
    predictions = _read(folder / "mcat_published_predictions.csv.gz").rename(
        columns={"experiment": "arm", "survival_months": "time"}
    )
    predictions = predictions.assign(event=predictions["censorship"] == 0)
    epochs = _read(folder / "published_epoch_curves.csv.gz")
    rows = [*_scores(predictions, draws=0 if small else 1000), *_best_epoch(epochs)]
    return result(PAPER, rows if small else [*rows, *_noise(predictions)])


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise not_here(path, "tcga")
    return pd.read_csv(path)


def _scores(predictions: pd.DataFrame, draws: int) -> Iterator[Row]:
    by_cohort = {cohort: own for cohort, own in predictions.groupby("cancer")}
    for at, cohort in enumerate(COHORTS):
        own = by_cohort[cohort]
        ranked = rank(own[own["arm"].isin([*FOLD_MEAN, DEEP_SETS])], draws=draws).set_index(["arm", "fold", "metric"])
        whole = ranked.loc[(MCAT, "pooled", "c_index")]
        events, n = f"{whole['events']} events", int(whole["n"])
        for arm, published in FOLD_MEAN.items():
            mean = ranked.loc[(arm, "mean", "c_index")]
            name = f"{arm.split('sm_')[0]} {cohort}: fold-mean c-index"
            note = f"{events}; published to 4 decimals" + (f"; {mean['note']}" if mean["note"] else "")
            yield close(name, published[at], mean["value"], 1e-4, note, kind="published", **_known(mean))
        if cohort in COLLAPSED:
            mean = ranked.loc[(DEEP_SETS, "mean", "c_index")]
            name, note = f"DS {cohort}: fold-mean c-index", f"{events}; {mean['note']}"
            yield close(name, COLLAPSED[cohort], mean["value"], 1e-4, note, kind="published", n=n, of="patients")
        pooled, p = (ranked.loc[(MCAT, "pooled", metric)] for metric in ("c_index", "logrank_p"))
        name, note = f"MCAT {cohort}: pooled c-index", f"{events}; published to 4 decimals"
        yield close(name, POOLED[at], pooled["value"], 1e-4, note, kind="published", **_known(pooled))
        published_p, unit = LOG_RANK[at]
        note = f"{events}; {p['note']}; tolerance: one unit of the last digit stated"
        yield close(
            f"MCAT {cohort}: log-rank p", published_p, p["value"], unit, note, kind="measured", n=n, of="patients"
        )
        if draws:
            mean = ranked.loc[(MCAT, "mean", "c_index")]
            note = (
                f"{events}; theirs from 200 resamples, ours from {draws}: an end moves by about .01 from seed to seed"
            )
            for end, published_end in zip(("low", "high"), INTERVAL[at], strict=True):
                name = f"MCAT {cohort}: fold-mean c-index, {end} end"
                yield close(name, published_end, mean[end], 0.015, note, kind="measured", n=n, of="patients")


def _known(measured: pd.Series) -> Found:
    """Patients, and the interval where one was drawn."""
    patients = Found(n=int(measured["n"]), of="patients")
    if pd.isna(measured["low"]):
        return patients
    return patients | Found(low=float(measured["low"]), high=float(measured["high"]))


def _best_epoch(epochs: pd.DataFrame) -> Iterator[Row]:
    setting = ["experiment", "cancer"]
    runs = best_epoch_rule(epochs, "val_cindex", by=(*setting, "fold"))
    means = runs.groupby(setting)[["last", "best", "gain"]].mean()
    for cohort, last, best in zip(COHORTS, FOLD_MEAN[MCAT], BEST_EPOCH, strict=True):
        own = means.loc[(MCAT, cohort)]
        note = "5 folds; published to 4 decimals"
        yield close(f"MCAT {cohort}: last epoch of the logs", last, own["last"], 1e-4, note, kind="published")
        note = "5 folds; to 3 decimals; this rule looks at the cases it is scored on"
        yield close(f"MCAT {cohort}: best epoch on the scored fold", best, own["best"], 5e-4, note, kind="measured")
    note = f"{len(means)} settings of model and cohort, {len(runs)} runs; to 3 decimals"
    name, gain = "best minus last epoch, all settings", means["gain"].mean()
    yield close(name, BEST_MINUS_LAST, gain, 5e-4, note, kind="measured")


def _noise(predictions: pd.DataFrame) -> Iterator[Row]:
    for cohort, before in zip(COHORTS, NOISE_OF_30, strict=True):
        own = predictions[(predictions["arm"] == MCAT) & (predictions["cancer"] == cohort)]
        folds = [FollowUp.of(fold["time"], fold["event"]) for _, fold in own.groupby("fold")]
        reached = best_of_noise([_score_of(fold) for fold in folds], [len(fold) for fold in folds], repeats=20)
        events = sum(fold.events for fold in folds)
        note = (
            f"{events} events; best of 30 random risk vectors per fold, 20 repeats ({reached.low:.3f} to "
            f"{reached.high:.3f}) against 10: the two means differ by about .005 by chance"
        )
        name = f"pure noise {cohort}: best of 30 epochs"
        yield close(name, before, reached.value, 0.012, note, kind="measured", n=len(own), of="patients", seeds=[0])


def _score_of(outcome: FollowUp):
    return lambda risks: harrell_of_many(outcome, risks)
