"""Notes -> tokens, one per note: a small transformer over pitch, interval, length and place in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from data.errors import DataError
from encoders.encoder import Encoder
from fusion.block import Block, FeedForward
from fusion.operators.dense import Dense
from fusion.tokens import Place, Tokens

PERIODS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0)
"""Quarters after which a metre may repeat: half a beat to four bars."""
WIDEST = 24
LENGTHS = 17
NAMES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")


class MelodyTransformer(Encoder):
    """A transformer trained from scratch on the notes of one voice.

    A note is the sum of its pitch, its interval from the note before (up to two octaves), its length (17 steps from a
    64th to four whole notes) and, so that the metre can be heard, sine and cosine of its start for nine periods from an
    eighth to four bars. Pre-norm blocks; `place.time` holds the start in quarters.

    Args:
        width: of the tokens
        depth: blocks
        heads: of each block; must divide width
        tokens: longest melody in notes; what is beyond is cut
        pitch: False leaves the pitch itself out: the melody is then the same in every key
        dropout: in the blocks
    """

    modality: ClassVar[str] = "melody"
    periods: Tensor

    def __init__(
        self,
        width: int = 192,
        depth: int = 4,
        heads: int = 4,
        tokens: int = 128,
        pitch: bool = True,
        dropout: float = 0.1,
    ):
        super().__init__()
        if tokens < 1:
            raise ValueError(f"MelodyTransformer: tokens={tokens}; expected at least 1")
        self.width, self.tokens = width, tokens
        self.pitch = nn.Embedding(128, width) if pitch else None
        self.interval = nn.Embedding(2 * WIDEST + 1, width)
        self.length = nn.Embedding(LENGTHS, width)
        self.metre = nn.Linear(2 * len(PERIODS), width)
        self.place = nn.Parameter(torch.empty(tokens, width))
        for table in (self.pitch, self.interval, self.length):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)
        nn.init.normal_(self.place, std=0.02)
        self.register_buffer("periods", torch.tensor(PERIODS))
        self.blocks = nn.ModuleList(
            Block(width, Dense(width, heads), FeedForward(width, 4 * width, dropout), dropout=dropout)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, raw: Sequence[Float[np.ndarray, "_ 3"]]) -> Tokens:
        """Tokens of melodies.

        Args:
            raw: per melody MIDI pitch, start and length in quarters, `[n, 3]`

        Raises:
            DataError: a pitch that is none, or a time that is no number
        """
        notes = np.zeros((len(raw), max([1, *(min(len(own), self.tokens) for own in raw)]), 3), np.float32)
        keep = np.zeros(notes.shape[:2], bool)
        for row, own in enumerate(raw):
            part = own[: self.tokens]
            if not np.isfinite(part).all() or (part[:, 0] < 0).any() or (part[:, 0] > 127).any():
                raise DataError(f"MelodyTransformer: melody {row} has a pitch beyond 0 to 127 or a time that is none")
            notes[row, : len(part)] = part
            keep[row, : len(part)] = True
        known = torch.from_numpy(keep).to(self.device)
        pitch, start, length = torch.from_numpy(notes).to(self.device).unbind(dim=-1)
        x = self._sum(pitch.round().long(), start, length) + self.place[: known.shape[1]]
        steps = torch.arange(known.shape[1], device=self.device).expand_as(known)
        tokens = Tokens(x, known, Place(position=steps, time=start))
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.with_x(self.norm(tokens.x)).zeroed()

    def _sum(
        self, pitch: Int[Tensor, "b n"], start: Float[Tensor, "b n"], length: Float[Tensor, "b n"]
    ) -> Float[Tensor, "b n w"]:
        interval = pitch.diff(dim=1, prepend=pitch[:, :1]).clamp(-WIDEST, WIDEST) + WIDEST
        # Steps of half an octave of lengths, from a 64th (1/16 of a quarter).
        step = (2 * (length.clamp(min=1 / 16) * 16).log2()).round().long().clamp(0, LENGTHS - 1)
        phase = 2 * torch.pi * start[..., None] / self.periods
        x = self.interval(interval) + self.length(step) + self.metre(torch.cat([phase.sin(), phase.cos()], dim=-1))
        return x if self.pitch is None else x + self.pitch(pitch)

    def cut(self, raw: Sequence[Float[np.ndarray, "_ 3"]]) -> dict[int, str]:
        most = self.tokens
        return {
            row: f"melody of {len(own)} notes: the first {most} are read; cut: from quarter {own[most, 1]:g} on"
            for row, own in enumerate(raw)
            if len(own) > most
        }

    def labels(self, raw: Sequence[Float[np.ndarray, "_ 3"]]) -> list[list[str]]:
        """Name and octave of each note (middle C is C4)."""
        pitches = [own[: self.tokens, 0].round().astype(int).tolist() for own in raw]
        return [[f"{NAMES[p % 12]}{p // 12 - 1}" for p in own] for own in pitches]
