"""Phrase boundaries on the published test songs of the Essen collection: every method in one table.

Ours is held against the project's own earlier measurement on the same songs by other code (Pearce et al. 2010
printed other songs and counted the end of each song as a boundary that everybody finds; both countings are told).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data.music.essen import Culture, EssenSongs
from data.music.melody import Melody
from data.music.segmentation.learned import fit_segmenter
from data.music.segmentation.programme import GROUPER, TUNED, Segmenter, Weights, programme
from data.music.segmentation.rules import always, at_rests, lbdm, never
from data.music.segmentation.scoring import agreement
from tasks.reproduce.rows import Row, at_least, close

BEFORE: dict[Culture, dict[str, float]] = {
    "han": {"LBDM": 0.538, "rests": 0.161, "always": 0.129, "programme": 0.69, "learned": 0.73, "cross": 0.611},
    "german": {"LBDM": 0.526, "rests": 0.399, "always": 0.187, "programme": 0.78, "learned": 0.87, "cross": 0.657},
}
"""Programme and learned: what must be reached. German rests, always and cross are of songs of the kern edition."""
LEARNED_ELSEWHERE: dict[Culture, float] = {"han": 0.604, "german": 0.469}
"""Trees of the other culture with fewer cues, on songs of the kern edition: ours may be better, hardly worse."""


def segmentation_rows(folder: Path) -> list[Row]:
    """F1 of interior boundaries, mean over songs; each note says precision, recall and the other counting.

    The segmenters are trained here, in about half a minute of one core.

    Args:
        folder: of the data set `music`
    """
    cultures: tuple[Culture, Culture] = ("han", "german")
    files = {own: str(folder / f"essen_{own}.json.xz") for own in cultures}
    books = {own: EssenSongs(own, wrapped="keep", notes=file).load() for own, file in files.items()}
    learned = {own: fit_segmenter(book.part("train"), book.part("valid")) for own, book in books.items()}
    rows: list[Row] = []
    for own, other in (cultures, cultures[::-1]):
        songs, said = books[own].part("test"), BEFORE[own]
        three_rules, whole = _programme(GROUPER[own]), _programme(TUNED[own])
        rows += [
            _close(own, "always", said["always"], 0.005, songs, always),
            _close(own, "never", 0.0, 0.0, songs, never),
            _close(own, "after every rest (GPR 2a)", said["rests"], 0.02, songs, at_rests),
            _close(own, "LBDM at .35", said["LBDM"], 0.02, songs, lbdm),
            _least(own, "gap, length and metre (Grouper's rules)", said["programme"], songs, three_rules),
            _least(own, "dynamic programme", said["programme"], songs, whole),
            _close(own, f"dynamic programme, {other} weights", said["cross"], 0.03, songs, _programme(TUNED[other])),
            _least(own, "boosted trees", said["learned"], songs, learned[own]),
            _least(own, f"boosted trees, {other} songs", LEARNED_ELSEWHERE[own], songs, learned[other], 0.05),
        ]
    return rows


def _programme(weights: Weights) -> Segmenter:
    return lambda melody: programme(melody, weights)


def _told(songs: Sequence[Melody], find: Segmenter) -> tuple[float, str]:
    pairs = [(find(song), song.interiors) for song in songs]
    own, ended = agreement(pairs), agreement(pairs, count_end=True)
    parts = f"precision {own.precision:.3f}, recall {own.recall:.3f}"
    return own.f1, f"{parts}; with the end counted {ended.f1:.3f}"


def _close(
    culture: Culture, name: str, before: float, tolerance: float, songs: Sequence[Melody], find: Segmenter
) -> Row:
    ours, note = _told(songs, find)
    return close(f"{culture}: {name}", before, ours, tolerance, note, kind="measured", n=len(songs), of="songs")


def _least(
    culture: Culture, name: str, before: float, songs: Sequence[Melody], find: Segmenter, tolerance: float = 0.0
) -> Row:
    ours, note = _told(songs, find)
    return at_least(f"{culture}: {name}", before, ours, tolerance, note, kind="measured", n=len(songs), of="songs")
