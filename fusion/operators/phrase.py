"""Phrase-masked cross attention: read one's own phrase closely, all phrases from afar (small-tunes-transformer).

micro_t = Attn(h_t, {s_m : |q(m) - p(t)| <= reach});   u_p = pooling of phrase p by a learned query
macro_t = Attn(h_t, {u_1 .. u_P}) with a bias of p(t) - p;   out_t = micro_t + sigmoid(W [h_t; macro_t]) * macro_t
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fusion.attention import Ability, AttentionOp, MultiHead, Read
from fusion.merge import merge
from fusion.tokens import Place, Tokens
from fusion.weights import exact_weights
from kernels.attention import Attended


def phrase_ids(reader: AttentionOp, tokens: Tokens, side: str) -> Int[Tensor, "b n"]:
    """The phrase of each token, or an error that says how to give it."""
    if tokens.place.segment is None:
        raise ValueError(
            f"{type(reader).__name__}: the {side} tokens have no place.segment; expected the phrase of each token, "
            "ints [b, n]: Tokens(x, keep, Place(segment=...))"
        )
    return tokens.place.segment


@dataclass(frozen=True)
class Remembered:
    """A source as one reader sees it.

    Attributes:
        keys, values: of each head, `[b, h, s, d]`
        keep: real tokens, `[b, s]`
        segment: the phrase of each, `[b, s]`
    """

    keys: Tensor
    values: Tensor
    keep: Tensor
    segment: Tensor


@dataclass(frozen=True)
class Memory:
    """A source as `Phrase` sees it: its tokens, and one summary per phrase unless there is no macro part."""

    micro: Remembered
    macro: Remembered | None


class WithinPhrase(MultiHead):
    """A token reads the source tokens of its own phrase and of `reach` phrases to either side.

    A token with no source token there gets exactly 0, not the bias of the last projection.

    Args:
        width: width of the query tokens and of the result
        heads: attention heads
        reach: neighbouring phrases read on each side; 0 = only the own
        options: the other options of `MultiHead`
    """

    supports: ClassVar[frozenset[Ability]] = frozenset({"self", "cross", "padding"})
    cost: ClassVar[str] = "4 b h n s d / phrases, once per neighbour"
    dense_when: ClassVar[str | None] = "there is one phrase"

    def __init__(self, width: int, heads: int = 8, *, reach: int = 0, **options: Any):
        super().__init__(width, heads, **options)
        if reach < 0:
            raise ValueError(f"reach={reach} must be 0 (own phrase only) or more")
        self.reach = reach

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **how: Any) -> Attended:
        """The phrases within reach are disjoint key sets, so their reads merge into one softmax exactly."""
        own, theirs = how.pop("segments")
        want = frozenset({"lse"})
        return merge(
            [
                super(WithinPhrase, self).attend(q, k, v, segments=(own + shift, theirs), want=want, **how)
                for shift in range(-self.reach, self.reach + 1)
            ]
        )

    def row_weights(
        self, q: Tensor, k: Tensor, start: int, stop: int, *, keep: Tensor, segments: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Exact weights of some queries."""
        away = (segments[0][:, start:stop, None] - segments[1][:, None, :]).abs()
        return exact_weights(q, k, start, stop, keep=keep, allowed=(away <= self.reach)[:, None])

    def forward(self, query: Tokens, source: Tokens | None = None) -> Read:
        phrase_ids(self, query, "query")
        return self.reread(query, self.remembered(query if source is None else source))

    def remembered(self, source: Tokens) -> Remembered:
        """Keys and values of a source that is read more than once."""
        source = source.zeroed()
        return Remembered(*self.split_source(source.x), source.keep, phrase_ids(self, source, "source"))

    def reread(self, query: Tokens, source: Remembered) -> Read:
        """What `forward` reads from a source whose keys and values are there already."""
        segments = phrase_ids(self, query, "query"), source.segment
        q = self.split_query(query.zeroed().x)
        read = self.attend(q, source.keys, source.values, keep=source.keep, segments=segments)
        assert read.lse is not None
        silent = torch.isneginf(read.lse).all(dim=1)[..., None]
        return Read(self.join(read.out).masked_fill(silent, 0.0), read.lse)


class AcrossPhrases(MultiHead):
    """A token reads one summary per phrase, with a learned bias of how far away the phrase is.

    Args:
        width: width of query tokens, summaries and result
        heads: attention heads
        far: distances beyond this many phrases share one bias
        options: the other options of `MultiHead`
    """

    supports: ClassVar[frozenset[Ability]] = frozenset({"cross", "padding"})
    cost: ClassVar[str] = "4 b h n phrases d"
    dense_when: ClassVar[str | None] = "the bias is constant, as it is before training"

    def __init__(self, width: int, heads: int = 8, *, far: int = 8, **options: Any):
        super().__init__(width, heads, **options)
        self.far = far
        self.away = nn.Parameter(torch.zeros(heads, 2 * far + 1))

    def forward(self, query: Tokens, source: Tokens | None = None) -> Read:
        if source is None:
            raise ValueError("AcrossPhrases reads summaries of phrases; give them as source")
        phrase_ids(self, query, "query")
        return self.reread(query, self.remembered(source))

    def remembered(self, source: Tokens) -> Remembered:
        """Keys and values of summaries that are read more than once."""
        source = source.zeroed()
        return Remembered(*self.split_source(source.x), source.keep, phrase_ids(self, source, "source"))

    def reread(self, query: Tokens, source: Remembered) -> Read:
        """What `forward` reads from summaries whose keys and values are there already."""
        distance = phrase_ids(self, query, "query")[:, :, None] - source.segment[:, None, :]
        bias = self.away[:, distance.clamp(-self.far, self.far) + self.far].transpose(0, 1)
        q = self.split_query(query.zeroed().x)
        read = self.attend(q, source.keys, source.values, keep=source.keep, bias=bias)
        return Read(self.join(read.out), read.lse)


