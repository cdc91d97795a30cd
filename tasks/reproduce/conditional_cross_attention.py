"""conditional-cross-attention: one embedding per named attribute from one backbone (CCA, Song et al., ICCV 2023).

The paper's own tables could not be read, so the bars are between arms on the same items: the condition query against
one head per attribute, and against one shared embedding. First set: emoji of four art sets, test families unseen.
Second: folk songs, all of them with the user's own music21, else those 3,214 whose notes the data set `music` holds.
"""

import functools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from data.pairs.emoji import EmojiPairs
from data.pairs.folk import FolkPairs, song_books
from data.pairs.items import Pairs
from data.sources import data_home
from encoders.encoder import Encoder
from encoders.image import MobileNetTokens
from encoders.melody import MelodyTransformer
from tasks.experiment.compare import percentile_interval, resample
from tasks.experiment.trainer import TrainerOptions
from tasks.reproduce.rows import Found as Known
from tasks.reproduce.rows import Result, Row, at_least, result
from tasks.reproduce.workers import HERE, Workers
from tasks.retrieval.conditional import (
    AttributeEmbedder,
    ConditionalEmbedder,
    MaskedEmbedder,
    SeparateHeads,
    SharedEmbedder,
)
from tasks.retrieval.feed import Feed
from tasks.retrieval.fit_conditional import TripletOptions, fit_embedder
from tasks.retrieval.metrics import chance
from tasks.retrieval.space_unit import judge

PAPER = "conditional-cross-attention"
ARMS: dict[str, type[AttributeEmbedder]] = {
    "condition query": ConditionalEmbedder,
    "separate heads": SeparateHeads,
    "shared": SharedEmbedder,
    "masks": MaskedEmbedder,
}
EMOJI = ("style", "skin_tone", "gender", "group", "subgroup")
FOLK = ("region", "metre", "function")
FAR_ABOVE = ("style", "skin_tone")
WITHIN, ABOVE = 0.01, 0.10
SEEDS, SMALL_SEEDS = (0, 1, 2), (0,)
HIDDEN, RATE, DECAY = 128, 2e-3, 0.05
EPOCHS, SMALL_EPOCHS = {"emoji": 20, "folk": 5}, 1
"""Of all arms alike. Mean mAP on the validation families of the emoji, seed 0, after 5, 12 and 20 epochs: condition
query .594, .623, .635; separate heads .602, .622, .630."""
SIDE, SMALL_SIDE, CELLS = 128, 64, 2
FIRST = 67_280_421_310_721
"""Seed of an encoder's first weights, alike in all arms: the one that torch takes when it is given none."""


@dataclass(frozen=True)
class Found:
    """One arm with one seed on the test items.

    Attributes:
        arm, seed: which
        precision: per attribute a table as `metrics.per_query`
        probes: as `attributes.entanglement`
        apart: as `attributes.separation`
    """

    arm: str
    seed: int
    precision: dict[str, pd.DataFrame]
    probes: pd.DataFrame
    apart: Float[Tensor, "k k"]


def run(data_root: Path, small: bool = False, workers: Workers = HERE) -> Result:
    """Train every arm with every seed on the emoji and on the folk songs.

    Args:
        data_root: the imported data set retrieval
        small: one seed, one epoch, drawings as they are, emoji alone: does it run at all?
        workers: who trains; a training is a part

    Raises:
        DataError: the data set or the notes of the songs are not there
    """
    if not small:
        song_books()
    sets = {"emoji": EMOJI} if small else {"emoji": EMOJI, "folk": FOLK}
    set_of(data_root, "emoji", small)
    workers.each(kept, {"emoji, frozen tokens": (data_root, small)})
    parts = {
        f"{data}, {arm}, seed {seed}": (data, arm, seed, data_root, small)
        for data in sets for seed in (SMALL_SEEDS if small else SEEDS) for arm in ARMS
    }  # fmt: skip
    found = dict(zip(parts, workers.each(measured, parts), strict=True))
    by_set = {data: [own for name, own in found.items() if name.startswith(f"{data}, ")] for data in sets}
    return result(PAPER, [row for data, own in by_set.items() for row in judged(data, sets[data], own)])


def set_of(data_root: Path, data: str, small: bool = False) -> tuple[Pairs, Encoder]:
    """A collection and the encoder of its left items, with the same first weights in every process.

    Raises:
        DataError: the data set or the notes of the songs are not there
    """
    torch.manual_seed(FIRST)
    if data == "emoji":
        encoder = MobileNetTokens(SMALL_SIDE if small else SIDE, cells=CELLS)
        return EmojiPairs("D", str(data_root / "emoji")).load(), encoder
    return FolkPairs(str(data_root / "folk")).load(), MelodyTransformer(width=64, depth=2, tokens=64)


def kept(data_root: Path, small: bool) -> None:
    """Have the frozen encoder of the emoji read them once, so that trainings side by side find what it read."""
    pairs, encoder = set_of(data_root, "emoji", small)
    Feed(encoder, pairs.left, data_home() / "features")


