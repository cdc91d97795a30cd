"""The network of the Small Tunes Transformer: skeleton notes are encoded, notes are decoded field by field.

A note is one token, the sum of its fields' embeddings. What the decoder has read of the notes so far predicts the next
note's fields in one order: bars skipped, place in the bar, pitch, duration; each head sees the fields before its own.
Everything here that the paper does not say is our choice ([C] in papers/small-tunes-transformer.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fusion.block import Block, FeedForward
from fusion.cache import Cache
from fusion.dropout import Dropout
from fusion.operators import Dense, Phrase, Relative
from fusion.operators.phrase import Memory
from fusion.tokens import Place, Tokens
from tasks.melody.song_batch import FAR, Frames, Notes, Situation, situation
from tasks.melody.vocabulary import SKIPS, Vocabulary

PERIODS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Quarters after which something may repeat: half a beat to a stanza."""
NEAR, WIDEST, COUNTED = 96, 24, 8
FIELDS = ("skip", "place", "pitch", "duration")


@dataclass(frozen=True)
class Sizes:
    """The config's `sizes`.

    Attributes:
        width: of tokens
        encoder: blocks over the skeleton
        decoder: blocks over the notes, each with a phrase-level cross attention
        heads: of every attention; must divide width
        reach: notes back that have a relative vector of their own
        phrases: most phrases of a song
        within: phrases to either side that the micro part reads beside its own
        macro: read the summaries of all phrases
        guide: tell the decoder directly how far the next skeleton note is, in time and pitch
        dropout: on embeddings, reads and feed-forward layers
    """

    width: int = 96
    encoder: int = 1
    decoder: int = 2
    heads: int = 4
    reach: int = 128
    phrases: int = 96
    within: int = 0
    macro: bool = True
    guide: bool = True
    dropout: float = 0.15

    def __post_init__(self) -> None:
        for name in ("width", "encoder", "decoder", "heads", "reach", "phrases"):
            if getattr(self, name) < 1:
                raise ValueError(f"sizes.{name}: expected at least 1, found {getattr(self, name)}")
        if self.width % self.heads:
            raise ValueError(f"sizes: heads={self.heads} must divide width={self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"sizes.dropout: expected at least 0 and below 1, found {self.dropout}")


class Decoding(NamedTuple):
    """What decoding remembers: a cache per self attention, a memory per cross attention."""

    caches: list[Cache | None]
    memories: list[Memory]


class TimeOfSong(nn.Module):
    """Sine and cosine of a tick for every period."""

    periods: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("periods", 24 * torch.tensor(PERIODS), persistent=False)
        self.to_width = nn.Linear(2 * len(PERIODS), width)

    def forward(self, tick: Int[Tensor, "b n"]) -> Float[Tensor, "b n w"]:
        phase = 2 * torch.pi * tick[..., None] / self.periods
        return self.to_width(torch.cat([phase.sin(), phase.cos()], dim=-1))


class Guide(nn.Module):
    """The next skeleton note: how far it is, how much higher, what it is in the key, whether it ends its phrase."""

    def __init__(self, width: int, pitches: int):
        super().__init__()
        self.until = nn.Embedding(NEAR + 3, width)
        self.interval = nn.Embedding(2 * WIDEST + 2, width)
        self.next = nn.Embedding(pitches + 1, width)
        self.more = nn.Embedding(COUNTED + 2, width)

    def forward(self, at: Situation, low: int) -> Float[Tensor, "b n w"]:
        none = at.until >= FAR
        until = torch.where(none, NEAR + 2, at.until.clamp(0, NEAR + 1))
        interval = torch.where(none, 2 * WIDEST + 1, at.interval.clamp(-WIDEST, WIDEST) + WIDEST)
        following = torch.where(none, self.next.num_embeddings - 1, at.next - low)
        more = torch.where(none, COUNTED + 1, at.more.clamp(max=COUNTED))
        return self.until(until) + self.interval(interval) + self.next(following) + self.more(more)


class Head(nn.Sequential):
    """Logits of one field."""

    def __init__(self, width: int, values: int):
        super().__init__(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, values))