class Phrase(AttentionOp):
    """Micro attention within the phrase plus gated macro attention over phrase summaries.

    A token whose phrases within reach hold no source token gets a micro part of exactly 0. `extras["gate"]` is the
    macro gate `[b, n, w]`. Readers inside are observed as `<site>/micro`, `<site>/summary` and `<site>/macro`.

    Args:
        width: width of the query tokens and of the result
        heads: attention heads
        source_width: width of the source tokens; default `width`
        reach: neighbouring phrases the micro part reads on each side
        macro: False leaves out summaries, macro part and gate
        phrases: phrases are numbered 0 .. phrases-1
        far: distances beyond this many phrases share one bias
        dropout: probability of dropping an attention weight while training
    """

    supports: ClassVar[frozenset[Ability]] = frozenset({"self", "cross", "padding", "decode"})
    cost: ClassVar[str] = "4 b h (n s / phrases + s + n phrases) d"
    dense_when: ClassVar[str | None] = "macro=False and there is one phrase (or reach covers all)"

    def __init__(
        self,
        width: int,
        heads: int = 8,
        *,
        source_width: int | None = None,
        reach: int = 0,
        macro: bool = True,
        phrases: int = 64,
        far: int = 8,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.phrases = phrases
        self.micro = WithinPhrase(width, heads, reach=reach, source_width=source_width, dropout=dropout)
        self.with_macro = macro
        if macro:
            self.asks = nn.Parameter(torch.randn(width) * width**-0.5)
            self.summary = WithinPhrase(width, heads, source_width=source_width, dropout=dropout)
            self.macro = AcrossPhrases(width, heads, far=far, dropout=dropout)
            self.gate = nn.Linear(2 * width, width)

    def summaries(self, source: Tokens, phrases: int | None = None) -> Tokens:
        """One token per phrase number: what a learned query reads in that phrase; absent phrases are padding.

        Args:
            source: with the phrase of each token
            phrases: only the first so many; None = all
        """
        ids = phrase_ids(self, source, "source")
        b = source.x.shape[0]
        count = self.phrases if phrases is None else phrases
        number = torch.arange(count, device=ids.device).expand(b, -1)
        present = ((ids[:, None, :] == number[:, :, None]) & source.keep[:, None, :]).any(dim=-1)
        place = Place(segment=number)
        asking = Tokens(self.asks.expand(b, count, -1), present, place)
        return Tokens(self.summary(asking, source).y, present, place)

    def forward(self, query: Tokens, source: Tokens | None = None) -> Read:
        source = query if source is None else source
        if not torch.compiler.is_compiling():
            self._check_numbers(query, "query")
            self._check_numbers(source, "source")
        macro = self.macro(query, self.summaries(source, self._last(source))).y if self.with_macro else None
        return self._gated(query, self.micro(query, source), macro)

    def remembered(self, source: Tokens) -> Memory:
        """What a decoder keeps of a source between its steps: it is read again and again, and projected once."""
        macro = self.macro.remembered(self.summaries(source, self._last(source))) if self.with_macro else None
        return Memory(self.micro.remembered(source), macro)

    @torch.no_grad()
    def step(self, new: Tokens, state: Memory) -> tuple[Read, Memory]:
        """`forward`'s rows of the new tokens; the state is what `remembered` gave and stays as it is."""
        macro = None if state.macro is None else self.macro.reread(new, state.macro).y
        return self._gated(new, self.micro.reread(new, state.micro), macro), state

    def _gated(self, query: Tokens, micro: Read, macro: Float[Tensor, "b n w"] | None) -> Read:
        if macro is None:
            return micro
        gate = torch.sigmoid(self.gate(torch.cat([query.zeroed().x, macro], dim=-1)))
        return Read(micro.y + gate * macro, micro.lse, {"gate": gate})

    def _last(self, source: Tokens) -> int | None:
        """How many phrases need a summary: up to the last one with a token. Not asked while compiling."""
        if torch.compiler.is_compiling():
            return None
        ids = phrase_ids(self, source, "source")[source.keep]
        return int(ids.max()) + 1 if ids.numel() else 1

    def _check_numbers(self, tokens: Tokens, side: str) -> None:
        ids = phrase_ids(self, tokens, side)[tokens.keep]
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= self.phrases):
            raise ValueError(
                f"Phrase: {side} phrases are numbered {int(ids.min())}..{int(ids.max())}; "
                f"expected 0..{self.phrases - 1}. Renumber them or raise phrases"
            )
