"""`retrieval index`: a run's collection, or items from files, through one of its towers into an index folder."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from data.errors import DataError
from data.pairs.items import Side
from encoders.encoder import Encoder
from tasks.experiment.folder import RunError
from tasks.retrieval import index_folder
from tasks.retrieval.exact_search import Progress
from tasks.retrieval.experiment import RetrievalExperiment, experiment_of_run
from tasks.retrieval.index import Backend, Index, Settings
from tasks.retrieval.new_items import Batch, arrays_of, described, described_in, encode_side, source_of
from tasks.retrieval.reader import Reader
from tasks.retrieval.rerank import CrossEncoder
from tasks.retrieval.results import Results, read
from tasks.retrieval.stored_items import Precision
from tasks.retrieval.trained import CROSS_ENCODER, Trained, finished_unit, load_state

COLLECTION = "collection"
"""Stands for the run's own items, all of them or one split: `collection`, `collection:test`."""


@dataclass(frozen=True)
class Opened:
    """A finished unit of a run, ready to encode.

    Attributes:
        run: the run folder
        unit: name of the unit within it
        experiment: what the run was
        trained: its towers
    """

    run: Path
    unit: str
    experiment: RetrievalExperiment
    trained: Trained

    @classmethod
    def of(cls, run: Path, arm: str | None = None, seed: int | None = None) -> Opened:
        """A finished unit.

        Args:
            run: the run folder
            arm: whose towers; None = the arm under test
            seed: which training; None = the first that is finished

        Raises:
            RunError: there is no such run, arm or finished training
        """
        results: Results = read(run)
        experiment = experiment_of_run(run)
        wanted = arm or experiment.name
        if wanted not in experiment.objectives:
            raise RunError(f"{run}: no arm '{wanted}'; there are {', '.join(experiment.objectives)}")
        unit = finished_unit(run, results.done, wanted, seed)
        return cls(run, unit, experiment, Trained.load(run / unit, experiment, wanted))

    @property
    def arm(self) -> str:
        return self.unit.rsplit("/", 1)[0]

    @property
    def readers(self) -> dict[str, Reader]:
        """What reads each side."""
        return {side: self.reader(side) for side in ("left", "right")}

    def reader(self, side: str) -> Reader:
        """What reads one side, left or right."""
        trained = self.trained
        return Reader(side, trained.encoder(side), lambda tokens: trained.project(side, tokens), self.experiment)

    def cross_encoder(self) -> CrossEncoder:
        """What reads the first hits again.

        Raises:
            RunError: this unit trained none
        """
        path = self.run / self.unit / CROSS_ENCODER
        if self.experiment.rerank is None or not path.is_file():
            raise RunError(
                f"{self.run}: {self.unit} has no cross-encoder; train the run with `rerank: {{}}` in its config"
            )
        model = self.experiment.build_cross_encoder(self.trained.towers)
        load_state(path, model, list(model.state_dict()))
        return model.eval()


def build(
    opened: Opened,
    items: str,
    folder: Path,
    side: str,
    *,
    backend: Backend = "exact",
    precision: Precision = "float32",
    replace: bool = False,
    text: str = "caption",
    progress: Progress | None = None,
) -> tuple[Index, list[str]]:
    """Make an index, or extend the one in `folder`.

    Args:
        opened: whose towers
        items: a folder, a file, a table, or `collection` (`collection:test` for one split)
        folder: of the index
        side: left or right: the tower that reads the items
        backend: of a new index
        precision: of a new index
        replace: update items that the index holds already, instead of leaving them as they are
        text: column of the texts, in a table
        progress: told while items are encoded and while FAISS structures are made

    Returns:
        the index, and one line on each item that was left out

    Raises:
        DataError: no item can be used, or the index in `folder` is of another encoder
        RunError: another process is writing there, or there is something else
    """
    with index_folder.writing(folder):
        index = begun(folder, _settings(opened, side, backend, precision))
        batch = _encoded(opened, items, side, text, progress)
        vectors, tokens = arrays_of(batch.encoded, index.settings.with_tokens)
        return index, [*batch.notes, *put_in(index, folder, batch, vectors, tokens, replace, progress)]


def take_out(folder: Path, ids: Sequence[str]) -> Index:
    """Remove items from the index in a folder.

    Raises:
        DataError: no index, or an id that it does not hold; nothing is removed then
        RunError: another process is writing it
    """
    with index_folder.writing(folder):
        index = index_folder.load(folder)
        index.remove(ids)
        index_folder.write(index, folder)
        return index


