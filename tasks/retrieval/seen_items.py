"""One item as the trained towers see it: its tokens in the shared space, what each is called and where it lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from data.errors import DataError
from data.pairs.items import Side
from tasks.retrieval.build_index import Opened
from tasks.retrieval.late_interaction import Query
from tasks.retrieval.new_items import source_of


@dataclass(frozen=True)
class Seen:
    """An item and its tokens, padding left out.

    Attributes:
        id: of the item
        modality: image, text, melody, ...
        raw: a picture `[3, y, x]`, a text, notes, or whatever else the encoder takes
        x: unit tokens
        vector: unit vector of the whole item
        labels: what each token is called
        grid: column and row of each token, of pictures only
        about: file or text, licence, attribution
    """

    id: str
    modality: str
    raw: Any
    x: Float[np.ndarray, "n d"]
    vector: Float[np.ndarray, " d"]
    labels: list[str]
    grid: Float[np.ndarray, "n 2"] | None = None
    about: dict[str, str] = field(default_factory=dict)

    @classmethod
    @torch.no_grad()
    def of(cls, opened: Opened, which: str, side: Side, row: int, about: dict[str, str] | None = None) -> Seen:
        """An item of a side through its tower.

        Args:
            opened: whose towers
            which: left or right
            side: the items
            row: which of them
            about: what is said of it

        Raises:
            DataError: the encoder keeps no token of it
        """
        towers, encoder = opened.trained.towers, opened.trained.encoder(which)
        raw = side.load([row])
        tokens = encoder(raw)
        keep = tokens.keep[0]
        if not keep.any():
            raise DataError(f"{side.ids[row]}: the encoder keeps no token of it; give another query")
        encoded = (towers.project_left if which == "left" else towers.project_right)(tokens)
        grid = tokens.place.grid
        return cls(
            side.ids[row],
            encoder.modality,
            raw[0],
            encoded.x[0][keep].float().cpu().numpy(),
            encoded.global_vector[0].float().cpu().numpy(),
            encoder.labels(raw)[0],
            None if grid is None else grid[0][keep].float().cpu().numpy(),
            about or {},
        )

    @property
    def query(self) -> Query:
        """The item as one that asks."""
        return Query(torch.from_numpy(self.vector), torch.from_numpy(self.x))

    @property
    def title(self) -> str:
        """The text itself, else the name."""
        return f"“{self.raw}”" if self.modality == "text" else self.id


def seen_again(opened: Opened, which: str, item: str, about: dict[str, str]) -> Seen | None:
    """An item of an index through its tower once more, from its file, its text or the run's collection.

    Args:
        opened: whose towers
        which: left or right
        item: id
        about: what the index says of it

    Returns:
        None when it can no longer be read: its file has gone
    """
    try:
        if "row" in about:
            pairs = opened.experiment.pairs.load()
            return Seen.of(opened, which, pairs.left if which == "left" else pairs.right, int(about["row"]), about)
        if "text" in about:
            return Seen.of(opened, which, Side("text", [item], lambda rows: [about["text"] for _ in rows]), 0, about)
        found = source_of(about["file"], opened.trained.encoder(which)).read()
        return Seen.of(opened, which, found.side, 0, about)
    except (DataError, KeyError):
        return None
