"""Music Transformer (Huang et al., ICLR 2019, arXiv 1809.04281): symbols in, logits of the next out, with a cache."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fusion.tokens import Place
from tasks.melody.models.decoder import DECODER, NOWHERE, Decoder, DecoderOptions, Memory


class MusicTransformer(nn.Module):
    """A decoder over symbols.

    Args:
        symbols: size of the vocabulary
        decoder: size and kind
        voices: > 1 = symbols come in turn from so many voices, and each says which (the paper's instrument label)
    """

    def __init__(self, symbols: int, decoder: DecoderOptions = DECODER, voices: int = 1):
        super().__init__()
        if symbols < 1 or voices < 1:
            raise ValueError(f"MusicTransformer: symbols={symbols}, voices={voices}; expected at least 1")
        self.embedding = nn.Embedding(symbols, decoder.width)
        self.voice = nn.Embedding(voices, decoder.width) if voices > 1 else None
        self.decoder = Decoder(decoder)
        self.head = nn.Linear(decoder.width, symbols)

    def forward(
        self, symbols: Int[Tensor, "b n"], keep: Bool[Tensor, "b n"] | None = None, place: Place = NOWHERE
    ) -> Float[Tensor, "b n v"]:
        """Logits of the symbol after each one.

        Args:
            symbols: numbers below the size of the vocabulary
            keep: which are real; None = all
            place: what the decoder's relations compare
        """
        return self.head(self.decoder(self._embedded(symbols, 0), keep, place))

    def step(
        self, symbols: Int[Tensor, "b n"], memory: Memory | None = None, place: Place = NOWHERE
    ) -> tuple[Float[Tensor, "b n v"], Memory]:
        """`forward`'s last rows: logits after the new symbols alone, reading those in memory."""
        x, memory = self.decoder.step(self._embedded(symbols, memory.length if memory else 0), memory, place)
        return self.head(x), memory

    @torch.inference_mode()
    def sample(
        self,
        primer: Int[Tensor, "b n"],
        length: int,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "b m"]:
        """Go on from a primer, one symbol at a time, with a cache; for decoders without relations.

        Args:
            primer: at least one symbol each
            length: symbols to add
            temperature: below 1 = likelier symbols
            generator: of the random numbers; None = torch's
        """
        symbols, memory = primer, None
        new = primer
        for _ in range(length):
            logits, memory = self.step(new, memory)
            share = (logits[:, -1] / temperature).softmax(dim=-1)
            new = torch.multinomial(share, 1, generator=generator)
            symbols = torch.cat([symbols, new], dim=1)
        return symbols

    def _embedded(self, symbols: Int[Tensor, "b n"], start: int) -> Float[Tensor, "b n w"]:
        x = self.embedding(symbols)
        if self.voice is not None:
            # Symbol 0 is the start: it stands where the last voice of the 16th before would.
            turn = torch.arange(start - 1, start - 1 + symbols.shape[1], device=symbols.device)
            x = (x + self.voice(turn % self.voice.num_embeddings)) * math.sqrt(0.5)
        return x
