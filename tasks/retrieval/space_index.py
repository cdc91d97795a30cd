"""`retrieval index --condition`: items in one space per attribute, from one pass of encoder and backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from data.errors import DataError
from fusion.tokens import Tokens
from tasks.experiment.signatures import did_you_mean
from tasks.retrieval import index_folder
from tasks.retrieval.build_index import asked_items, begun, put_in
from tasks.retrieval.exact_search import Progress
from tasks.retrieval.index import Backend, Index, Settings
from tasks.retrieval.new_items import encode_side
from tasks.retrieval.reader import Reader
from tasks.retrieval.space_unit import TrainedSpaces
from tasks.retrieval.stored_items import Precision
from tasks.retrieval.two_towers import Encoded

EVERY = "all"
"""Stands for every attribute that a run learnt."""


def build_spaces(
    trained: TrainedSpaces,
    items: str,
    folder: Path,
    conditions: Sequence[str],
    *,
    backend: Backend = "exact",
    precision: Precision = "float32",
    replace: bool = False,
    progress: Progress | None = None,
) -> tuple[dict[str, Index], list[str]]:
    """Make an index per attribute, or extend those that are there: `FOLDER/ATTRIBUTE` each.

    Args:
        trained: whose spaces
        items: a folder, a file, or `collection` (`collection:test` for one split), of left items
        folder: that the indices go to
        conditions: attributes; `all` = every one
        backend, precision: of new indices
        replace: update items that an index holds already, instead of leaving them as they are
        progress: told while items are encoded and while FAISS structures are made

    Returns:
        the indices by attribute, and one line on each item that was left out

    Raises:
        DataError: no item can be used, an attribute that the run lacks, or an index of another embedder
    """
    known = trained.embedder.conditions
    names = list(known) if EVERY in conditions else list(dict.fromkeys(conditions))
    numbers = [trained.condition(name) for name in names]
    if (folder / index_folder.MANIFEST).is_file():
        raise DataError(f"{folder}: an index without attributes; give the spaces a folder of their own")
    with ExitStack() as held:
        for name in names:
            held.enter_context(index_folder.writing(folder / name))
        found = {name: begun(folder / name, _settings(trained, name, backend, precision)) for name in names}
        asked = asked_items(trained.experiment, items, "left", trained.embedder.encoder, "caption")
        batch = encode_side(asked.side, trained.embedder.encoder, _every(trained), *asked[1:], progress)
        notes = list(batch.notes)
        for name, number in zip(names, numbers, strict=True):
            vectors = batch.encoded.x[:, number].float().numpy()
            notes += put_in(found[name], folder / name, batch, vectors, None, replace, progress)
        return found, list(dict.fromkeys(notes))


def place_of(folder: Path, condition: str | None) -> Path:
    """The folder of the index that is asked.

    Args:
        folder: an index, or a folder with one index per attribute
        condition: the attribute; None = it has none

    Raises:
        DataError: an attribute was named where there are none, none where there are some, or another one
    """
    held = sorted(path.parent.name for path in folder.glob(f"*/{index_folder.MANIFEST}"))
    if (folder / index_folder.MANIFEST).is_file() or not held:
        if condition is not None:
            raise DataError(
                f"{folder}: an index without attributes, so no --condition; `retrieval index --condition {condition}` "
                "makes one from a run that was trained with `spaces` (retrieval/attributes is such a config)"
            )
        return folder
    if condition is None:
        raise DataError(f"{folder}: holds one space per attribute ({', '.join(held)}); choose with --condition")
    if condition not in held:
        raise DataError(
            f"{folder}: no space for '{condition}'; there are {', '.join(held)}{did_you_mean(condition, held)}"
        )
    return folder / condition


def places_of(folder: Path, conditions: Sequence[str] | None) -> list[Path]:
    """`place_of` several attributes; `all` = every one there, None = an index without.

    Raises:
        DataError: see `place_of`
    """
    if not conditions:
        return [place_of(folder, None)]
    if EVERY not in conditions:
        return [place_of(folder, name) for name in conditions]
    return sorted(path.parent for path in folder.glob(f"*/{index_folder.MANIFEST}")) or [place_of(folder, EVERY)]


def reader(trained: TrainedSpaces, condition: str) -> Reader:
    """What reads a query under one attribute.

    Raises:
        DataError: an attribute that the run lacks
    """
    number = trained.condition(condition)
    every = _every(trained)

    def one(tokens: Tokens) -> Encoded:
        vector = every(tokens).x[:, number]
        return Encoded(Tokens.full(vector[:, None]), vector)

    return Reader("left", trained.embedder.encoder, one, trained.experiment, condition)


def _every(trained: TrainedSpaces) -> Callable[[Tokens], Encoded]:
    """Items under all conditions, as tokens side by side."""
    embedder = trained.embedder

    @torch.no_grad()
    def project(tokens: Tokens) -> Encoded:
        spaces = embedder.spaces(embedder.backbone(tokens))
        return Encoded(Tokens.full(spaces), spaces[:, 0])

    return project


def _settings(trained: TrainedSpaces, condition: str, backend: Backend, precision: Precision) -> Settings:
    origin = {"run": str(trained.run.resolve()), "unit": trained.unit, "side": "left", "condition": condition}
    return Settings(trained.hash, trained.embedder.width, "global", 1.0, backend, precision, origin=origin)
