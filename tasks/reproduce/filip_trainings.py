"""Trainings of the paper filip: arms, frozen encoders and small towers on emoji, and what a trained arm finds."""

import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from data.pairs.emoji import EmojiPairs
from data.pairs.items import Gallery, Pairs
from data.sources import data_home
from encoders.encoder import Encoder
from encoders.entries import ListTokens
from encoders.image import MobileNetTokens
from encoders.quarters import QuadrantTokens
from encoders.text import PretrainedText
from tasks.experiment.trainer import TrainerOptions
from tasks.retrieval.feed import encode, feeds
from tasks.retrieval.fit_unit import FitOptions, Fitted, fit_towers
from tasks.retrieval.metrics import per_query
from tasks.retrieval.objectives import GlobalContrast, HybridContrast, Objective, TokenContrast
from tasks.retrieval.scores import scores_of
from tasks.retrieval.two_towers import TwoTowers, Which

Protocol = Literal["A", "B"]


class Arm(NamedTuple):
    """How one arm is trained.

    Attributes:
        objective: what its towers learn by
        networks: trained apart, from seeds of their own; their scores are averaged
        punctuation: commas of captions are read too
    """

    objective: Callable[[], Objective]
    networks: int = 1
    punctuation: bool = False


ARMS = {
    "global": Arm(GlobalContrast),
    "tokens": Arm(TokenContrast),
    "both": Arm(functools.partial(HybridContrast, separate_pooled=True)),
}
BESIDE = {
    "both (shared projections)": Arm(HybridContrast),
    "global (two networks)": Arm(GlobalContrast, networks=2),
    "tokens (two networks)": Arm(TokenContrast, networks=2),
}
"""What becomes of both without separate projections, and what as many weights do under one loss."""
MARKS = {"global (commas read too)": Arm(GlobalContrast, punctuation=True)}
"""One more arm of A: the pooled vectors of all tokens that the text model gives."""
ALL = ARMS | BESIDE | MARKS
SECOND = 100
"""What a second network's seed is further on."""
EPOCHS, SMALL_EPOCHS = {"A": 15, "B": 8}, 1
COLLAGES, SMALL_COLLAGES = 12_000, 2000
SIDES, SMALL_SIDES = {"A": [192, 256, 320, 416], "B": [192]}, {"A": [48, 64], "B": [64]}
"""Pixels that a drawing is brought to; of several sizes the features are averaged."""
WIDTH = 384
"""MiniLM's."""
HIDDEN = {"A": 512, "B": 256}
RATE, DECAY, DROPOUT = 2e-3, 0.1, {"A": 0.4, "B": 0.1}
STANDARDIZE: dict[Protocol, list[Which]] = {"A": ["left"], "B": []}
CELLS = {"A": 2, "B": 1}
"""Rows and columns that the map of a drawing is averaged to: 4 tokens a picture in both protocols. In B a caption has
a token per entry as well: parts are given, who belongs to whom is not."""


class Asked(NamedTuple):
    """What one trained arm found for the queries of one gallery."""

    arm: str
    seed: int
    gallery: str
    direction: str
    size: int
    queries: pd.DataFrame


def pairs_of(data_root: Path, protocol: Protocol, small: bool = False) -> Pairs:
    """The collection of a protocol.

    Raises:
        DataError: the data set is not there
    """
    return EmojiPairs(protocol, str(data_root / "emoji"), collages=SMALL_COLLAGES if small else COLLAGES).load()


def arms_of(protocol: Protocol, small: bool = False) -> list[str]:
    """What is trained; the small form has `BESIDE` in B only, where a step takes least."""
    if protocol == "B":
        return [*ARMS, *BESIDE]
    return [*ARMS, *MARKS] if small else list(ALL)


def kept(protocol: Protocol, data_root: Path, small: bool) -> None:
    """Have the frozen encoders read everything once, so that trainings side by side find what they read."""
    pairs = pairs_of(data_root, protocol, small)
    for arm in ("both", *MARKS) if protocol == "A" else ("both",):
        feeds(
            towers_of(protocol, ALL[arm], (SMALL_SIDES if small else SIDES)[protocol]), pairs, data_home() / "features"
        )


