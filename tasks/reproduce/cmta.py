"""cmta: does fusing slides with genes help? Five cohorts; slides semi-real, or your own features (Zhou & Chen 2023).

No patch features of the real slides are public. Unless `--features FOLDER` gives some, patients, genes, outcomes and
the five published folds are real, and every patient's slide is a simulated bag of patches that carries a stated amount
of the outcome: the correlation of what the bag holds with the normal score of the patient's martingale residual. Such
rows are labelled semi-real; they say what fusion makes of slides that know so much, and nothing about real slides.

Every network gets the same optimiser and the same three epochs, fixed on a simulated cohort; nothing is chosen on
scored patients. Late fusion is there twice: one network that averages logits, and the mean risk of slides alone and of
the ridge, which is the stronger. The authors' computation of CMTA costs twice what the exact one does, 11 to 21 minutes
of one core an amount. c-index: mean over the folds of a cohort, then over the cohorts; 95 % percentile
intervals from 1,000 resamples of each cohort's patients, the same for all arms. An arm adds something when it beats
slides alone AND the ridge of genes and age, both intervals above 0; without information it must not. A fused arm is
held against the better of these two. The paper's claim is that CMTA adds something and is above MCAT; what other arms
add is an answer and claims nothing. The ceiling reads the simulated slides perfectly, and genes and age as the ridge
does. The paper's own figures (BLCA .691, recalled) are on real slides, the best of 30 epochs on the scored fold; no row
asks for them without features.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from data.errors import DataError
from data.sources import not_here
from tasks.experiment.compare import Interval, percentile_interval, signed
from tasks.experiment.report import Figure
from tasks.reproduce.cmta_figure import fusion_gain
from tasks.reproduce.cmta_runs import APART, EXACT, LINEAR, PERFECT, PUBLISHED, SLIDES, TOGETHER, Place, real, semi_real
from tasks.reproduce.rows import Found, Result, Row, claim, close, described, result
from tasks.reproduce.workers import HERE, Workers
from tasks.survival.metrics import fold_means
from tasks.survival.report_tables import CEILING

PAPER = "cmta"
STUDIES, SMALL_STUDIES = ("blca", "brca", "gbmlgg", "luad", "ucec"), ("blca",)
AMOUNTS, SMALL_AMOUNTS = (0.0, 0.3, 0.6), (0.0, 0.6)
SMALL_PUBLISHED_AT = 0.6
"""The authors' computation costs twice what `exact` does; the small form runs it at one amount."""
SMALL_FOLDS = (0, 1)
SEEDS = [1]
MCAT = "MCAT"
CLAIMED = (EXACT, PUBLISHED)
"""Arms of which the paper says that they add something; without information no arm may."""
ARMS = (*CLAIMED, MCAT, "SurvPath", TOGETHER, APART, "offset model")
WITHOUT_SLIDES = ("genes alone (SNN)", "ridge genes", "age")
RECALLED = {"blca": 0.691, "brca": 0.668, "gbmlgg": 0.853, "luad": 0.686, "ucec": 0.698}
REAL = "real slides"

Draws = Float[np.ndarray, " b"]


class Point(NamedTuple):
    """All arms on slides of one kind.

    Attributes:
        name: of the slides: `semi-real, information 0.3`
        information: of them; None = real ones
        patients: of all cohorts together
        means: arm -> its c-index averaged over the cohorts, value first, then draws
        each: arm -> cohort -> c-index
    """

    name: str
    information: float | None
    patients: int
    means: dict[str, Draws]
    each: dict[str, dict[str, float]]

    @property
    def better(self) -> str:
        """The better single modality."""
        return max((SLIDES, LINEAR), key=lambda arm: float(self.means[arm][0]))

    def over(self, arm: str, other: str) -> Interval:
        """How much an arm is above another."""
        return percentile_interval(self.means[arm] - self.means[other])