def measured(data: str, arm: str, seed: int, data_root: Path, small: bool = False) -> Found:
    """One arm with one seed on the test items.

    Args:
        data: emoji or folk
        arm: of `ARMS`
        seed: of the new weights, order, triplets and dropout
        data_root: the imported data set retrieval
        small: one epoch, drawings as they are
    """
    pairs, encoder = set_of(data_root, data, small)
    torch.manual_seed(seed)
    model = ARMS[arm](encoder, EMOJI if data == "emoji" else FOLK, hidden=HIDDEN)
    optimizer = functools.partial(torch.optim.AdamW, lr=RATE, weight_decay=DECAY)
    trainer = TrainerOptions(max_epochs=SMALL_EPOCHS if small else EPOCHS[data], accelerator="cpu")
    with tempfile.TemporaryDirectory() as folder:
        feed, _ = fit_embedder(
            model, pairs, optimizer, Path(folder), data_home() / "features", seed, TripletOptions(), trainer
        )
    own = judge(model, feed, pairs)
    precision = {str(name): table for name, table in own.precision.groupby("attribute", sort=False)}
    return Found(arm, seed, precision, own.probes, own.apart)


def judged(data: str, conditions: Sequence[str], found: Sequence[Found]) -> Iterator[Row]:
    """Bars between arms, the other arms as they fall, and the entanglement matrix of the condition query."""
    for name in conditions:
        query, heads = (_queries(found, arm, name) for arm in ("condition query", "separate heads"))
        note = f"{_described(found, 'condition query', name)}; {_differ('heads', query - heads)}"
        yield at_least(
            f"{data}: {name}, mAP, against separate heads",
            heads.mean(),
            query.mean(),
            WITHIN,
            note,
            kind="rival",
            **_found(found, name),
        )
    for name in conditions:
        query, shared = (_queries(found, arm, name) for arm in ("condition query", "shared"))
        margin = ABOVE if name in FAR_ABOVE else 0.0
        note = f"{_described(found, 'shared', name)}; {_differ('shared', query - shared)}"
        wanted = f"shared + {margin:.2f}" if margin else "shared"
        yield at_least(
            f"{data}: {name}, mAP, against {wanted}",
            shared.mean() + margin,
            query.mean(),
            0.0,
            note,
            kind="rival",
            **_found(found, name),
        )
    for name in conditions:
        query, masks = (_queries(found, arm, name) for arm in ("condition query", "masks"))
        note = f"{_described(found, 'masks', name)}; {_differ('masks', query - masks)}"
        yield at_least(
            f"{data}: {name}, mAP, against masks",
            masks.mean(),
            query.mean(),
            WITHIN,
            note,
            kind="rival",
            **_found(found, name),
        )
    yield _entangled(data, conditions, found)


def _entangled(data: str, conditions: Sequence[str], found: Sequence[Found]) -> Row:
    """The diagonal of the entanglement matrix must be its strongest column entry on average; the note has all of it."""
    own = [one for one in found if one.arm == "condition query"]
    table = pd.concat([one.probes for one in own]).groupby(["space", "attribute"])[["accuracy", "majority"]].mean()
    lines = []
    for space in conditions:
        cells = ", ".join(f"{a} {table.loc[(space, a), 'accuracy']:.2f}" for a in conditions)
        lines.append(f"{space} tells {cells}")
    base = ", ".join(f"{a} {table.loc[(a, a), 'majority']:.2f}" for a in conditions)
    apart = torch.stack([one.apart for one in own]).mean(dim=0)
    off = apart[~torch.eye(len(apart), dtype=torch.bool)]
    diagonal = np.mean([table.loc[(a, a), "accuracy"] for a in conditions])
    others = np.mean([table.loc[(s, a), "accuracy"] for s in conditions for a in conditions if s != a])
    note = (
        f"accuracy of linear probes on test items: {'; '.join(lines)}; most frequent class {base}; "
        f"1 - mean |cos| between two spaces {off.min():.2f} to {off.max():.2f}"
    )
    title = f"{data}: entanglement, diagonal against the rest"
    return at_least(title, float(others), float(diagonal), 0.0, note, kind="rival", seeds=_seeds(found))


def _queries(found: Sequence[Found], arm: str, name: str) -> np.ndarray:
    """Average precision of every query, mean over seeds."""
    return np.mean([one.precision[name]["average_precision"].to_numpy() for one in found if one.arm == arm], axis=0)


def _described(found: Sequence[Found], arm: str, name: str) -> str:
    own = [one for one in found if one.arm == arm]
    table, values = own[0].precision[name], _queries(found, arm, name)
    span = percentile_interval(_means(values))
    lucky = chance(table["relevant"].to_numpy(), table["gallery"].to_numpy())["mAP"]
    return (
        f"{arm} {span.value:.3f}, 95 % interval over {len(values)} queries {span.low:.3f} to {span.high:.3f}, "
        f"{int(table['gallery'].median())} candidates, {len(own)} seeds, chance {lucky:.3f}"
    )


def _found(found: Sequence[Found], name: str) -> Known:
    """The condition query's interval over queries."""
    values = _queries(found, "condition query", name)
    span = percentile_interval(_means(values))
    return Known(low=span.low, high=span.high, n=len(values), of="queries", seeds=_seeds(found))


def _seeds(found: Sequence[Found]) -> list[int]:
    return sorted({one.seed for one in found})


def _differ(other: str, difference: np.ndarray) -> str:
    span = percentile_interval(_means(difference))
    return f"condition query minus {other} {span.value:+.3f} ({span.low:+.3f} to {span.high:+.3f})"


def _means(values: np.ndarray) -> np.ndarray:
    counts = resample(len(values))
    return counts @ values / counts.sum(axis=1)
