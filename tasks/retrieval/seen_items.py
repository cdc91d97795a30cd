"""One item as the trained towers see it: its tokens in the shared space, what each is called and where it lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from data.errors import DataError
from data.pairs.items import Side
from data.pairs.sources import FileItems
from fusion.tokens import Tokens
from tasks.retrieval.late_interaction import Query
from tasks.retrieval.new_items import source_of
from tasks.retrieval.reader import Reader


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
        source: the encoder's own tokens, for a cross-encoder
    """

    id: str
    modality: str
    raw: Any
    x: Float[np.ndarray, "n d"]
    vector: Float[np.ndarray, " d"]
    labels: list[str]
    grid: Float[np.ndarray, "n 2"] | None = None
    about: dict[str, str] = field(default_factory=dict)
    source: Tokens | None = None

    @classmethod
    @torch.no_grad()
    def of(cls, reader: Reader, side: Side, row: int, about: dict[str, str] | None = None) -> Seen:
        """An item of a side as it stands in a space.

        Args:
            reader: of that side
            side: the items
            row: which of them
            about: what is said of it

        Raises:
            DataError: the encoder keeps no token of it
        """
        encoder, raw = reader.encoder, side.load([row])
        tokens = encoder(raw)
        keep = tokens.keep[0]
        if not keep.any():
            raise DataError(f"{side.ids[row]}: the encoder keeps no token of it; give another query")
        encoded = reader.project(tokens)
        grid = tokens.place.grid if reader.condition is None else None
        return cls(
            side.ids[row],
            encoder.modality,
            raw[0],
            encoded.x[0][encoded.keep[0]].float().cpu().numpy(),
            encoded.global_vector[0].float().cpu().numpy(),
            encoder.labels(raw)[0] if reader.condition is None else [reader.condition],
            None if grid is None else grid[0][keep].float().cpu().numpy(),
            about or {},
            Tokens.full(tokens.x[:1, keep]),
        )

    @property
    def query(self) -> Query:
        """The item as one that asks."""
        return Query(torch.from_numpy(self.vector), torch.from_numpy(self.x))

    @property
    def name(self) -> str:
        """The text itself, else the id."""
        return str(self.raw) if self.modality == "text" else self.id

    @property
    def title(self) -> str:
        """The name, a text in quotes."""
        return f"“{self.name}”" if self.modality == "text" else self.name


def seen_again(reader: Reader, item: str, about: dict[str, str]) -> Seen | None:
    """An item of an index once more, from its file, its text or the run's collection.

    Args:
        reader: of its side
        item: id
        about: what the index says of it

    Returns:
        None when it can no longer be read: its file has gone
    """
    try:
        if "row" in about:
            pairs = reader.experiment.collection()
            return Seen.of(reader, pairs.left if reader.which == "left" else pairs.right, int(about["row"]), about)
        if "text" in about:
            return Seen.of(reader, Side("text", [item], lambda rows: [about["text"] for _ in rows]), 0, about)
        source = source_of(about["file"], reader.encoder)
        found = source.read(None if isinstance(source, FileItems) else [item])
        return Seen.of(reader, found.side, 0, about)
    except (DataError, KeyError):
        return None