def measured(protocol: Protocol, arm: str, seed: int, data_root: Path, small: bool = False) -> list[Asked]:
    """One arm with one seed on every test gallery, both directions.

    Args:
        protocol: A or B
        arm: of `arms_of`
        seed: of weights, order and dropout
        data_root: the imported data set retrieval
        small: one epoch, drawings as they are, fewer collages
    """
    return trained_and_asked(protocol, arm, seed, pairs_of(data_root, protocol, small), small)


def trained_and_asked(protocol: Protocol, arm: str, seed: int, pairs: Pairs, small: bool) -> list[Asked]:
    """As `measured`, on a collection of the protocol."""
    epochs, sides = SMALL_EPOCHS if small else EPOCHS[protocol], (SMALL_SIDES if small else SIDES)[protocol]
    networks = []
    for number in range(ALL[arm].networks):
        with tempfile.TemporaryDirectory() as folder:
            own = seed + number * SECOND
            networks.append(trained(protocol, ALL[arm], own, pairs, Path(folder), epochs, sides))
    return [
        asked
        for gallery in pairs.galleries
        if gallery.split == "test"
        for asked in _asked(arm, seed, networks, pairs, gallery)
    ]


def trained(
    protocol: Protocol, arm: Arm, seed: int, pairs: Pairs, folder: Path, epochs: int, sides: list[int]
) -> Fitted:
    """One network: frozen MobileNetV2 and MiniLM under small projections, the epoch chosen on validation concepts.

    Args:
        protocol: A reads pictures and captions whole, B reads quarters of a picture and entries of a caption
        arm: what it learns by, and with which projections
        seed: of weights, order and dropout
        pairs: of the protocol
        folder: for checkpoints and logs
        epochs: at most
        sides: pixels that a drawing is brought to
    """
    torch.manual_seed(seed)
    objective = arm.objective()
    towers = towers_of(protocol, arm, sides, objective.separate_pooled)
    optimizer = functools.partial(torch.optim.AdamW, lr=RATE, weight_decay=DECAY)
    return fit_towers(
        towers,
        objective,
        pairs,
        optimizer,
        folder / pairs.name,
        data_home() / "features",
        seed,
        FitOptions(),
        TrainerOptions(max_epochs=epochs, accelerator="cpu"),
    )


def towers_of(protocol: Protocol, arm: Arm, sides: list[int], separate_pooled: bool = False) -> TwoTowers:
    """Frozen encoders and new projections of a protocol's arm."""
    cells = CELLS[protocol]
    left: Encoder = MobileNetTokens(sides, cells=cells) if protocol == "A" else QuadrantTokens(sides, cells)
    right: Encoder = PretrainedText(punctuation=arm.punctuation) if protocol == "A" else ListTokens(whole=True)
    return TwoTowers(
        left,
        right,
        WIDTH,
        HIDDEN[protocol],
        blocks=0,
        dropout=DROPOUT[protocol],
        residual=["right"],
        standardize=STANDARDIZE[protocol],
        separate_pooled=separate_pooled,
    )


def _asked(arm: str, seed: int, networks: Sequence[Fitted], pairs: Pairs, gallery: Gallery) -> Iterator[Asked]:
    sides = (
        ("i2t", gallery.left_queries, gallery.right_gallery, False),
        ("t2i", gallery.right_queries, gallery.left_gallery, True),
    )
    for direction, asking, searched, from_right in sides:
        scores = torch.stack([_scores(fitted, asking, searched, from_right) for fitted in networks]).mean(dim=0)
        truth = pairs.relevance(searched, asking).T if from_right else pairs.relevance(asking, searched)
        queries = per_query(scores, torch.from_numpy(np.ascontiguousarray(truth)))
        yield Asked(arm, seed, gallery.name, direction, len(searched), queries)


def _scores(fitted: Fitted, asking: Sequence[int], searched: Sequence[int], from_right: bool) -> Float[Tensor, "q g"]:
    towers = fitted.towers
    ways = [(towers.project_left, fitted.feeds[0]), (towers.project_right, fitted.feeds[1])]
    (ask, ask_feed), (search, search_feed) = reversed(ways) if from_right else ways
    ranking = fitted.objective.score, fitted.objective.global_share
    return scores_of(encode(ask, ask_feed, asking), encode(search, search_feed, searched), *ranking)
