"""sttm: does a trunk that 14 people trained, with a new adapter, beat an adapter alone? Semi-real, and labelled so.

15 people's IT geometries of 92 images (Net2Brain's RDMs) in simulated voxel spaces with simulated noise; 22 images of
the new person are held out, n others are labelled. Each person is new in turn, in several draws of voxels and images;
a person's draws are averaged, and intervals are over the 15 people. Penalties and intercepts are chosen inside the 14
others. The form of the trunk was found on these IT geometries, so the comparison is repeated on the same people's early
visual cortex, which had no say in it. STTM's claim (Liu et al., AAAI 2025): with few samples, trunk + new adapter beat
a model of the subject alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from data.brain.brain import Brains
from data.brain.split import Split
from data.brain.splits import FewShot
from data.simulate.semireal import SemiRealBrains
from data.sources import not_here
from tasks.experiment.compare import paired_difference, percentile_interval, resample
from tasks.experiment.report import Figure
from tasks.experiment.report.curves import Line, curves
from tasks.experiment.report.palette import BLUE, INK, QUIET, VERMILLION
from tasks.fmri.alignment import SharedSpace
from tasks.fmri.decoder import Decoder
from tasks.fmri.metrics import backward, forward
from tasks.fmri.models.trunks import ContrastiveTrunk, GaussianTrunk, NoTrunk
from tasks.fmri.targets import GivenTargets, GroupGeometry
from tasks.fmri.transfer import FewShotDecoder
from tasks.reproduce.rows import Found, Result, Row, claim, close, described, result
from tasks.reproduce.workers import HERE, Workers

PAPER = "sttm"
RDMS, LABELS = "rdms_92images/fmri_IT_RDMs.npz", "rdms_92images/labels.tsv"
OTHER_RDMS = "rdms_92images/fmri_EVC_RDMs.npz"
HELD_OUT, CHANCE = 22, 1 / 22
SHEET = {5: (0.111, 0.431), 10: (0.124, 0.534), 20: (0.193, 0.659), 40: (0.251, 0.729), 70: (0.296, 0.764)}
"""Top-1 and top-5 of the ridge adapter as measured for the sheet, from 3 draws."""
BAR = (5, 10, 20)
RESAMPLES = 2000
DRAWS, SLOW_DRAWS = 4, 1
SHEET_DRAWS = 24
"""Of the adapter alone, which is quick: rows beside what was measured before ask about the construction, not luck."""
TOLERANCE = {"top-1": 0.03, "top-5": 0.05}

ADAPTER, CHOSEN, TRUNK = "ridge adapter", "chosen ridge adapter", "trunk + adapter"
ARMS: dict[str, Callable[[], Decoder]] = {
    ADAPTER: lambda: FewShotDecoder(GivenTargets(), NoTrunk(), alphas=[0.01], centred=True),
    CHOSEN: lambda: FewShotDecoder(GroupGeometry(), NoTrunk()),
    TRUNK: lambda: FewShotDecoder(GroupGeometry(), GaussianTrunk()),
    "nonlinear trunk": lambda: FewShotDecoder(GroupGeometry(), ContrastiveTrunk()),
    "linear contrastive trunk": lambda: FewShotDecoder(GroupGeometry(), ContrastiveTrunk(blocks=0)),
    "shared response model": lambda: SharedSpace("srm"),
}
SLOW = ("nonlinear trunk", "linear contrastive trunk", "shared response model")
SHUFFLED = "trunk + adapter, labels shuffled"
Scored = dict[tuple[str, int], Float[np.ndarray, "three n"]]
"""Arm and n -> forward top-1, forward top-5 and backward top-1 of each person, averaged over draws."""


class Asked(NamedTuple):
    """A group of arms: at which numbers of images, in how many draws, of whose geometries."""

    arms: Sequence[str]
    counts: Sequence[int]
    draws: int
    rdms: str = RDMS


def run(data_root: Path, small: bool = False, workers: Workers = HERE) -> Result:
    """Fit, score and compare.

    Args:
        data_root: the imported data set fmri
        small: two draws, n of 20, without the slow rivals and the figures of before
        workers: who fits; a draw of voxels and images is a part

    Raises:
        DataError: the data set is not there
    """
    if not (data_root / RDMS).is_file():
        raise not_here(data_root / RDMS, "fmri")
    draws, counts = (2, (20,)) if small else (DRAWS, tuple(SHEET))
    quick = [arm for arm in (*ARMS, SHUFFLED) if arm not in SLOW]
    asked = {"quick arms": Asked(quick, counts, draws)}
    if not small:
        asked["adapter alone"] = Asked([ADAPTER], counts, SHEET_DRAWS)
        asked["slow arms"] = Asked(list(SLOW), BAR, SLOW_DRAWS)
        asked["EVC"] = Asked([ADAPTER, CHOSEN, TRUNK], BAR, draws, OTHER_RDMS)
    found = _all(data_root, asked, workers)
    scored = found["quick arms"] | ({} if small else found["slow arms"])
    rows = [] if small else _as_before(found["adapter alone"], counts)
    rows += [_beats(scored, TRUNK, other, n, draws) for n in counts if n in BAR for other in (ADAPTER, CHOSEN)]
    if not small:
        rows += [_beats(found["EVC"], TRUNK, other, n, draws, "EVC: ") for n in BAR for other in (ADAPTER, CHOSEN)]
    pointed = (SHUFFLED,) if small else (SHUFFLED, ADAPTER)
    rows += [_point(scored, arm, n, SLOW_DRAWS if arm in SLOW else draws) for arm, n in scored if arm not in pointed]
    rows += [_at_chance(scored, n, draws) for n in counts if n in BAR]
    return result(PAPER, rows + ([] if small else [_crossing(scored, n, counts) for n in BAR]))


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Top-1 of each arm over the number of labelled images, and where the adapter alone catches up with the trunk."""
    points: dict[str, dict[float, tuple[float, float, float]]] = {}
    for row in rows:
        if "line" in row:
            points.setdefault(row["line"], {})[row["at"]] = (row["ours"], row["low"], row["high"])
    if not points:
        return []
    colours = dict(zip(points, (QUIET, VERMILLION, BLUE), strict=False))
    lines = [
        Line(arm, of, colours[arm], dash, 0.12, 2.0) if arm in colours else Line(arm, of, INK, dash, 0.0, 1.0)
        for (arm, of), dash in zip(points.items(), ("-", "-", "-", "--", ":", "-.", (0, (1, 3))), strict=False)
    ]
    return [
        curves(
            "few-shot",
            lines,
            title="What a trunk of other people is worth",
            x="Labelled samples of the new person",
            y="Top-1 of held-out samples",
            caption="A horizontal line from one curve to the next says how many more labelled samples the lower arm "
            "needs. Bands: 95 % intervals over people.",
            chance=CHANCE,
            counts=True,
        )
    ]


