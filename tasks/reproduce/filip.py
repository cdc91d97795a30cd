"""filip: pooled vectors, tokens (FILIP, Yao et al., ICLR 2022) and both, on drawings and their words.

What was measured before is the project's own on the same files (one untuned configuration, last step, two seeds); no
public checkpoint of FILIP exists. Protocol A: one drawing of an unseen concept. B: four drawings in one
picture, in a gallery of near twins; each drawing and each label is one token there, for all arms.
All arms of a protocol have the same encoders and widths, which were chosen on validation concepts. The space begins as
MiniLM's own: what is learnt on the text side is added to its states. In A a drawing is read at four sizes, whose
features are averaged, and tokens without a letter or digit are left out, since most cells of a drawing find the commas
otherwise; the pooled arm is there once more with them. Both losses together read the same frozen encoders through a
projection each, an ensemble of two small networks; beside them stand both on one projection, and two networks under one
loss, as many weights, whose scores are averaged. That both have a projection each was decided on the folds, which claim
nothing.
Since 277 test concepts cannot tell both losses from the better one alone, four folds of the 1,309 others are asked too.
Figures are means over seeds, and over the three seen art sets unless a row says otherwise.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tasks.experiment.compare import percentile_interval
from tasks.reproduce import filip_folds
from tasks.reproduce.filip_folds import compared, resampled
from tasks.reproduce.filip_trainings import ARMS, BESIDE, MARKS, Asked, Protocol, arms_of, kept, measured, pairs_of
from tasks.reproduce.rows import Found, Result, Row, at_least, described, result
from tasks.reproduce.workers import HERE, Workers
from tasks.retrieval.metrics import KS, TIE_RULE, recall_name

PAPER = "filip"
DIRECTIONS = {"i2t": "image to text", "t2i": "text to image"}
SEEDS, SMALL_SEEDS = (0, 1, 2, 3, 4, 5), (0,)
"""Six: in A pooled vectors and both losses differ by less than three seeds can tell apart."""
PUBLISHED_A = {"global": (0.198, 0.389, 0.478), "tokens": (0.180, 0.377, 0.457)}
BAR_A = (0.20, 0.40, 0.49)
PUBLISHED_B = {"global": {"i2t": 0.301, "t2i": 0.306}, "tokens": {"i2t": 0.352, "t2i": 0.345}}
UNSEEN = {"A": {"global": 0.056, "tokens": 0.049}, "B": {"global": 0.077, "tokens": 0.045}}
FULL = {"global": 0.047}


def run(data_root: Path, small: bool = False, workers: Workers = HERE) -> Result:
    """Train every arm on both protocols with every seed, and measure the test galleries.

    Args:
        data_root: the imported data set retrieval
        small: one seed, one epoch, drawings as they are, fewer collages: does it run at all?
        workers: who trains; a training is a part

    Raises:
        DataError: the data set is not there
    """
    protocols: tuple[Protocol, ...] = ("A", "B")
    pairs_of(data_root, "A", small)
    workers.each(kept, {f"{protocol}, frozen tokens": (protocol, data_root, small) for protocol in protocols})
    parts = {
        f"{protocol}, {arm}, seed {seed}": (protocol, arm, seed, data_root, small)
        for protocol in protocols for seed in (SMALL_SEEDS if small else SEEDS) for arm in arms_of(protocol, small)
    }  # fmt: skip
    found = dict(zip(parts, workers.each(measured, parts), strict=True))
    folds = filip_folds.SMALL_FOLDS if small else filip_folds.FOLDS
    turns = {
        f"A, fold {fold}, {arm}": (arm, fold, filip_folds.SEED, data_root, small)
        for fold in folds for arm in (ARMS if small else ARMS | BESIDE)
    }  # fmt: skip
    turned = dict(zip(turns, workers.each(filip_folds.measured, turns), strict=True))
    single, collages = (
        rows_of(protocol, [asked for name, own in found.items() if name.startswith(f"{protocol}, ") for asked in own])
        for protocol in protocols
    )
    by_fold = [
        [asked for name, own in turned.items() if name.startswith(f"A, fold {fold}, ") for asked in own]
        for fold in folds
    ]
    return result(PAPER, [*single, *compared("A, all other concepts", by_fold, claimed=False), *collages])


def rows_of(protocol: Protocol, found: Sequence[Asked]) -> list[Row]:
    """The bars of a protocol, then the unseen style and the full gallery."""
    own = _single(found) if protocol == "A" else _collages(found)
    seen = _seen(found)
    both = compared(protocol, [[asked for asked in found if asked.gallery in seen]])
    return [*own, *both, *_elsewhere(found, protocol)]


def recall(found: Sequence[Asked], arm: str, direction: str, k: int, galleries: Sequence[str]) -> np.ndarray:
    """Hits in the first k, `[n]`: one value per query, averaged over seeds and galleries of the same concepts."""
    chosen = [a for a in found if (a.arm, a.direction) == (arm, direction) and a.gallery in galleries]
    return np.mean([(a.queries["rank"] <= k).to_numpy(dtype=float) for a in chosen], axis=0)


def _seen(found: Sequence[Asked]) -> list[str]:
    return [name for name in dict.fromkeys(a.gallery for a in found) if "unseen" not in name and "full" not in name]


def _single(found: Sequence[Asked]) -> Iterator[Row]:
    seen = _seen(found)
    for k, bar in zip(KS, BAR_A, strict=True):
        hits = recall(found, "global", "i2t", k, seen)
        name, note = f"A: global, i2t {recall_name(k)}", _note(found, "global", "i2t", k, seen)
        yield at_least(name, bar, hits.mean(), 0.0, note, kind="bar", **_found(found, "global", "i2t", k, seen))
    for k, published in zip(KS, PUBLISHED_A["tokens"], strict=True):
        hits = recall(found, "tokens", "i2t", k, seen)
        note = (
            f"{_note(found, 'tokens', 'i2t', k, seen)}; reported as it falls, {_difference(found, 'i2t', k, seen)[1]}"
        )
        name, known = f"A: tokens, i2t {recall_name(k)}", _found(found, "tokens", "i2t", k, seen)
        yield at_least(name, published, hits.mean(), _error(published, len(hits)), note, kind="measured", **known)
    for arm, direction in itertools.product(MARKS, DIRECTIONS):
        hits, note = recall(found, arm, direction, 1, seen), _note(found, arm, direction, 1, seen)
        yield described(f"A: {arm}, {direction} R@1", hits.mean(), note, **_found(found, arm, direction, 1, seen))


def _collages(found: Sequence[Asked]) -> Iterator[Row]:
    seen = _seen(found)
    for arm, published in PUBLISHED_B.items():
        for direction, bar in published.items():
            hits = recall(found, arm, direction, 1, seen)
            note = _note(found, arm, direction, 1, seen)
            known = _found(found, arm, direction, 1, seen)
            yield at_least(f"B: {arm}, {direction} R@1", bar, hits.mean(), 0.0, note, kind="measured", **known)
    for direction in DIRECTIONS:
        low, text = _difference(found, direction, 1, seen)
        name = f"B: tokens above global, {direction} R@1, lower end"
        yield at_least(name, 0.0, low, 0.0, text, kind="bar", seeds=_seeds(found))


def _elsewhere(found: Sequence[Asked], protocol: Protocol) -> Iterator[Row]:
    """The unseen art set, and the test queries among everything; both were measured before for text to image."""
    for arm in ARMS:
        unseen = [name for name in dict.fromkeys(a.gallery for a in found) if "unseen" in name and "full" not in name]
        hits = recall(found, arm, "t2i", 1, unseen)
        bar = UNSEEN[protocol].get(arm, min(UNSEEN[protocol].values()))
        note = f"{_note(found, arm, 't2i', 1, unseen)}; tolerance: its sampling error"
        name, known = f"{protocol}: {arm}, unseen style, t2i R@1", _found(found, arm, "t2i", 1, unseen)
        yield at_least(name, bar, hits.mean(), _error(bar, len(hits)), note, kind="measured", **known)
        full = [name for name in dict.fromkeys(a.gallery for a in found) if "full" in name and "unseen" not in name]
        hits = recall(found, arm, "t2i", 1, full)
        bar = FULL.get(arm, 0.0) if protocol == "A" else 0.0
        note = f"{_note(found, arm, 't2i', 1, full)}; {'measured before on noto' if bar else 'not measured before'}"
        name, known = f"{protocol}: {arm}, full gallery, t2i R@1", _found(found, arm, "t2i", 1, full)
        if bar:
            yield at_least(name, bar, hits.mean(), _error(bar, len(hits)), note, kind="measured", **known)
        else:
            yield described(name, hits.mean(), note, **known)


def _note(found: Sequence[Asked], arm: str, direction: str, k: int, galleries: Sequence[str]) -> str:
    size = next(a.size for a in found if (a.arm, a.direction) == (arm, direction) and a.gallery in galleries)
    per_gallery = ", ".join(f"{g} {recall(found, arm, direction, k, [g]).mean():.3f}" for g in galleries)
    recalls = " ".join(f"{recall(found, arm, direction, other, galleries).mean():.3f}" for other in KS)
    return f"gallery {size}, chance {k / size:.4f}; R@1/5/10 {recalls}; {per_gallery}; {TIE_RULE}"


def _found(found: Sequence[Asked], arm: str, direction: str, k: int, galleries: Sequence[str]) -> Found:
    """The interval over queries."""
    hits = recall(found, arm, direction, k, galleries)
    span = percentile_interval(resampled(hits))
    return Found(low=span.low, high=span.high, n=len(hits), of="queries", seeds=_seeds(found))


def _seeds(found: Sequence[Asked]) -> list[int]:
    return sorted({asked.seed for asked in found})


def _difference(found: Sequence[Asked], direction: str, k: int, galleries: Sequence[str]) -> tuple[float, str]:
    """Tokens minus global on the same queries: the lower end of the interval, and the sentence."""
    pair = [recall(found, arm, direction, k, galleries) for arm in ("tokens", "global")]
    span = percentile_interval(resampled(pair[0] - pair[1]))
    text = f"tokens minus global {span.value:+.3f}, 95 % interval over queries {span.low:+.3f} to {span.high:+.3f}"
    return span.low, text


def _error(share: float, n: int) -> float:
    """Half the width of a share's 95 % interval."""
    return float(1.96 * np.sqrt(share * (1 - share) / n))