def run(
    data_root: Path,
    small: bool = False,
    features: Path | None = None,
    workers: Workers = HERE,
) -> Result:
    """Train what is not trained yet, in `runs/survival/fusion_gain_*`, and compare.

    Args:
        data_root: the imported data set tcga
        small: one cohort, two of its folds and two of the amounts, in a folder that goes
        features: folder with features of the real slides, in a subfolder per cohort: blca, brca, gbmlgg, luad, ucec
        workers: who trains; an arm on a fold is a part

    Raises:
        DataError: the data set is not there, or `features` has no cohort's folder
        RunError: a training failed
    """
    if not (data_root / "mutsig").is_dir():
        raise not_here(data_root / "mutsig", "tcga")
    with tempfile.TemporaryDirectory(dir=None if workers.engine is None else ".") as folder:
        place = Place(data_root, workers=workers)
        if small:
            place = place._replace(runs=Path(folder), folds=SMALL_FOLDS)
        studies = SMALL_STUDIES if small else STUDIES
        if features is not None:
            points = [_on_real_slides(place, studies, features)]
        else:
            points = [
                _at(place, studies, amount, published=not small or amount == SMALL_PUBLISHED_AT)
                for amount in (SMALL_AMOUNTS if small else AMOUNTS)
            ]
    rows = [row for point in points for row in rows_of(point)]
    if features is not None:
        rows += recalled_rows(points[0])
    rows += [row for arm in WITHOUT_SLIDES if (row := _without_slides(points[0], arm)) is not None]
    return result(PAPER, rows, statements(points))


def _at(place: Place, studies: Sequence[str], amount: float, published: bool) -> Point:
    tables = {study: semi_real(place, study, amount, published) for study in studies}
    return point_of(f"semi-real, information {amount:g}", amount, tables)


def _on_real_slides(place: Place, studies: Sequence[str], features: Path) -> Point:
    given = {study: features / study for study in studies if (features / study).is_dir()}
    if not given:
        raise DataError(f"{features}: no folder of features here; name one after its cohort: {', '.join(studies)}")
    return point_of(REAL, None, {study: real(place, study, folder) for study, folder in given.items()})


def point_of(name: str, information: float | None, tables: dict[str, pd.DataFrame]) -> Point:
    """Measure every arm that all cohorts have.

    Args:
        name: of the slides
        information: of them
        tables: cohort -> predictions, as `cmta_runs.semi_real` gives them
    """
    with threadpool_limits(1):
        measured = {
            study: fold_means(table, seed=number) for number, (study, table) in enumerate(sorted(tables.items()))
        }
    everywhere = [arm for arm in next(iter(measured.values())) if all(arm in own for own in measured.values())]
    means = {arm: np.mean([own[arm] for own in measured.values()], axis=0) for arm in everywhere}
    each = {arm: {study: float(own[arm][0]) for study, own in measured.items()} for arm in everywhere}
    patients = sum(table["case_id"].nunique() for table in tables.values())
    return Point(name, information, patients, means, each)


def rows_of(point: Point) -> Iterator[Row]:
    """Fused arms against the better single modality, CMTA against MCAT, slides alone against chance, the ceiling."""
    for arm in ARMS:
        if arm in point.means:
            yield _fused(point, arm)
    for arm in CLAIMED:
        if arm in point.means and MCAT in point.means and point.information != 0:
            yield _above_mcat(point, arm)
    yield _slides_alone(point)
    if CEILING in point.means:
        yield _ceiling(point)


def _fused(point: Point, arm: str) -> Row:
    own, bar = (float(point.means[name][0]) for name in (arm, point.better))
    reached = [f"{_by_cohort(point, arm)}; {_gains(point, arm)}"]
    if CEILING in point.means:
        top = float(point.means[CEILING][0])
        reached.append(f"ceiling {top:.3f}")
        if top > bar and own > bar:
            reached.append(f"{(own - bar) / (top - bar):.0%} of what the ceiling adds")
    control = point.information == 0
    if control:
        reached.append("the slides know nothing: holds when nothing is added")
    name, found = f"{point.name}: {arm}", _found(point, arm)
    if arm not in CLAIMED and not control:
        return described(name, own, f"{'; '.join(reached)}; the better modality {bar:.3f}", **found)
    return claim(name, bar, own, 0.0, "; ".join(reached), adds(point, arm) != control, kind="rival", **found)


def _above_mcat(point: Point, arm: str) -> Row:
    own, bar, gain = float(point.means[arm][0]), float(point.means[MCAT][0]), point.over(arm, MCAT)
    note = f"holds when the interval of the difference is above 0: {_span(gain)}"
    return claim(
        f"{point.name}: {arm}, against MCAT",
        bar,
        own,
        0.0,
        note,
        gain.low > 0,
        kind="rival",
        n=point.patients,
        of="patients",
        seeds=SEEDS,
    )


def adds(point: Point, arm: str) -> bool:
    """Whether an arm is above either modality alone, both intervals above 0."""
    return all(point.over(arm, other).low > 0 for other in (SLIDES, LINEAR))


