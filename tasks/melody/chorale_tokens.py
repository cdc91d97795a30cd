"""Chorales as symbols: 46 pitches and silence, four voices a 16th, read in the order S1 A1 T1 B1 S2 ..."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from data.errors import DataError
from data.music.chorales import SILENT, VOICES, Chorale

LOWEST, HIGHEST = 36, 81
SILENCE = HIGHEST - LOWEST + 1
SYMBOLS = SILENCE + 1
QUARTER = 4
"""16ths."""
Piece = Int[Tensor, "_ 4"]


@dataclass(frozen=True)
class ChoraleBatch:
    """Pieces side by side, the short ones padded at the end.

    Attributes:
        symbols: `[b, n, 4]`, 0 to 46; anything at padding
        keep: which 16ths are real, `[b, n]`
    """

    symbols: Int[Tensor, "b n 4"]
    keep: Bool[Tensor, "b n"]

    def to(self, device: torch.device) -> ChoraleBatch:
        return ChoraleBatch(self.symbols.to(device), self.keep.to(device))


def symbols_of(chorale: Chorale) -> Piece:
    """Symbols of a chorale.

    Raises:
        DataError: a pitch outside 36 to 81, or no 16th at all
    """
    sounding = chorale[chorale != SILENT]
    if not len(chorale) or ((sounding < LOWEST) | (sounding > HIGHEST)).any():
        found = f"pitches {sounding.min()} to {sounding.max()}" if len(sounding) else "no sounding 16th"
        raise DataError(
            f"chorale: {found}; the symbols are pitches {LOWEST} to {HIGHEST} and silence: transpose or drop it"
        )
    return torch.from_numpy(np.where(chorale == SILENT, SILENCE, chorale.astype(np.int64) - LOWEST))


def chorale_of(piece: Piece) -> Chorale:
    """The way back from symbols."""
    symbols = piece.cpu().numpy()
    return np.where(symbols == SILENCE, SILENT, symbols + LOWEST).astype(np.int8)


def batch_of(pieces: Sequence[Piece]) -> ChoraleBatch:
    """Pieces side by side."""
    longest = max(len(piece) for piece in pieces)
    symbols = torch.zeros(len(pieces), longest, len(VOICES), dtype=torch.long)
    keep = torch.zeros(len(pieces), longest, dtype=torch.bool)
    for row, piece in enumerate(pieces):
        symbols[row, : len(piece)] = piece
        keep[row, : len(piece)] = True
    return ChoraleBatch(symbols, keep)


def in_batches(pieces: Sequence[Piece], batch: int) -> Iterator[tuple[list[int], ChoraleBatch]]:
    """Pieces by length, so that little is padding, with their places in the list."""
    order = sorted(range(len(pieces)), key=lambda row: len(pieces[row]))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        yield rows, batch_of([pieces[row] for row in rows])


def shifted(batch: ChoraleBatch, most: int) -> ChoraleBatch:
    """Each piece transposed by a random number of semitones, at most `most`, that leaves it within the symbols.

    Numbers come from torch's generator.
    """
    sounding = (batch.symbols != SILENCE) & batch.keep[..., None]
    top = batch.symbols.where(sounding, 0).amax(dim=(1, 2))
    low = batch.symbols.where(sounding, SILENCE).amin(dim=(1, 2))
    down, up = low.clamp(max=most), (SILENCE - 1 - top).clamp(max=most)
    by = (torch.rand(len(top), device=top.device) * (down + up + 1)).long() - down
    return ChoraleBatch(torch.where(sounding, batch.symbols + by[:, None, None], batch.symbols), batch.keep)


def pieces_of(music: object, part: str) -> list[Piece]:
    """Symbols of every chorale of a part.

    Raises:
        DataError: the music has none, or a pitch is beyond the symbols
    """
    if not isinstance(music, Mapping):
        raise DataError("this model learns from chorales, and this music has none; take music: {class_path: Chorales}")
    if not music.get(part):
        raise DataError(f"chorales: none in the part {part}; the model needs train, valid and test")
    return [symbols_of(chorale) for chorale in music[part]]