def _all(data_root: Path, asked: dict[str, Asked], workers: Workers) -> dict[str, Scored]:
    """Every arm at every n of every group, each draw a part."""
    parts = {
        f"{group}, draw {draw}": (data_root, list(own.arms), list(own.counts), draw, own.rdms)
        for group, own in asked.items() for draw in range(own.draws)
    }  # fmt: skip
    ended = dict(zip(parts, workers.each(_draw, parts), strict=True))
    found = {}
    for group, own in asked.items():
        means = np.mean([ended[f"{group}, draw {draw}"] for draw in range(own.draws)], axis=0)
        found[group] = {(arm, n): means[a, i] for a, arm in enumerate(own.arms) for i, n in enumerate(own.counts)}
    return found


def _draw(
    data_root: Path, arms: Sequence[str], counts: Sequence[int], draw: int, rdms: str
) -> Float[np.ndarray, "a i three n"]:
    """Scores of every arm, sample count and person, for one draw of voxels and images."""
    source = SemiRealBrains(str(data_root / rdms), str(data_root / LABELS), seed=draw)
    people = list(source.load().subjects)
    found = np.zeros((len(arms), len(counts), 3, len(people)))
    for p, person in enumerate(people):
        brains = source.without(person).load()
        for i, n in enumerate(counts):
            split = FewShot(n, person, HELD_OUT, seed=draw, cut_runs=True).splits(brains)[0]
            for a, arm in enumerate(arms):
                found[a, i, :, p] = _scored(arm, brains, split, draw)
    return found


def _scored(arm: str, brains: Brains, split: Split, draw: int) -> tuple[float, float, float]:
    known = _shuffled(brains, split, draw) if arm == SHUFFLED else brains
    decoder = ARMS[TRUNK if arm == SHUFFLED else arm]()
    scores = decoder.fit(known, split.train, seed=draw).scores(brains, split.test)
    square = scores.among(list(brains.table.loc[split.test, "stimulus"])).matrix
    return forward(square), forward(square, 5), backward(square)


