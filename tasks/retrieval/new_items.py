"""Items that were not part of a run's collection: files, folders, arrays, tables, texts, read for one of its towers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.errors import DataError
from data.pairs.arrays import Genes, SlideFeatures, Vectors
from data.pairs.items import Pairs, Side
from data.pairs.melodies import MELODIES
from data.pairs.pictures import PICTURES
from data.pairs.sources import Found, ItemSource, MelodyFiles, PictureFiles, Texts, says_nothing
from data.pairs.tables import TABLES
from data.sources import resolve
from encoders.encoder import Encoder
from fusion.tokens import Tokens
from tasks.retrieval.exact_search import Progress
from tasks.retrieval.scores import faults
from tasks.retrieval.two_towers import Encoded, joined

BATCH = 64
FILES: dict[str, frozenset[str]] = {
    "image": PICTURES,
    "melody": MELODIES,
    "vectors": frozenset({".npy", ".npz"}),
    "fmri": frozenset({".npy", ".npz"}),
    "slide": frozenset({".h5", ".pt"}),
    "genes": TABLES,
}
"""How the files of a modality end that can ask."""
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
        place: a folder, a file, an array or a table
        encoder: of the side that the items belong to
        text: column of the texts, in a table

    Raises:
        DataError: these are texts, and the encoder reads files
    """
    modality = encoder.modality
    if modality in ("image", "melody") and Path(place).suffix.lower() in {*TABLES, ".txt"}:
        raise DataError(
            f"{place}: texts, but this tower reads {modality}; choose the tower that reads text with --side, "
            "or give a folder of files"
        )
    if modality == "image":
        return PictureFiles(place, side=int(getattr(encoder, "side", None) or PIXELS))
    sources: dict[str, Callable[[], ItemSource]] = {
        "melody": lambda: MelodyFiles(place),
        "text": lambda: Texts(place, text),
        "vectors": lambda: Vectors(place),
        "fmri": lambda: Vectors(place, modality="fmri"),
        "genes": lambda: Genes(place),
        "slide": lambda: SlideFeatures(place),
    }
    if modality not in sources:
        raise DataError(
            f"{place}: items of modality {modality} are not read from files; put them into the run's collection and "
            "index that with `retrieval index RUN`"
        )
    return sources[modality]()


def query_of(query: str, encoders: Mapping[str, Encoder], side: str | None = None) -> tuple[str, Found]:
    """What a query on the command line is, and which tower reads it: a text, or a file of whatever a tower reads.

    Args:
        query: path of a file, or a text; an array or a table of genes asks with each of its rows
        encoders: by side
        side: left or right; None = the tower whose modality it has

    Raises:
        DataError: no tower reads such a query, or its file cannot be used
    """
    suffix = Path(query).suffix.lower()
    sides = {name: encoders[name].modality for name in (encoders if side is None else [side])}
    kinds = [modality for modality, suffixes in FILES.items() if suffix in suffixes]
    reading = [name for name, modality in sides.items() if modality in kinds]
    if reading:
        return reading[0], source_of(query, encoders[reading[0]]).read()
    table = suffix in TABLES
    reading = [name for name, modality in sides.items() if modality == "text" and (table or not kinds)]
    if not reading:
        known = " and ".join(sides.values())
        kind = "text" if table or not kinds else kinds[0]
        raise DataError(f"{query}: reads as {kind}, but this run was trained on {known}; ask with one of these")
    words = " ".join(query.split())
    if says_nothing(words):
        raise DataError("the query is empty; give a text, or a file of what the run was trained on")
    notes = [f"{query}: asked as these words; the file or folder of this name is not read"] if _there(query) else []
    return reading[0], Found(Side("text", [words], lambda rows: [words for _ in rows]), notes)


def _there(query: str) -> bool:
    try:
        return Path(query).exists()
    except OSError:  # longer than a name may be
        return False


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
    """What is said of items that come from files: the text, or the file that holds the item."""
    if side.name == "text":
        return [{"text": str(text)} for text in side.load(range(len(side)))]
    found = resolve(place).resolve()
    if side.name not in ("image", "melody"):
        return [{"file": str(found)} for _ in side.ids]
    root = found.parent if found.is_file() else found
    return [{"file": str(root / item)} for item in side.ids]


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