def _slides_alone(point: Point) -> Row:
    own = percentile_interval(point.means[SLIDES])
    note = _by_cohort(point, SLIDES)
    if PERFECT in point.means:
        note += f"; read perfectly {float(point.means[PERFECT][0]):.3f}"
    if point.information == 0:
        note, ok = f"{note}; the slides know nothing: holds when chance lies inside", own.low <= 0.5 <= own.high
    else:
        ok = own.low > 0.5
    return claim(f"{point.name}: {SLIDES}", 0.5, own.value, 0.0, note, ok, kind="bar", **_found(point, SLIDES))


def _ceiling(point: Point) -> Row:
    """Nothing may be above it beyond what chance allows."""
    best = max(ARMS, key=lambda arm: float(point.means[arm][0]) if arm in point.means else -1.0)
    gap, bar = point.over(best, CEILING), float(point.means[best][0])
    note = f"{_by_cohort(point, CEILING)}; the best arm is {best}, minus the ceiling {_span(gap)}"
    top = float(point.means[CEILING][0])
    name, found = f"{point.name}: ceiling", _found(point, CEILING)
    return claim(name, bar, top, 0.0, note, gap.low <= 0, kind="rival", **found)


def _without_slides(point: Point, arm: str) -> Row | None:
    """What has no slides and so no amount; only reported."""
    if arm not in point.means:
        return None
    return described(f"no slides: {arm}", float(point.means[arm][0]), _by_cohort(point, arm), **_ends(point, arm))


def recalled_rows(point: Point) -> Iterator[Row]:
    """CMTA as published on the user's features, beside what the paper is remembered to say."""
    for study, value in point.each.get(PUBLISHED, {}).items():
        note = (
            "unconfirmed, the best of 30 epochs on the scored fold; ours never looks there; "
            "tolerance: what that rule adds on average (.046), and the noise of one fold"
        )
        yield close(f"{study}: {PUBLISHED}", RECALLED[study], value, 0.1, note, kind="recalled", seeds=SEEDS)


def statements(points: Sequence[Point]) -> list[str]:
    """One sentence per fused arm: whether it adds something, at each amount."""
    sentences = []
    for arm in ARMS:
        said = [_said(point, arm) for point in points if arm in point.means]
        if said:
            cohorts = len(points[0].each[SLIDES])
            over = f"mean of {cohorts} cohorts" if cohorts > 1 else f"{next(iter(points[0].each[SLIDES]))} alone"
            kind = REAL if points[0].information is None else "semi-real slides"
            sentences.append(f"{arm} ({kind}, {over}): {'; '.join(said)}.")
    return sentences


def _said(point: Point, arm: str) -> str:
    """The verdict against the single modality that is harder to beat."""
    gains = {other: point.over(arm, other) for other in (SLIDES, LINEAR)}
    hardest = min(gains, key=lambda other: gains[other].low)
    gain = gains[hardest]
    if gain.low > 0:
        verdict = "fusion adds something, it is better than either modality; above"
    elif gain.high < 0:
        verdict = "fusion adds nothing, it is worse than"
    else:
        verdict = "no addition is shown, it is not distinguishable from"
    at = "" if point.information is None else f"at information {point.information:g} "
    return f"{at}{verdict} {hardest} ({_span(gain)})"


def _gains(point: Point, arm: str) -> str:
    return ", ".join(f"minus {other} {_span(point.over(arm, other))}" for other in (SLIDES, LINEAR))


def _span(gain: Interval) -> str:
    return f"{signed(gain.value)}, {signed(gain.low)} to {signed(gain.high)}"


def _by_cohort(point: Point, arm: str) -> str:
    return ", ".join(f"{study} {value:.3f}" for study, value in point.each[arm].items())


def _ends(point: Point, arm: str) -> Found:
    """The interval over patients."""
    own = percentile_interval(point.means[arm])
    return Found(low=own.low, high=own.high, n=point.patients, of="patients", seeds=SEEDS)


def _found(point: Point, arm: str) -> Found:
    """The interval, and where the arm's curve passes when the slides' information is known."""
    on_curve = Found() if point.information is None else Found(line=arm, at=point.information)
    return _ends(point, arm) | on_curve


def figures(rows: Sequence[Row]) -> list[Figure]:
    """c-index of every arm over what the slides know."""
    drawn = fusion_gain(rows)
    return [] if drawn is None else [drawn]
