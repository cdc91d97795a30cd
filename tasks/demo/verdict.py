"""One sentence on a part of the demo, made of the paired differences of its run and their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from tasks.experiment.compare import Comparison, Interval
from tasks.experiment.report.numbers import chance_share, decimal, interval


@dataclass(frozen=True)
class Verdict:
    """The model under test against every other arm, in one measure.

    Attributes:
        measure: with the cases it is taken on
        against: paired differences, the model minus each other arm
        chance: of the measure; None where there is none
        ceiling: what nobody is expected to exceed; None where it is not known
        higher_is_better: of the measure
    """

    measure: str
    against: Sequence[Comparison]
    chance: float | None = None
    ceiling: float | None = None
    higher_is_better: bool = True

    @property
    def strongest(self) -> Comparison:
        """The comparison with the best other arm."""
        sign = 1 if self.higher_is_better else -1
        return max(self.against, key=lambda one: sign * one.b_value)

    @property
    def beats_all(self) -> bool:
        """Whether every interval lies on the better side of 0."""
        return all(self._side(one) > 0 for one in self.against)

    @property
    def sentence(self) -> str:
        """What the intervals allow to be said, and the numbers against the strongest other arm."""
        first, of = self.strongest, len(self.against)
        better, worse, open_ = ([one.b for one in self.against if self._side(one) == side] for side in (1, -1, 0))
        if self.beats_all:
            said = [f"better than {'the other arm' if of == 1 else f'each of the {of} other arms'}"]
        else:
            said = [f"better than {len(better)} of {of} other arms"] if better else []
            said += [f"not distinguishable from {_listed(open_)}"] if open_ else []
            said += [f"worse than {_listed(worse)}"] if worse else []
        sure = interval(first.difference.low, first.difference.high, signed=True)
        words = (
            f"{first.a} is {_listed(said)} in {self.measure}: {decimal(first.a_value)} against "
            f"{decimal(first.b_value)} of the strongest, {first.b} (difference "
            f"{decimal(first.difference.value, signed=True)}, 95 % interval {sure or 'not known'})"
        )
        if self.chance is not None:
            words += f"; chance is {chance_share(self.chance)}"
        if self.chance is not None and self.ceiling is not None:
            share = (first.a_value - self.chance) / (self.ceiling - self.chance)
            words += f", the ceiling {decimal(self.ceiling)}, and {share:.0%} of the way between them is reached"
        return f"{words}."

    @property
    def row(self) -> dict[str, str]:
        """For a table of parts."""
        first = self.strongest
        return {
            "measure": self.measure,
            "model": f"{first.a}: {decimal(first.a_value)}",
            "strongest other": f"{first.b}: {decimal(first.b_value)}",
            "difference": decimal(first.difference.value, signed=True),
            "95 % interval": interval(first.difference.low, first.difference.high, signed=True) or "–",
            "chance": "–" if self.chance is None else chance_share(self.chance),
        }

    def _side(self, one: Comparison) -> int:
        """1 = the model is better, -1 = worse, 0 = the interval holds 0 or is not known."""
        if not one.difference.excludes_zero:
            return 0
        return 1 if (one.difference.value > 0) == self.higher_is_better else -1


def comparisons(rows: pd.DataFrame, left_out: Iterable[str] = ()) -> list[Comparison]:
    """Rows of a run's comparisons.csv, without those against some arms."""
    out = set(left_out)
    return [
        Comparison(
            row.a, row.b, "", row.a_value, row.b_value, Interval(row.difference, row.low, row.high), int(row.n),
            row.sentence,
        )
        for row in rows.itertuples()
        if row.b not in out
    ]  # fmt: skip


def _listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
