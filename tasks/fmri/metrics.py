"""Numbers from scores: accuracy, two-way identification, retrieval both ways, confusion, and intervals over units.

A tie is shared out: where the right candidate ties with others, a hit counts as the chance of drawing it among them, so
a decoder that scores everything alike gets exactly chance and an order of columns never helps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from data.errors import DataError
from tasks.experiment.compare import Comparison, Interval, paired_difference, percentile_interval, resample
from tasks.fmri.decoder import Scores

MEASURES = ("accuracy", "two_way", "top5")
UNITS = ("run", "stimulus", "label", "subject", "sample")
COLUMNS = ("metric", "value", "low", "high", "chance", "n", "units", "note")


def places(scores: Scores, truth: Sequence[str] | pd.Series) -> Int[np.ndarray, " n"]:
    """The column of the right candidate of each sample.

    Args:
        scores: of n samples
        truth: name of the right candidate, in the order of the samples or, for a series, by sample id

    Raises:
        DataError: a truth is not among the candidates, or there is not one per sample
    """
    names = list(truth.loc[scores.ids]) if isinstance(truth, pd.Series) else list(truth)
    if len(names) != len(scores.ids):
        raise DataError(f"{len(names)} truths for {len(scores.ids)} scored samples: give one each")
    column = {name: place for place, name in enumerate(scores.candidates)}
    for sample, name in zip(scores.ids, names, strict=True):
        if name not in column:
            raise DataError(f"sample {sample}: its truth '{name}' is not among the {len(column)} candidates scored")
    return np.array([column[name] for name in names], dtype=int)


def top_k(matrix: Float[np.ndarray, "n k"], truth: Int[np.ndarray, " n"], k: int = 1) -> Float[np.ndarray, " n"]:
    """Chance that the right candidate is among the best k when ties are broken at random; k = 1 is accuracy."""
    better, tied = _above(matrix, truth)
    return np.clip((k - better) / tied, 0.0, 1.0)


def two_way(matrix: Float[np.ndarray, "n k"], truth: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Share of the other candidates that the right one beats; a tie counts half, chance is 1/2.

    Raises:
        DataError: there is only one candidate
    """
    if matrix.shape[1] < 2:
        raise DataError("two-way identification needs at least two candidates, found one; give the whole gallery")
    better, tied = _above(matrix, truth)
    return 1 - (better + (tied - 1) / 2) / (matrix.shape[1] - 1)


