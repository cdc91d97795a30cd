"""filip: pooled vectors, tokens (FILIP, Yao et al., ICLR 2022) and both, on drawings and their words.

What was measured before is the project's own on the same files (one untuned configuration, last step, two seeds); no
public checkpoint of FILIP exists. Protocol A: one drawing of an unseen concept. B: four drawings in one
picture, in a gallery of near twins; each drawing and each label is one token there, for all arms.
All arms of a protocol have the same towers, which were chosen on validation concepts. The space begins as MiniLM's own:
what is learnt on the text side is added to its states. In A a drawing is read at four sizes, whose features are
averaged, and tokens without a letter or digit are left out, since most cells of a drawing find the commas otherwise;
the pooled arm is there once more with them.
Figures are means over seeds, and over the three seen art sets unless a row says otherwise.
"""

import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch

from data.pairs.emoji import EmojiPairs
from data.pairs.items import Gallery, Pairs
from data.sources import data_home
from encoders.encoder import Encoder
from encoders.entries import ListTokens
from encoders.image import MobileNetTokens
from encoders.quarters import QuadrantTokens
from encoders.text import PretrainedText
from tasks.experiment.compare import percentile_interval, resample
from tasks.experiment.trainer import TrainerOptions
from tasks.reproduce.rows import Found, Result, Row, at_least, described, result
from tasks.reproduce.workers import HERE, Workers
from tasks.retrieval.feed import encode, feeds
from tasks.retrieval.fit_unit import FitOptions, Fitted, fit_towers
from tasks.retrieval.metrics import KS, TIE_RULE, per_query, recall_name
from tasks.retrieval.objectives import GlobalContrast, HybridContrast, Objective, TokenContrast
from tasks.retrieval.scores import scores_of
from tasks.retrieval.two_towers import TwoTowers, Which

PAPER = "filip"
Protocol = Literal["A", "B"]
ARMS: dict[str, Callable[[], Objective]] = {"global": GlobalContrast, "tokens": TokenContrast, "both": HybridContrast}
MARKS = "global, commas read too"
"""One more arm of A: the pooled vectors of all tokens that the text model gives."""
DIRECTIONS = {"i2t": "image to text", "t2i": "text to image"}
SEEDS, SMALL_SEEDS = (0, 1, 2, 3, 4, 5), (0,)
"""Six: in A pooled vectors and both losses differ by less than three seeds can tell apart."""
EPOCHS, SMALL_EPOCHS = {"A": 15, "B": 8}, 1
COLLAGES, SMALL_COLLAGES = 12_000, 2000
SIDES, SMALL_SIDES = {"A": [192, 256, 320, 416], "B": [192]}, {"A": [64, 96], "B": [64]}
"""Pixels that a drawing is brought to; of several sizes the features are averaged."""
WIDTH = 384
"""MiniLM's."""
HIDDEN = {"A": 512, "B": 256}
RATE, DECAY, DROPOUT = 2e-3, 0.1, {"A": 0.4, "B": 0.1}
STANDARDIZE: dict[Protocol, list[Which]] = {"A": ["left"], "B": []}
CELLS = {"A": 2, "B": 1}
"""Rows and columns that the map of a drawing is averaged to: 4 tokens a picture in both protocols. In B a caption has
a token per entry as well: parts are given, who belongs to whom is not."""

PUBLISHED_A = {"global": (0.198, 0.389, 0.478), "tokens": (0.180, 0.377, 0.457)}
BAR_A = (0.20, 0.40, 0.49)
PUBLISHED_B = {"global": {"i2t": 0.301, "t2i": 0.306}, "tokens": {"i2t": 0.352, "t2i": 0.345}}
UNSEEN = {"A": {"global": 0.056, "tokens": 0.049}, "B": {"global": 0.077, "tokens": 0.045}}
FULL = {"global": 0.047}


class Asked(NamedTuple):
    """What one trained arm found for the queries of one gallery."""

    arm: str
    seed: int
    gallery: str
    direction: str
    size: int
    queries: pd.DataFrame


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
        for protocol in protocols for seed in (SMALL_SEEDS if small else SEEDS) for arm in arms_of(protocol)
    }  # fmt: skip
    found = dict(zip(parts, workers.each(measured, parts), strict=True))
    by_protocol = {
        protocol: [asked for name, own in found.items() if name.startswith(f"{protocol}, ") for asked in own]
        for protocol in protocols
    }
    return result(PAPER, [row for protocol, own in by_protocol.items() for row in rows_of(protocol, own)])


def rows_of(protocol: Protocol, found: Sequence[Asked]) -> list[Row]:
    """The bars of a protocol, then the unseen style and the full gallery."""
    own = _single(found) if protocol == "A" else _collages(found)
    return [*own, *_hybrid(found, protocol), *_elsewhere(found, protocol)]


def pairs_of(data_root: Path, protocol: Protocol, small: bool = False) -> Pairs:
    """The collection of a protocol.

    Raises:
        DataError: the data set is not there
    """
    return EmojiPairs(protocol, str(data_root / "emoji"), collages=SMALL_COLLAGES if small else COLLAGES).load()


def arms_of(protocol: Protocol) -> list[str]:
    """What is trained."""
    return [*ARMS, MARKS] if protocol == "A" else list(ARMS)


def kept(protocol: Protocol, data_root: Path, small: bool) -> None:
    """Have the frozen encoders read everything once, so that trainings side by side find what they read."""
    pairs = pairs_of(data_root, protocol, small)
    for arm in ("both", *arms_of(protocol)[len(ARMS) :]):
        feeds(towers_of(protocol, arm, (SMALL_SIDES if small else SIDES)[protocol]), pairs, data_home() / "features")