class NotesNetwork(nn.Module):
    """Encoder over skeletons, decoder over notes with phrase-level cross attention, a head per field.

    Args:
        vocabulary: what notes can be said with
        sizes: widths and depths
    """

    places: Tensor
    durations: Tensor

    def __init__(self, vocabulary: Vocabulary, sizes: Sizes):
        super().__init__()
        self.vocabulary, self.sizes = vocabulary, sizes
        w, drop, low = sizes.width, sizes.dropout, vocabulary.low
        self.low, self.bar_ticks, self.reach_of_pitch = low, max(vocabulary.places) + 1, vocabulary.pitches
        self.register_buffer("places", torch.tensor(vocabulary.places), persistent=False)
        self.register_buffer("durations", torch.tensor(vocabulary.durations), persistent=False)
        self.pitch, self.degree = nn.Embedding(vocabulary.pitches + 1, w), nn.Embedding(12, w)
        self.interval = nn.Embedding(2 * WIDEST + 1, w)
        self.duration = nn.Embedding(len(vocabulary.durations) + 1, w)
        self.metre, self.mode = nn.Embedding(len(vocabulary.metres), w), nn.Embedding(len(vocabulary.modes), w)
        self.place, self.of_four = nn.Embedding(self.bar_ticks, w), nn.Embedding(4, w)
        self.left = nn.Embedding(COUNTED + 1, w)
        self.time = TimeOfSong(w)
        self.gap = nn.Embedding(NEAR + 2, w)
        self.skip = nn.Embedding(SKIPS + 1, w)
        self.guide_now, self.guide_then = Guide(w, vocabulary.pitches), Guide(w, vocabulary.pitches)
        for table in self.modules():
            if isinstance(table, nn.Embedding):
                nn.init.normal_(table.weight, std=0.02)
        self.dropout = Dropout(drop)
        self.encoder = nn.ModuleList(
            Block(w, Dense(w, sizes.heads), FeedForward(w, 4 * w, drop), dropout=drop) for _ in range(sizes.encoder)
        )
        self.past = nn.ModuleList(
            Block(w, Relative(w, sizes.heads, reach=sizes.reach), dropout=drop) for _ in range(sizes.decoder)
        )
        self.across = nn.ModuleList(
            Block(
                w,
                Phrase(w, sizes.heads, reach=sizes.within, macro=sizes.macro, phrases=sizes.phrases),
                FeedForward(w, 4 * w, drop),
                dropout=drop,
            )
            for _ in range(sizes.decoder)
        )
        for name, blocks in (("skeleton", self.encoder), ("melody", self.past), ("melody <- skeleton", self.across)):
            for layer, block in enumerate(blocks):
                block.op.site = f"{name}/{layer}"  # type: ignore[union-attr]
        self.heads = nn.ModuleDict(
            {
                "skip": Head(w, SKIPS + 1),
                "place": Head(w, len(vocabulary.places)),
                "pitch": Head(w, vocabulary.pitches),
                "step": Head(w, 2 * self.reach_of_pitch + 1),
                "goal": Head(w, 2 * self.reach_of_pitch + 1),
                "duration": Head(w, len(vocabulary.durations)),
            }
        )

    def skeleton(self, frames: Frames) -> Tokens:
        """Encoded skeleton notes, `[b, s, w]`."""
        onset = torch.where(frames.keep, frames.onset, 0)
        bar = frames.bar_of(onset)
        place = onset - frames.bars.gather(1, bar)
        after = torch.cat([frames.keep[:, 1:], torch.zeros_like(frames.keep[:, :1])], dim=1)
        following = torch.where(after, frames.pitch.roll(-1, dims=1), frames.pitch)
        gap = torch.where(after, frames.onset.roll(-1, dims=1) - onset, NEAR + 1)
        final = ~after | (frames.phrase.roll(-1, dims=1) != frames.phrase)
        x = (
            self._pitched(frames.pitch)
            + self.interval((following - frames.pitch).clamp(-WIDEST, WIDEST) + WIDEST)
            + self.gap(gap.clamp(0, NEAR + 1))
            + self._placed(place, bar)
            + self.time(onset)
            + self.left(final.long())
            + (self.metre(frames.metre) + self.mode(frames.mode))[:, None]
        )
        tokens = Tokens(self.dropout(x), frames.keep, Place(segment=frames.phrase))
        for block in self.encoder:
            tokens = block(tokens)
        return tokens

    def read(
        self, frames: Frames, now: Int[Tensor, "b n"], pitch: Int[Tensor, "b n"], duration: Int[Tensor, "b n"],
        before: Int[Tensor, "b n"], keep: Tensor,
    ) -> Tokens:  # fmt: skip
        """Tokens of the notes that were sung, for the decoder.

        Args:
            frames: of the songs
            now: tick at which each note ends; the beginning of the song for the first token, which is no note
            pitch: above the gong; -1 below `low` for no note
            duration: number in the vocabulary; the last one more for no note
            before: pitch of the note before
            keep: real tokens
        """
        at = situation(frames, now, pitch)
        x = (
            self._pitched(pitch)
            + self.interval((pitch - before).clamp(-WIDEST, WIDEST) + WIDEST)
            + self.duration(duration)
            + self._placed(at.place, at.bar)
            + self.left(at.left.clamp(0, COUNTED))
            + self.time(now)
            + (self.metre(frames.metre) + self.mode(frames.mode))[:, None]
        )
        if self.sizes.guide:
            x = x + self.guide_now(at, self.low)
        return Tokens(self.dropout(x), keep, Place(segment=at.phrase))

    def hidden(self, frames: Frames, tokens: Tokens) -> Float[Tensor, "b n w"]:
        """What the decoder makes of the notes so far; row t predicts note t."""
        source = self.skeleton(frames)
        for past, across in zip(self.past, self.across, strict=True):
            tokens = across(past(tokens), source)
        return tokens.x

    def start(self, frames: Frames) -> Decoding:
        """What decoding begins with."""
        source = self.skeleton(frames)
        return Decoding([None] * len(self.past), [block.op.remembered(source) for block in self.across])  # type: ignore[operator, union-attr]

    def step(self, frames: Frames, tokens: Tokens, state: Decoding) -> tuple[Float[Tensor, "b n w"], Decoding]:
        """`hidden`'s rows of the new tokens."""
        caches: list[Cache | None] = []
        for past, across, cache, memory in zip(self.past, self.across, *state, strict=True):
            tokens, cache = past.step(tokens, cache)  # type: ignore[operator]
            tokens, _ = across.step(tokens, memory, frames.present)  # type: ignore[operator]
            caches.append(cache)
        return tokens.x, Decoding(caches, state.memories)

    def skip_logits(self, h: Float[Tensor, "b n w"]) -> Float[Tensor, "b n v"]:
        return self.heads["skip"](h)

    def place_logits(self, h: Float[Tensor, "b n w"], skip: Int[Tensor, "b n"]) -> Float[Tensor, "b n v"]:
        return self.heads["place"](h + self.skip(skip))

    def note(
        self, h: Float[Tensor, "b n w"], frames: Frames, onset: Int[Tensor, "b n"], before: Int[Tensor, "b n"]
    ) -> tuple[Float[Tensor, "b n w"], Situation]:
        """What the heads of pitch and duration see once it is known where the note begins."""
        at = situation(frames, onset, before)
        x = h + self._placed(at.place, at.bar)
        return (x + self.guide_then(at, self.low) if self.sizes.guide else x), at

    def pitch_logits(
        self, note: Float[Tensor, "b n w"], at: Situation, before: Int[Tensor, "b n"]
    ) -> Float[Tensor, "b n v"]:
        """Logits of pitches, of steps from the note before and of distances to the next skeleton note, added."""
        logits = self.heads["pitch"](note)
        pitch = torch.arange(self.low, self.low + logits.shape[2], device=note.device)
        step = self._from(self.heads["step"](note), pitch, before).masked_fill((before < self.low)[..., None], 0.0)
        if not self.sizes.guide:
            return logits + step
        goal = self._from(self.heads["goal"](note), pitch, at.next)
        return logits + step + goal.masked_fill((at.until >= FAR)[..., None], 0.0)

    def _from(
        self, logits: Float[Tensor, "b n k"], pitch: Int[Tensor, " v"], origin: Int[Tensor, "b n"]
    ) -> Float[Tensor, "b n v"]:
        """Logits of distances from a pitch, as logits of pitches."""
        away = (pitch - origin[..., None]).clamp(-self.reach_of_pitch, self.reach_of_pitch)
        return logits.gather(2, away + self.reach_of_pitch)

    def duration_logits(self, note: Float[Tensor, "b n w"], pitch: Int[Tensor, "b n"]) -> Float[Tensor, "b n v"]:
        return self.heads["duration"](note + self._pitched(pitch))

    def forward(self, frames: Frames, notes: Notes) -> dict[str, Float[Tensor, "b n"]]:
        """-log p of every field of every note given what came before it, in nats; 0 on padding."""
        sung, before, now = shifted(notes, frames, self.low)
        duration = torch.searchsorted(self.durations, notes.duration)
        none = torch.full_like(duration[:, :1], len(self.durations))
        tokens = self.read(frames, now, sung, torch.cat([none, duration[:, :-1]], 1), before, notes.keep)
        h = self.hidden(frames, tokens)
        bar = frames.bar_of(notes.onset)
        skip = bar.diff(dim=1, prepend=torch.zeros_like(bar[:, :1])).clamp(0, SKIPS)
        place = torch.searchsorted(self.places, notes.onset - frames.bars.gather(1, bar))
        note, at = self.note(h, frames, notes.onset, sung)
        said = {
            "skip": (self.skip_logits(h), skip),
            "place": (self.place_logits(h, skip), place),
            "pitch": (self.pitch_logits(note, at, sung), notes.pitch - self.low),
            "duration": (self.duration_logits(note, notes.pitch), duration),
        }
        return {
            name: nn.functional.cross_entropy(
                logits.transpose(1, 2), value.masked_fill(~notes.keep, -100), reduction="none"
            )
            for name, (logits, value) in said.items()
        }

    def _pitched(self, pitch: Int[Tensor, "b n"]) -> Float[Tensor, "b n w"]:
        """Pitch above the gong and its degree; the row below the lowest is no note."""
        return self.pitch((pitch - self.low + 1).clamp(0, self.vocabulary.pitches)) + self.degree(pitch % 12)

    def _placed(self, place: Int[Tensor, "b n"], bar: Int[Tensor, "b n"]) -> Float[Tensor, "b n w"]:
        return self.place(place.clamp(0, self.bar_ticks - 1)) + self.of_four(bar % 4)


def shifted(
    notes: Notes, frames: Frames, low: int
) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b n"], Int[Tensor, "b n"]]:
    """For each note the pitch of the note before it, of the one before that, and the tick at which that one ended.

    Before the first note there is none: pitch `low` - 1, and the beginning of the first bar.
    """
    none = torch.full_like(notes.pitch[:, :1], low - 1)
    sung = torch.cat([none, notes.pitch[:, :-1]], dim=1)
    before = torch.cat([none, sung[:, :-1]], dim=1)
    now = torch.cat([frames.bars[:, :1], notes.end[:, :-1]], dim=1)
    return sung, before, now
