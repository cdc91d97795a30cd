"""Compare two arms on the same cases: intervals, paired differences, and what pure noise would have reached.

A statistic is asked for its value under a matrix of counts `[b, n]`: how often each of n cases was drawn in each of b
resamples. The first row is always the sample itself (every case once), so one call gives the value and its bootstrap
draws, and two statistics asked with the same counts are compared on the same resamples (Efron and Tibshirani 1993,
chapter 13).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

Counts = Float[np.ndarray, "b n"]
Draws = Float[np.ndarray, " b"]


@dataclass(frozen=True)
class Interval:
    """A value with its percentile interval.

    Args:
        value: the statistic of the sample itself
        low: lower end, nan when fewer than half of the resamples were defined
        high: upper end
        undefined: resamples on which the statistic does not exist
    """

    value: float
    low: float
    high: float
    undefined: int = 0

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """The difference between two arms on the same cases, `a` minus `b`."""

    a: str
    b: str
    metric: str
    a_value: float
    b_value: float
    difference: Interval
    n: int
    sentence: str


def resample(n: int, draws: int = 1000, seed: int = 0) -> Counts:
    """Count how often each of n cases is drawn: row 0 is the sample itself, then `draws` resamples with replacement.

    Raises:
        ValueError: without a case, or with a negative number of draws
    """
    if n < 1 or draws < 0:
        raise ValueError(f"cannot resample n={n} cases {draws} times: give at least one case and draws >= 0")
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)
    return np.vstack([np.ones(n), drawn.astype(np.float64)])


def percentile_interval(values: Draws, level: float = 0.95) -> Interval:
    """Read the value (first entry) and the percentile interval (the others); a nan is an undefined resample."""
    value, drawn = float(values[0]), values[1:]
    known = drawn[~np.isnan(drawn)]
    if np.isnan(value) or len(known) <= len(drawn) / 2:
        return Interval(value, np.nan, np.nan, len(drawn) - len(known))
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), len(drawn) - len(known))


def paired_difference(
    a: str,
    b: str,
    a_values: Float[np.ndarray, " i"],
    b_values: Float[np.ndarray, " j"],
    *,
    metric: str,
    n: int,
    higher_is_better: bool = True,
    level: float = 0.95,
) -> Comparison:
    """Say in plain words whether arm a differs from arm b.

    Args:
        a: name of the first arm
        b: name of the second arm
        a_values: the statistic of arm a under the counts of `resample` (first entry: the sample itself)
        b_values: the same for arm b, under the SAME counts
        metric: name of the statistic, for the sentence
        n: cases compared
        higher_is_better: which sign is good
        level: coverage of the interval

    Raises:
        ValueError: if the two were not resampled equally often
    """
    if a_values.shape != b_values.shape:
        raise ValueError(
            f"{a} has {len(a_values)} draws, {b} has {len(b_values)}: ask both under the same resample(n, draws, seed)"
        )
    difference = percentile_interval(a_values - b_values, level)
    sentence = _sentence(a, b, difference, level, higher_is_better)
    return Comparison(a, b, metric, float(a_values[0]), float(b_values[0]), difference, n, sentence)


def signed(value: float, digits: int = 3) -> str:
    """Write a difference with its sign and without a leading zero: +.004, -.021."""
    text = f"{value:+.{digits}f}"
    return text[0] + text[2:] if text[1] == "0" else text


def _sentence(a: str, b: str, difference: Interval, level: float, higher_is_better: bool) -> str:
    if np.isnan(difference.value):
        return f"{a} and {b} cannot be compared on this cohort: the metric is undefined for at least one of them"
    if np.isnan(difference.low):
        return f"{a} minus {b} is {signed(difference.value)}, without an interval: too few resamples are defined"
    detail = (
        f"(difference {signed(difference.value)}, {level * 100:.0f} % interval "
        f"{signed(difference.low)} to {signed(difference.high)})"
    )
    if not difference.excludes_zero:
        return f"{a} is not distinguishable from {b} on this cohort {detail}"
    better = (difference.value > 0) == higher_is_better
    return f"{a} is {'better' if better else 'worse'} than {b} on this cohort {detail}"


def best_epoch_rule(epochs: pd.DataFrame, score: str, by: Sequence[str] = ("fold",)) -> pd.DataFrame:
    """Set the last epoch beside the best epoch on the scored fold, one row per fold.

    Args:
        epochs: one row per epoch, with columns `epoch`, `score` and those of `by`
        score: the column with the score on the scored fold
        by: columns that name one run

    Returns:
        Columns of `by`, then last_epoch, last, best_epoch, best, gain. Choosing `best` looks at the cases it is scored
        on.

    Raises:
        ValueError: if a column is missing
    """
    missing = [name for name in (*by, "epoch", score) if name not in epochs.columns]
    if missing:
        raise ValueError(
            f"epoch table has no column {', '.join(missing)}; it has {', '.join(map(str, epochs.columns))}"
        )
    known = epochs.dropna(subset=[score]).sort_values([*by, "epoch"], kind="stable")
    runs = known.groupby(list(by), sort=True)
    last = runs.tail(1).set_index(list(by))
    best = known.loc[runs[score].idxmax()].set_index(list(by))
    table = pd.DataFrame(
        {"last_epoch": last["epoch"], "last": last[score], "best_epoch": best["epoch"], "best": best[score]}
    )
    return table.assign(gain=table["best"] - table["last"]).reset_index()


def best_of_noise(
    scores: Sequence[Callable[[np.ndarray], np.ndarray]],
    sizes: Sequence[int],
    *,
    epochs: int | Sequence[int] = 30,
    repeats: int = 10,
    seed: int = 0,
) -> Interval:
    """Score what pure noise reaches when the best of `epochs` is kept on the scored fold.

    Every epoch draws independent random numbers for the cases of a fold, the best epoch of each fold is kept and the
    folds are averaged. Real epochs resemble one another, so this bounds the optimism of the rule from above.

    Args:
        scores: per fold, the score of random predictions `[epochs, n]` -> `[epochs]`
        sizes: per fold, the number of cases n
        epochs: epochs to choose from, the same for every fold or one number per fold
        repeats: times the experiment is repeated
        seed: of the random numbers

    Returns:
        The mean over the repeats, with the smallest and the largest of them as its ends.
    """
    if len(scores) != len(sizes) or not scores:
        raise ValueError(f"{len(scores)} scores for {len(sizes)} folds: give one score and one size per fold")
    rng = np.random.default_rng(seed)
    counts = [epochs] * len(sizes) if isinstance(epochs, int) else epochs
    folds = list(zip(scores, counts, sizes, strict=True))
    reached = [
        np.mean([np.nanmax(score(rng.standard_normal(shape))) for score, *shape in folds]) for _ in range(repeats)
    ]
    return Interval(float(np.mean(reached)), float(np.min(reached)), float(np.max(reached)))
