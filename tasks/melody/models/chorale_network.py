"""Four-voice chorales under one contract: logits of every symbol given all symbols before it, in the order S A T B.

`RasterNetwork` reads one symbol after another, as Music Transformer's paper does. `StepNetwork` is ours: a token holds
all voices of one or more 16ths, and small heads predict them one after another: the same likelihood at an eighth of the
length.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from data.music.chorales import VOICES
from fusion.dropout import Dropout
from fusion.tokens import Place
from tasks.melody.chorale_tokens import SILENCE, SYMBOLS
from tasks.melody.models.decoder import DECODER, Decoder, DecoderOptions, relations_of
from tasks.melody.models.music_transformer import MusicTransformer

START = SYMBOLS
"""Stands before the first 16th."""
Draw = Callable[[Float[Tensor, "b v"]], Int[Tensor, " b"]]
"""Chooses a symbol for each piece by its logits."""
PERIODS = (2.0, 4.0, 8.0, 16.0, 32.0)
"""16ths after which a metre may repeat: an eighth to two bars."""


class ChoraleNetwork(nn.Module, ABC):
    """What every network of chorales does."""

    @abstractmethod
    def forward(self, symbols: Int[Tensor, "b n 4"], keep: Bool[Tensor, "b n"]) -> Float[Tensor, "b n 4 v"]:
        """Logits of each symbol, given those before it in the order S1 A1 T1 B1 S2 ...; 47 symbols.

        Args:
            symbols: as in `ChoraleBatch`; what stands at padding reaches no real symbol
            keep: which 16ths are real; padding stands at the end
        """

    @abstractmethod
    def sample(self, steps: int, draw: Draw, pieces: int = 1) -> Int[Tensor, "b n 4"]:
        """New pieces from their first 16th on, one symbol after another, with a cache.

        Args:
            steps: 16ths, at least 1
            draw: chooses symbols
            pieces: how many
        """


class RasterNetwork(ChoraleNetwork):
    """One token per voice and 16th, its voice said beside its pitch (Music Transformer on chorales).

    Relations: `time` compares 16ths, `grid` 16ths and pitches (the paper's pitch and time, one table each).

    Args:
        decoder: size and kind
    """

    def __init__(self, decoder: DecoderOptions = DECODER):
        super().__init__()
        self.transformer = MusicTransformer(START + 1, decoder, voices=len(VOICES))

    def forward(self, symbols: Int[Tensor, "b n 4"], keep: Bool[Tensor, "b n"]) -> Float[Tensor, "b n 4 v"]:
        b, n, voices = symbols.shape
        line = symbols.reshape(b, n * voices)
        read = F.pad(line[:, :-1], (1, 0), value=START)
        logits = self.transformer(read, keep.repeat_interleave(voices, dim=1), self._place(read, 0))
        return logits[..., :SYMBOLS].view(b, n, voices, SYMBOLS)

    @torch.inference_mode()
    def sample(self, steps: int, draw: Draw, pieces: int = 1) -> Int[Tensor, "b n 4"]:
        read, memory, line = torch.full((pieces, 1), START), None, []
        for at in range(steps * len(VOICES)):
            logits, memory = self.transformer.step(read, memory, self._place(read, at))
            read = draw(logits[:, 0, :SYMBOLS])[:, None]
            line.append(read)
        return torch.cat(line, dim=1).unflatten(1, (steps, len(VOICES)))

    def _place(self, read: Int[Tensor, "b n"], start: int) -> Place:
        at = torch.arange(start - 1, start - 1 + read.shape[1], device=read.device)
        time = at.div(len(VOICES), rounding_mode="floor").expand_as(read)
        grid = torch.stack([time, read], dim=-1).float()
        return relations_of(self.transformer.decoder.options, {"time": time.float(), "grid": grid})


class StepNetwork(ChoraleNetwork):
    """One token per `patch` 16ths, voices and 16ths of a patch predicted one after another by a head each.

    A token is the sum of the symbols of the patch before and, with `metre`, of the place in the metre (sine and cosine
    for periods of an eighth to two bars; not in the paper). A head reads the token, the symbols of the patch so far and
    its voice's last symbol, and gives logits of pitches and of intervals from that last symbol, which are added.
    Relations: `time` compares patches, `grid` the soprano and the bass that were read last.

    Args:
        decoder: size and kind
        patch: 16ths per token
        hidden: of the heads
        metre: whether tokens say their place in the metre
    """

    periods: Tensor
    pitches: Tensor

    def __init__(self, decoder: DecoderOptions = DECODER, patch: int = 2, hidden: int = 512, metre: bool = True):
        super().__init__()
        if patch < 1 or hidden < 1:
            raise ValueError(f"StepNetwork: patch={patch}, hidden={hidden}; expected at least 1")
        self.decoder, self.patch = Decoder(decoder), patch
        self.slots = slots = len(VOICES) * patch
        width = decoder.width
        self.symbol = nn.ModuleList(nn.Embedding(START + 1, width) for _ in range(slots))
        self.metre = nn.Linear(2 * len(PERIODS), width) if metre else None
        self.so_far = nn.ModuleList(nn.Embedding(SYMBOLS, width) for _ in range(slots - 1))
        self.last = nn.ModuleList(nn.Embedding(START + 1, width) for _ in range(slots))
        for tables in (self.symbol, self.so_far, self.last):
            for table in tables:
                nn.init.normal_(table.weight, std=1 / math.sqrt(slots))  # type: ignore[arg-type]
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, hidden),
                nn.GELU(),
                Dropout(decoder.dropout),
                nn.Linear(hidden, SYMBOLS + 2 * SILENCE - 1),
            )
            for _ in range(slots)
        )
        self.register_buffer("periods", torch.tensor(PERIODS))
        self.register_buffer("pitches", torch.arange(SILENCE))

    def forward(self, symbols: Int[Tensor, "b n 4"], keep: Bool[Tensor, "b n"]) -> Float[Tensor, "b n 4 v"]:
        length = symbols.shape[1]
        missing = -length % self.patch
        keep = F.pad(keep, (0, missing)).unflatten(1, (-1, self.patch)).any(dim=-1)
        now = F.pad(symbols, (0, 0, 0, missing)).unflatten(1, (-1, self.patch)).flatten(2)
        before = F.pad(now[:, :-1], (0, 0, 1, 0), value=START)
        state = self.decoder(self._token(before), keep, self._place(before))
        logits = self._heads(state, now, before)
        return logits.unflatten(2, (self.patch, len(VOICES))).flatten(1, 2)[:, :length]

    @torch.inference_mode()
    def sample(self, steps: int, draw: Draw, pieces: int = 1) -> Int[Tensor, "b n 4"]:
        before, memory, made = torch.full((pieces, 1, self.slots), START), None, []
        for at in range(-(-steps // self.patch)):
            state, memory = self.decoder.step(self._token(before, at), memory, self._place(before, at))
            known = [before[:, :, slot] for slot in range(self.slots - len(VOICES), self.slots)]
            for slot in range(self.slots):
                if slot:
                    state = state + self.so_far[slot - 1](known[-1])
                known.append(draw(self.slot_logits(slot, state, known[slot])[:, 0])[:, None])
            before = torch.stack(known[len(VOICES) :], dim=-1)
            made.append(before)
        return torch.cat(made, dim=1).unflatten(2, (self.patch, len(VOICES))).flatten(1, 2)[:, :steps]

    def _token(self, before: Int[Tensor, "b n s"], start: int = 0) -> Float[Tensor, "b n w"]:
        token = sum(table(before[..., slot]) for slot, table in enumerate(self.symbol))
        if self.metre is not None:
            at = torch.arange(start, start + before.shape[1], device=before.device) * self.patch
            angle = 2 * torch.pi * at[:, None] / self.periods
            token = token + self.metre(torch.cat([angle.sin(), angle.cos()], dim=-1))
        return token

    def _place(self, before: Int[Tensor, "b n s"], start: int = 0) -> Place:
        time = torch.arange(start, start + before.shape[1], device=before.device).expand(before.shape[:2])
        grid = before[..., [-len(VOICES), -1]].float()
        return relations_of(self.decoder.options, {"time": time.float(), "grid": grid})

    def _heads(
        self, state: Float[Tensor, "b n w"], now: Int[Tensor, "b n s"], before: Int[Tensor, "b n s"]
    ) -> Float[Tensor, "b n s v"]:
        known = torch.cat([before[..., -len(VOICES) :], now], dim=-1)
        logits = []
        for slot in range(self.slots):
            if slot:
                state = state + self.so_far[slot - 1](now[..., slot - 1])
            logits.append(self.slot_logits(slot, state, known[..., slot]))
        return torch.stack(logits, dim=2)

    def slot_logits(self, slot: int, state: Float[Tensor, "b n w"], last: Int[Tensor, "b n"]) -> Float[Tensor, "b n v"]:
        """Logits of one place in the patch.

        Args:
            slot: voice and 16th within the patch
            state: the token's, with the patch's symbols so far
            last: the voice's symbol one 16th before
        """
        both = self.heads[slot](state + self.last[slot](last)).float()
        absolute, intervals = both.split([SYMBOLS, 2 * SILENCE - 1], dim=-1)
        away = (self.pitches - last[..., None] + SILENCE - 1).clamp(0, 2 * SILENCE - 2)
        by_interval = intervals.gather(-1, away) * (last < SILENCE)[..., None]
        return absolute + F.pad(by_interval, (0, 1))