def begun(folder: Path, settings: Settings) -> Index:
    """The index in a folder, or a new one of these settings.

    Raises:
        DataError: the one in the folder is of another encoder, side or attribute
    """
    if not (folder / index_folder.MANIFEST).is_file():
        return Index(settings)
    index = index_folder.load(folder)
    held, ours = index.settings, settings
    if held.encoder != ours.encoder:
        raise DataError(f"{folder}: made by encoder {held.encoder}, this run's is {ours.encoder}; give another folder")
    if held.origin["side"] != ours.origin["side"]:
        raise DataError(f"{folder}: holds {held.origin['side']} items; add these to an index of their own")
    return index


def put_in(
    index: Index,
    folder: Path,
    batch: Batch,
    vectors: Float[np.ndarray, "n d"],
    tokens: list[np.ndarray] | None,
    replace: bool,
    progress: Progress | None,
) -> list[str]:
    """Add a batch to an index and write it.

    Args:
        index: as `begun`
        folder: where it goes, held with `index_folder.writing`
        batch: whose ids and descriptions
        vectors, tokens: of the same items
        replace: update items that the index holds already
        progress: told while FAISS structures are made

    Returns:
        one line on each item that was left as it is
    """
    notes, new = [], not len(index)
    known = np.array([item in index.items for item in batch.ids], bool)
    for rows, there in ((np.flatnonzero(~known), False), (np.flatnonzero(known), True)):
        if there and not replace:
            notes += _left_as_they_are(index, batch, rows.tolist())
        elif len(rows):
            (index.update if there else index.add)(
                [batch.ids[row] for row in rows],
                vectors[rows],
                None if tokens is None else [tokens[row] for row in rows],
                [batch.about[row] for row in rows],
            )
    if index.settings.backend != "exact" and new:
        index.build(progress)
    index_folder.write(index, folder)
    return notes


def _left_as_they_are(index: Index, batch: Batch, rows: Iterable[int]) -> list[str]:
    """A line on each item whose id is another one's in the index, and a line on all the others together."""
    same, notes = [], []
    for row in rows:
        item, now, held = batch.ids[row], batch.about[row], index.about.get(batch.ids[row], {})
        other = [part for part in ("file", "text", "row") if part in held and held[part] != now.get(part)]
        if other:
            said = f"{other[0]} {held[other[0]]}"
            said = textwrap.shorten(said, 80, placeholder="…") if other[0] == "text" else said
            notes.append(f"{item}: in the index this is {said}; the new one is left out, --replace takes it instead")
        else:
            same.append(item)
    if same:
        several = f" and {len(same) - 1} more" if len(same) > 1 else ""
        notes.append(f"{same[0]}{several}: already in the index and left as it is; --replace updates it")
    return notes


def _settings(opened: Opened, side: str, backend: Backend, precision: Precision) -> Settings:
    trained = opened.trained
    return Settings(
        trained.hash,
        trained.towers.width,
        trained.score,
        trained.weight,
        backend,
        precision,
        origin={"run": str(opened.run.resolve()), "unit": opened.unit, "side": side},
    )


def _encoded(opened: Opened, items: str, side: str, text: str, progress: Progress | None) -> Batch:
    encoder = opened.trained.encoder(side)
    asked = asked_items(opened.experiment, items, side, encoder, text)
    return encode_side(asked.side, encoder, opened.reader(side).project, *asked[1:], progress)


class AskedItems(NamedTuple):
    """Items to be indexed, what is said of each, and a line on each that cannot be used."""

    side: Side
    about: list[dict[str, str]]
    notes: list[str]


def asked_items(experiment: RetrievalExperiment, items: str, side: str, encoder: Encoder, text: str) -> AskedItems:
    """Items by place, or of the run's own collection.

    Args:
        experiment: of the run
        items: a folder, a file, a table, or `collection` (`collection:test` for one split)
        side: left or right
        encoder: that reads them
        text: column of the texts, in a table

    Raises:
        DataError: no item can be used
        RunError: the collection has no items of that split
    """
    name, _, split = items.partition(":")
    if name != COLLECTION or Path(items).exists():
        found = source_of(items, encoder, text).read()
        return AskedItems(found.side, described(found.side, items), found.notes)
    pairs = experiment.collection()
    whole: Side = pairs.left if side == "left" else pairs.right
    rows = list(range(len(whole))) if not split else pairs.rows(split)[0 if side == "left" else 1]
    if not rows:
        raise RunError(f"{items}: the collection has no {side} items of split '{split}'; give train, val or test")
    return AskedItems(whole.take(rows), described_in(pairs, side, rows), [])