def _shuffled(brains: Brains, split: Split, draw: int) -> Brains:
    """The new person's labelled samples with one another's labels, none with its own."""
    subject = split.test[0].partition("/")[0]
    brain = brains.subjects[subject]
    own = [i for i in split.train if i.startswith(f"{subject}/")]
    table = brain.table.copy()
    order = np.random.default_rng(draw).permutation(len(own))
    labels = table.loc[own, "stimulus"].to_numpy()
    labels[order] = labels[np.roll(order, 1)]
    table.loc[own, "stimulus"] = labels
    return replace(brains, subjects={**brains.subjects, subject: replace(brain, table=table)})


def _as_before(scored: Scored, counts: Sequence[int]) -> list[Row]:
    rows = []
    for n in counts:
        for k, (measure, before) in enumerate(zip(("top-1", "top-5"), SHEET[n], strict=True)):
            ours = scored[ADAPTER, n][k]
            note = (
                "tolerance: measured from 3 draws, with a noise and a penalty that were not written down. In "
                "this construction 3 draws have a standard error of .015 (top-1) and .02 to .04 (top-5) when all "
                "people are tested on the same images, .01 and .015 on images of their own"
            )
            name, found = f"{ADAPTER}, n {n}, {measure}", _ends(ours, SHEET_DRAWS)
            if k == 0:
                found |= Found(line=ADAPTER, at=float(n))
            rows.append(close(name, before, ours.mean(), TOLERANCE[measure], note, kind="measured", **found))
    return rows


def _beats(scored: Scored, arm: str, other: str, n: int, draws: int, area: str = "") -> Row:
    """Holds when the interval over people of the difference in top-1 lies above 0."""
    counts = resample(len(scored[arm, n][0]), RESAMPLES)
    a, b = (counts @ scored[name, n][0] / counts.sum(axis=1) for name in (arm, other))
    compared = paired_difference(arm, other, a, b, metric="top-1", n=counts.shape[1])
    note = (
        f"semi-real, {draws} draws each; {a[0]:.3f} against {b[0]:.3f}, chance {CHANCE:.3f}; holds when the "
        f"whole interval is above 0; {compared.sentence}"
    )
    return claim(
        f"{area}{arm} minus {other}, n {n}, top-1",
        0.0,
        round(compared.difference.value, 4),
        0.0,
        note,
        bool(compared.difference.low > 0),
        kind="bar",
        low=compared.difference.low,
        high=compared.difference.high,
        n=counts.shape[1],
        of="people",
        seeds=list(range(draws)),
    )


def _point(scored: Scored, arm: str, n: int, draws: int) -> Row:
    """A point of the curve."""
    top1, top5, back = scored[arm, n]
    note = f"top-5 {top5.mean():.3f}, backward top-1 {back.mean():.3f}, chance {CHANCE:.3f}"
    found = _ends(top1, draws) | Found(line=arm, at=float(n))
    return described(f"{arm}, n {n}, top-1", top1.mean(), note, **found)


def _at_chance(scored: Scored, n: int, draws: int) -> Row:
    top1 = scored[SHUFFLED, n][0]
    note = "the new person's labels are shuffled among its n images; before, .035 to .055 came out"
    found = _ends(top1, draws) | Found(line=SHUFFLED, at=float(n))
    return close(f"{SHUFFLED}, n {n}, top-1", CHANCE, top1.mean(), 0.02, note, kind="bar", **found)


def _crossing(scored: Scored, n: int, counts: Sequence[int]) -> Row:
    """How many images the adapter alone needs to do as well as the trunk with n; the largest n when it never does."""
    goal = scored[TRUNK, n][0].mean()
    curve = np.maximum.accumulate([scored[CHOSEN, count][0].mean() for count in counts])
    reached = bool(curve[-1] >= goal)
    needs = float(np.interp(goal, curve, counts)) if reached else float(counts[-1])
    said = f"{needs:.0f} images" if reached else f"more than {counts[-1]} images (it ends at {curve[-1]:.3f})"
    note = f"crossing: the trunk reaches {goal:.3f} with {n} images, the adapter alone needs {said}"
    return described(f"images {CHOSEN} needs to match the trunk at n {n}", round(needs, 1), note)


def _ends(values: Float[np.ndarray, " n"], draws: int) -> Found:
    """The interval over people."""
    counts = resample(len(values), RESAMPLES)
    interval = percentile_interval(counts @ values / counts.sum(axis=1))
    return Found(low=interval.low, high=interval.high, n=len(values), of="people", seeds=list(range(draws)))