def measured(protocol: Protocol, arm: str, seed: int, data_root: Path, small: bool = False) -> list[Asked]:
    """One arm with one seed on every test gallery, both directions.

    Args:
        protocol: A or B
        arm: of `arms_of`
        seed: of weights, order and dropout
        data_root: the imported data set retrieval
        small: one epoch, drawings as they are, fewer collages
    """
    pairs = pairs_of(data_root, protocol, small)
    epochs = SMALL_EPOCHS if small else EPOCHS[protocol]
    with tempfile.TemporaryDirectory() as folder:
        fitted = trained(protocol, arm, seed, pairs, Path(folder), epochs, (SMALL_SIDES if small else SIDES)[protocol])
    return [
        asked
        for gallery in pairs.galleries
        if gallery.split == "test"
        for asked in _asked(arm, seed, fitted, pairs, gallery)
    ]


def trained(
    protocol: Protocol, arm: str, seed: int, pairs: Pairs, folder: Path, epochs: int, sides: list[int]
) -> Fitted:
    """One arm: frozen MobileNetV2 and MiniLM under small projections, the epoch chosen on validation concepts.

    Args:
        protocol: A reads pictures and captions whole, B reads quarters of a picture and entries of a caption
        arm: of `arms_of`
        seed: of weights, order and dropout
        pairs: of the protocol
        folder: for checkpoints and logs
        epochs: at most
        sides: pixels that a drawing is brought to
    """
    torch.manual_seed(seed)
    towers = towers_of(protocol, arm, sides)
    optimizer = functools.partial(torch.optim.AdamW, lr=RATE, weight_decay=DECAY)
    return fit_towers(
        towers,
        ARMS["global" if arm == MARKS else arm](),
        pairs,
        optimizer,
        folder / pairs.name / f"{arm}-{seed}",
        data_home() / "features",
        seed,
        FitOptions(),
        TrainerOptions(max_epochs=epochs, accelerator="cpu"),
    )


def towers_of(protocol: Protocol, arm: str, sides: list[int]) -> TwoTowers:
    """Frozen encoders and new projections of a protocol's arm."""
    cells = CELLS[protocol]
    left: Encoder = MobileNetTokens(sides, cells=cells) if protocol == "A" else QuadrantTokens(sides, cells)
    right: Encoder = PretrainedText(punctuation=arm == MARKS) if protocol == "A" else ListTokens(whole=True)
    return TwoTowers(
        left,
        right,
        WIDTH,
        HIDDEN[protocol],
        blocks=0,
        dropout=DROPOUT[protocol],
        residual=["right"],
        standardize=STANDARDIZE[protocol],
    )


def _asked(arm: str, seed: int, fitted: Fitted, pairs: Pairs, gallery: Gallery) -> Iterator[Asked]:
    towers, ranking = fitted.towers, (fitted.objective.score, fitted.objective.global_share)
    sides = (
        ("i2t", gallery.left_queries, gallery.right_gallery, False),
        ("t2i", gallery.right_queries, gallery.left_gallery, True),
    )
    for direction, asking, searched, from_right in sides:
        ways = [(towers.project_left, fitted.feeds[0]), (towers.project_right, fitted.feeds[1])]
        (ask, ask_feed), (search, search_feed) = reversed(ways) if from_right else ways
        scores = scores_of(encode(ask, ask_feed, asking), encode(search, search_feed, searched), *ranking)
        truth = pairs.relevance(searched, asking).T if from_right else pairs.relevance(asking, searched)
        queries = per_query(scores, torch.from_numpy(np.ascontiguousarray(truth)))
        yield Asked(arm, seed, gallery.name, direction, len(searched), queries)


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
    for direction in DIRECTIONS:
        hits, note = recall(found, MARKS, direction, 1, seen), _note(found, MARKS, direction, 1, seen)
        yield described(f"A: {MARKS}, {direction} R@1", hits.mean(), note, **_found(found, MARKS, direction, 1, seen))


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


def _hybrid(found: Sequence[Asked], protocol: Protocol) -> Iterator[Row]:
    seen = _seen(found)
    for direction in DIRECTIONS:
        means = {arm: recall(found, arm, direction, 1, seen).mean() for arm in ARMS}
        best = max(("global", "tokens"), key=lambda arm: means[arm])
        name = f"{protocol}: both, {direction} R@1, against the better one ({best})"
        note, known = _note(found, "both", direction, 1, seen), _found(found, "both", direction, 1, seen)
        yield at_least(name, means[best], means["both"], 0.0, note, kind="rival", **known)


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
    span = percentile_interval(_means(hits))
    return Found(low=span.low, high=span.high, n=len(hits), of="queries", seeds=_seeds(found))


def _seeds(found: Sequence[Asked]) -> list[int]:
    return sorted({asked.seed for asked in found})


def _difference(found: Sequence[Asked], direction: str, k: int, galleries: Sequence[str]) -> tuple[float, str]:
    """Tokens minus global on the same queries: the lower end of the interval, and the sentence."""
    pair = [recall(found, arm, direction, k, galleries) for arm in ("tokens", "global")]
    span = percentile_interval(_means(pair[0] - pair[1]))
    text = f"tokens minus global {span.value:+.3f}, 95 % interval over queries {span.low:+.3f} to {span.high:+.3f}"
    return span.low, text


def _means(values: np.ndarray) -> np.ndarray:
    counts = resample(len(values))
    return counts @ values / counts.sum(axis=1)


def _error(share: float, n: int) -> float:
    """Half the width of a share's 95 % interval."""
    return float(1.96 * np.sqrt(share * (1 - share) / n))