def _above(matrix: Float[np.ndarray, "n k"], truth: Int[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    """Per sample: candidates above the right one, and those level with it (itself included)."""
    own = matrix[np.arange(len(matrix)), truth][:, None]
    return (matrix > own).sum(axis=1), (matrix == own).sum(axis=1)


def judge(scores: Scores, table: pd.DataFrame, truth: str = "label") -> pd.DataFrame:
    """What each sample got: one row per scored sample.

    Args:
        scores: to be judged
        table: of the samples, indexed by id, with subject, run, label and stimulus (`Brains.table`)
        truth: column that names the right candidate

    Returns:
        Indexed by sample id: subject, run, label, stimulus, truth, guess, and accuracy, two_way, top5 in [0, 1].
    """
    own = table.loc[scores.ids]
    right = places(scores, own[truth])
    judged = own[["subject", "run", "label", "stimulus"]].assign(
        truth=own[truth], guess=[scores.candidates[k] for k in scores.matrix.argmax(axis=1)]
    )
    matrix = scores.matrix
    return judged.assign(accuracy=top_k(matrix, right, 1), two_way=two_way(matrix, right), top5=top_k(matrix, right, 5))


def summary(
    judged: pd.DataFrame, candidates: int, *, unit: str = "run", draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Means over samples with 95 % percentile intervals over resampled units.

    Args:
        judged: of `judge`
        candidates: size of the gallery, for the level of chance
        unit: what is drawn again: `run` (of a subject; blocks of a run share noise), `stimulus`, `label`, `subject` or
            `sample`
        draws: resamples
        seed: of the resamples

    Returns:
        Rows of metric, value, low, high, chance, n (samples), units, note (what was resampled).
    """
    of, counts = _drawn(judged, unit, draws, seed)
    chance = {"accuracy": 1 / candidates, "two_way": 0.5, "top5": min(1.0, 5 / candidates)}
    rows = []
    for metric in MEASURES:
        interval = percentile_interval(_means(judged[metric].to_numpy(), of, counts))
        note = f"interval over {counts.shape[1]} units: {unit}"
        rows.append(
            (metric, interval.value, interval.low, interval.high, chance[metric], len(judged), counts.shape[1], note)
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def interval_over(
    judged: pd.DataFrame, values: Float[np.ndarray, " n"], unit: str = "run", draws: int = 1000, seed: int = 0
) -> Interval:
    """The mean of one number per sample, with its 95 % interval over resampled units.

    Args:
        judged: of `judge`; says which unit each sample belongs to
        values: in the order of its rows
        unit, draws, seed: see `summary`
    """
    return percentile_interval(_means(values, *_drawn(judged, unit, draws, seed)))


def compare_judged(
    a: str,
    b: str,
    judged_a: pd.DataFrame,
    judged_b: pd.DataFrame,
    *,
    metric: str = "accuracy",
    unit: str = "run",
    draws: int = 1000,
    seed: int = 0,
) -> Comparison:
    """The difference between two arms on the samples both have scored, the same units resampled for both.

    Raises:
        DataError: the arms share no sample
    """
    shared = judged_a.index.intersection(judged_b.index)
    if not len(shared):
        raise DataError(f"{a} and {b} share no scored sample; evaluate both on the same folds")
    of, counts = _drawn(judged_a.loc[shared], unit, draws, seed)
    values = [_means(judged.loc[shared, metric].to_numpy(), of, counts) for judged in (judged_a, judged_b)]
    return paired_difference(a, b, *values, metric=metric, n=len(shared))


def by_group(judged: pd.DataFrame, group: str) -> pd.DataFrame:
    """Means per class (`label`), `subject`, `run` or `stimulus`: columns of `MEASURES` and n."""
    groups = judged.groupby(group, sort=True)
    return groups[list(MEASURES)].mean().assign(n=groups.size())


def confusion(judged: pd.DataFrame, candidates: Sequence[str]) -> pd.DataFrame:
    """Counts: rows what was true, columns what was guessed, both in the order of `candidates`."""
    counts = pd.crosstab(judged["truth"], judged["guess"])
    return counts.reindex(index=list(candidates), columns=list(candidates), fill_value=0).astype(int)


def retrieved(scores: Scores, table: pd.DataFrame, truth: str = "stimulus", k: Sequence[int] = (1, 5)) -> pd.DataFrame:
    """Find the candidate from the brain (forward) and the brain from the candidate (backward), sample by sample.

    Only the candidates that the subject was tested on are the gallery, and both directions read the same square matrix:
    backward of S is forward of S transposed.

    Args:
        scores: of samples of any subjects
        table: of the samples, indexed by id
        truth: column that names the right candidate
        k: how many of the best count

    Returns:
        Rows of sample, subject, direction, k, value (1 = among the best k; a tie counts as its chance), chance, n (size
        of the gallery).

    Raises:
        DataError: a subject has more than one sample of a candidate; average repeats first
    """
    own, parts = table.loc[scores.ids], []
    for subject, rows in own.groupby("subject", sort=False):
        if rows[truth].duplicated().any():
            twice = rows.loc[rows[truth].duplicated(), truth].iloc[0]
            raise DataError(
                f"subject {subject}: {truth} '{twice}' was tested more than once, so retrieval has no square matrix; "
                "average repeats within the test side first"
            )
        square, n = scores.of(list(rows.index)).among(list(rows[truth])).matrix, len(rows)
        for direction, matrix in (("forward", square), ("backward", square.T)):
            for best in k:
                hits = {"sample": rows.index, "value": top_k(matrix, np.arange(n), best)}
                same = {"subject": subject, "direction": direction, "k": best, "chance": min(1.0, best / n), "n": n}
                parts.append(pd.DataFrame(hits).assign(**same))
    return pd.concat(parts, ignore_index=True)


def retrieval(scores: Scores, table: pd.DataFrame, truth: str = "stimulus", k: Sequence[int] = (1, 5)) -> pd.DataFrame:
    """Means of `retrieved` per subject: rows of subject, direction, k, value, chance, n (size of the gallery)."""
    means = retrieved(scores, table, truth, k).groupby(["subject", "direction", "k"], sort=False)
    return means[["value", "chance", "n"]].first().assign(value=means["value"].mean()).reset_index()


def forward(matrix: Float[np.ndarray, "n n"], k: int = 1) -> float:
    """Share of samples whose own candidate, the one on the diagonal, is among the best k of its row."""
    return float(top_k(matrix, np.arange(len(matrix)), k).mean())


def backward(matrix: Float[np.ndarray, "n n"], k: int = 1) -> float:
    """Share of candidates whose own sample is among the best k of its column."""
    return forward(matrix.T, k)


def _drawn(judged: pd.DataFrame, unit: str, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The unit of each sample, and how often each unit was drawn in each resample."""
    if unit not in UNITS:
        raise ValueError(f"unit={unit!r}: expected one of {', '.join(UNITS)}")
    if unit == "sample":
        names = pd.Series(judged.index)
    elif unit == "run":
        names = judged["subject"].astype(str) + "/" + judged["run"].astype(str)
    else:
        names = judged[unit]
    of, known = pd.factorize(names)
    return of, resample(len(known), draws, seed)


def _means(values: Float[np.ndarray, " n"], of: Int[np.ndarray, " n"], counts: Float[np.ndarray, "b u"]) -> np.ndarray:
    units = counts.shape[1]
    sums, sizes = np.bincount(of, values, units), np.bincount(of, minlength=units)
    return (counts @ sums) / (counts @ sizes)
