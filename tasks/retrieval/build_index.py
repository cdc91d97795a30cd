"""`retrieval index`: a run's collection, or items from files, through one of its towers into an index folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.pairs.items import Side
from tasks.experiment.folder import RunError
from tasks.retrieval import index_folder
from tasks.retrieval.exact_search import Progress
from tasks.retrieval.experiment import RetrievalExperiment, experiment_of_run
from tasks.retrieval.index import Backend, Index, Settings
from tasks.retrieval.new_items import Batch, arrays_of, described, described_in, encode_side, source_of
from tasks.retrieval.results import Results, read
from tasks.retrieval.stored_items import Precision
from tasks.retrieval.trained import Trained

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
        units = [unit for unit in results.done if unit.rsplit("/", 1)[0] == wanted]
        units = [unit for unit in units if seed is None or unit.endswith(f"-seed{seed}")]
        if not units:
            which = "" if seed is None else f" with seed {seed}"
            raise RunError(f"{run}: no finished training of '{wanted}'{which}; train it with --resume")
        return cls(run, units[0], experiment, Trained.load(run / units[0], experiment, wanted))

    @property
    def arm(self) -> str:
        return self.unit.rsplit("/", 1)[0]


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
    """
    trained = opened.trained
    exists = (folder / index_folder.MANIFEST).is_file()
    index = index_folder.load(folder) if exists else Index(_settings(opened, side, backend, precision))
    if index.settings.encoder != trained.hash:
        raise DataError(
            f"{folder}: made by encoder {index.settings.encoder}, this run's is {trained.hash}; give another folder"
        )
    if index.settings.origin["side"] != side:
        raise DataError(f"{folder}: holds {index.settings.origin['side']} items; add these to an index of their own")
    batch = _encoded(opened, items, side, text, progress)
    notes = list(batch.notes)
    vectors, tokens = arrays_of(batch.encoded, index.settings.with_tokens)
    known = np.array([item in index.items for item in batch.ids], bool)
    for rows, there in ((np.flatnonzero(~known), False), (np.flatnonzero(known), True)):
        if there and not replace:
            notes += [f"{batch.ids[row]}: already in the index and left as it is; --replace updates it" for row in rows]
        elif len(rows):
            (index.update if there else index.add)(
                [batch.ids[row] for row in rows],
                vectors[rows],
                None if tokens is None else [tokens[row] for row in rows],
                [batch.about[row] for row in rows],
            )
    if backend != "exact" and not exists:
        index.build(progress)
    index_folder.save(index, folder)
    return index, notes


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
    trained = opened.trained
    name, _, split = items.partition(":")
    if name != COLLECTION or Path(items).exists():
        found = source_of(items, trained.encoder(side), text).read()
        return encode_side(found.side, trained, side, described(found.side, items), found.notes, progress)
    pairs = opened.experiment.pairs.load()
    whole: Side = pairs.left if side == "left" else pairs.right
    rows = list(range(len(whole))) if not split else pairs.rows(split)[0 if side == "left" else 1]
    if not rows:
        raise RunError(f"{items}: the collection has no {side} items of split '{split}'; give train, val or test")
    return encode_side(whole.take(rows), trained, side, described_in(pairs, side, rows), (), progress)
