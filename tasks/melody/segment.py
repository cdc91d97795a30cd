"""Phrases of melody files by a chosen method, and a trained segmenter kept beside the data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from data.errors import DataError
from data.music.book import SongSource
from data.music.essen import Culture, EssenSongs
from data.music.files import melody_files, read_each
from data.music.melody import Melody
from data.music.segmentation.learned import LearnedSegmenter, fit_segmenter
from data.music.segmentation.programme import TUNED, Segmenter, programme, with_phrases
from data.music.segmentation.rules import at_rests, lbdm
from data.music.segmentation.scoring import agreement
from data.music.song_files import as_json
from data.sources import data_home
from tasks.experiment.console import progress, say

Method = Literal["programme", "learned", "lbdm", "rests"]


@dataclass(frozen=True)
class Read:
    """A melody of a file, or why there is none.

    Attributes:
        path: of the file
        melody: None = it is refused
        fault: one line on why
    """

    path: Path
    melody: Melody | None
    fault: str = ""


def read_all(places: Iterable[str | Path], track: str | None = None) -> Iterator[Read]:
    """Every melody of files and folders; a file or tune that cannot be read is told, and the others go on.

    Raises:
        DataError: a place is missing, or a folder holds no melody file
    """
    for path in melody_files(places):
        for melody in read_each(path, track):
            if isinstance(melody, DataError):
                yield Read(path, None, " ".join(str(melody).split()))
            else:
                yield Read(path, melody)


def segmenter_of(method: Method, culture: Culture = "han", model: Path | None = None) -> Segmenter:
    """A function from a melody to its phrase boundaries.

    Args:
        method: programme (the dynamic programme), learned, lbdm, or rests
        culture: whose tuned weights or trained trees
        model: of `learned`: a file that `train_segmenter` wrote; None = trained once on that culture's Essen songs

    Raises:
        DataError: there is nothing to train on
    """
    if method not in get_args(Method):
        raise DataError(f"method {method!r}: expected one of {', '.join(get_args(Method))}")
    if culture not in get_args(Culture):
        raise DataError(f"culture {culture!r}: expected one of {', '.join(get_args(Culture))}")
    if model is not None and method != "learned":
        raise DataError(f"{model}: a trained segmenter goes with --method learned, not {method}")
    if method == "learned":
        return LearnedSegmenter.load(model) if model else _kept(culture)
    if method == "programme":
        return partial(programme, weights=TUNED[culture])
    return lbdm if method == "lbdm" else at_rests


def train_segmenter(songs: SongSource, path: Path) -> LearnedSegmenter:
    """Train on a collection's training part, choose on its validation part, and keep the result.

    Args:
        songs: with marked phrases
        path: of the .npz file
    """
    book = songs.load()
    found = fit_segmenter(book.part("train"), book.part("valid"))
    _keep(found, path)
    return found


def _kept(culture: Culture) -> LearnedSegmenter:
    """The segmenter of a culture, kept in the data folder; where that cannot be written, trained again each time."""
    path = data_home() / "segmenters" / f"{culture}.npz"
    if path.is_file():
        return LearnedSegmenter.load(path)
    book = EssenSongs(culture, wrapped="keep").load()
    progress(f"training a segmenter on {len(book.part('train'))} {culture} songs, which takes half a minute")
    found = fit_segmenter(book.part("train"), book.part("valid"))
    try:
        _keep(found, path)
    except OSError as problem:
        say(f"{path}: cannot be kept ({problem.strerror}), so the next time trains again; set FUSION_DATA to a "
            "folder that can be written")  # fmt: skip
    else:
        progress(f"kept as {path}")
    return found


def _keep(segmenter: LearnedSegmenter, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    segmenter.save(partial_file)
    partial_file.replace(path)


def segmented(read: Read, segmenter: Segmenter) -> tuple[Melody, dict[str, Any]]:
    """A melody with the phrases that were found, and a row that describes them.

    `f1` compares with phrases that the file marks: interior boundaries; None where it marks none.
    """
    melody = cast(Melody, read.melody)
    boundaries = segmenter(melody)
    found = with_phrases(melody, boundaries)
    lengths = np.bincount(cast(np.ndarray, found.phrase))
    begins = np.r_[0, np.flatnonzero(boundaries) + 1]
    row: dict[str, Any] = {
        "file": str(read.path),
        "melody": melody.name,
        "notes": len(melody),
        "phrases": len(lengths),
        "lengths": "+".join(map(str, lengths.tolist())),
        "bars": ",".join(str(bar + 1) for bar in melody.bar_of[begins].tolist()),
        "f1": None,
    }
    if melody.phrase is not None and melody.interiors.any():
        row["f1"] = round(agreement([(boundaries, melody.interiors)]).f1, 3)
    return found, row


def marked_json(melody: Melody, skeleton: np.ndarray | None = None) -> dict[str, Any]:
    """A melody as the JSON files hold it, with its skeleton as 0 and 1 per note."""
    row = as_json(melody)
    if skeleton is not None:
        row["skeleton"] = skeleton.astype(int).tolist()
    return row
