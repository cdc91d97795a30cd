"""Items that were not part of a run's collection: files, folders, tables and texts, read for one of its towers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.errors import DataError
from data.pairs.items import Pairs, Side
from data.pairs.melodies import MELODIES
from data.pairs.pictures import PICTURES
from data.pairs.sources import Found, ItemSource, MelodyFiles, PictureFiles, Texts
from data.pairs.tables import TABLES
from encoders.encoder import Encoder
from fusion.tokens import Tokens
from tasks.retrieval.exact_search import Progress
from tasks.retrieval.scores import faults
from tasks.retrieval.two_towers import Encoded, joined

BATCH = 64
PIXELS = 224
"""Size at which a picture is read for an encoder that does not say its own."""


@dataclass(frozen=True)
class Batch:
    """Encoded items of one side, those that could be used.

    Attributes:
        ids: of the items
        encoded: in the shared space, on the CPU
        about: what is said of each: file or text, licence, attribution
        notes: one line on each item that was left out or of which only a part was read
    """

    ids: list[str]
    encoded: Encoded
    about: list[dict[str, str]]
    notes: list[str] = field(default_factory=list)


def source_of(place: str, encoder: Encoder, text: str = "caption") -> ItemSource:
    """How items at a place are read for an encoder.

    Args:
        place: a folder, a file or a table
        encoder: of the side that the items belong to
        text: column of the texts, in a table

    Raises:
        DataError: items of this modality cannot be read from files, or these are texts
    """
    if encoder.modality in ("image", "melody") and Path(place).suffix.lower() in {*TABLES, ".txt"}:
        raise DataError(
            f"{place}: texts, but this tower reads {encoder.modality}; choose the tower that reads text with --side, "
            "or give a folder of files"
        )
    if encoder.modality == "image":
        return PictureFiles(place, side=int(getattr(encoder, "side", None) or PIXELS))
    if encoder.modality == "melody":
        return MelodyFiles(place)
    if encoder.modality == "text":
        return Texts(place, text)
    raise DataError(
        f"{place}: items of modality {encoder.modality} are not read from single files; put them into the run's "
        "collection and index that with `retrieval index RUN`"
    )


def query_of(query: str, encoders: Mapping[str, Encoder], side: str | None = None) -> tuple[str, Found]:
    """What a query on the command line is: a picture, a melody or a text, and which tower reads it.

    Args:
        query: path of a file, or a text
        encoders: by side
        side: left or right; None = the tower whose modality it has

    Raises:
        DataError: no tower reads such a query, or its file cannot be used
    """
    suffix = Path(query).suffix.lower()
    modality = "image" if suffix in PICTURES else "melody" if suffix in MELODIES else "text"
    sides = list(encoders) if side is None else [side]
    reading = [name for name in sides if encoders[name].modality == modality]
    if not reading:
        known = " and ".join(encoders[name].modality for name in sides)
        raise DataError(f"{query}: reads as {modality}, but this run was trained on {known}; ask with one of these")
    if modality != "text":
        return reading[0], source_of(query, encoders[reading[0]]).read()
    words = " ".join(query.split())
    if not words:
        raise DataError("the query is empty; give a text, a picture or a MIDI file")
    return reading[0], Found(Side("text", [words], lambda rows: [words for _ in rows]))


@torch.no_grad()
def encode_side(
    side: Side,
    encoder: Encoder,
    project: Callable[[Tokens], Encoded],
    about: Sequence[dict[str, str]] | None = None,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Batch:
    """Items through their tower; one that cannot be used is noted, and the rest goes on.

    Args:
        side: the items
        encoder: of that side
        project: its tokens -> items in the space of the index
        about: what is said of each item; None = nothing
        notes: what is to be said before
        progress: told after every batch

    Raises:
        DataError: no item can be used
    """
    kept: list[int] = []
    parts: list[Encoded] = []
    said = list(notes)
    for start in range(0, len(side), BATCH):
        rows = list(range(start, min(start + BATCH, len(side))))
        raw = side.load(rows)
        said += [f"{side.ids[rows[at]]}: {line}" for at, line in encoder.cut(raw).items()]
        tokens = encoder(raw)
        there = tokens.present
        said += [
            f"{side.ids[rows[at]]}: the encoder keeps no token of it; left out"
            for at in (~there).nonzero().flatten().tolist()
        ]
        at = there.nonzero().flatten()
        if len(at):
            found = project(Tokens(tokens.x[at], tokens.keep[at])).to(torch.device("cpu"))
            wrong = faults(found)
            said += [f"{side.ids[rows[int(at[row])]]}: {why}; left out" for row, why in wrong.items()]
            fit = [row for row in range(len(at)) if row not in wrong]
            if fit:
                parts.append(found[torch.tensor(fit)])
                kept += [rows[int(at[row])] for row in fit]
        if progress is not None:
            progress(rows[-1] + 1, len(side))
    if not kept:
        raise DataError(f"no {side.name} can be used{f': {said[-1]}' if said else ''}")
    all_about = list(about) if about is not None else [{} for _ in range(len(side))]
    return Batch([side.ids[row] for row in kept], joined(parts), [all_about[row] for row in kept], said)


def described(side: Side, place: str) -> list[dict[str, str]]:
    """What is said of items that come from files: the file, or the text."""
    if side.name == "text":
        return [{"text": str(text)} for text in side.load(range(len(side)))]
    root = Path(place)
    root = root.parent if root.is_file() else root
    return [{"file": str((root / item).resolve())} for item in side.ids]


def described_in(pairs: Pairs, which: str, rows: Sequence[int]) -> list[dict[str, str]]:
    """What is said of items of a run's collection: text where it is one, licence and attribution where stated."""
    side, table = (pairs.left, pairs.table) if which == "left" else (pairs.right, pairs.right_table)
    texts = side.load(rows) if side.name == "text" else [None] * len(rows)
    found = []
    for row, text in zip(rows, texts, strict=True):
        said = {"row": str(row)} | ({} if text is None else {"text": str(text)})
        for column in ("attribution", "licence"):
            if column in table and isinstance(value := table[column].iloc[row], str):
                said[column] = value
        found.append(said)
    return found


def arrays_of(encoded: Encoded, with_tokens: bool) -> tuple[np.ndarray, list[np.ndarray] | None]:
    """Vectors and token vectors as an index takes them."""
    vectors = encoded.global_vector.float().numpy()
    if not with_tokens:
        return vectors, None
    own: list[Any] = [x[keep].float().numpy() for x, keep in zip(encoded.x, encoded.keep, strict=True)]
    return vectors, own
