"""Frames and notes as tensors, and what is known at a tick: where in the bar it is, and what the skeleton asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from data.music.melody import Melody
from tasks.melody.frame import Frame
from tasks.melody.vocabulary import Vocabulary, key_of, reference

FAR = 2**20
"""A tick that no song reaches; padding of ascending ticks."""


@dataclass(frozen=True)
class Frames:
    """A batch of frames; pitches count semitones above the gong.

    Attributes:
        bars: ticks, `[b, m]`, padded with FAR
        end, metre, mode: `[b]`
        onset, pitch, phrase: of the skeleton, `[b, s]` with s at least 1, onset padded with FAR
    """

    bars: Int[Tensor, "b m"]
    end: Int[Tensor, " b"]
    metre: Int[Tensor, " b"]
    mode: Int[Tensor, " b"]
    onset: Int[Tensor, "b s"]
    pitch: Int[Tensor, "b s"]
    phrase: Int[Tensor, "b s"]

    @property
    def keep(self) -> Bool[Tensor, "b s"]:
        """Which skeleton notes are there."""
        return self.onset < FAR

    @property
    def present(self) -> Bool[Tensor, " b"]:
        """Which songs have a skeleton."""
        return self.keep.any(dim=1)

    def to(self, device: torch.device) -> Frames:
        return Frames(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def bar_of(self, tick: Int[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        """Number of the bar of each tick; ticks before the first bar count to it."""
        return (torch.searchsorted(self.bars, tick.contiguous(), right=True) - 1).clamp(min=0)

    def only(self, kept: Bool[Tensor, "b s"]) -> Frames:
        """Fewer skeleton notes, moved together."""
        kept = kept & self.keep
        order = torch.argsort((~kept).int(), dim=1, stable=True)
        onset = self.onset.masked_fill(~kept, FAR).gather(1, order)
        return replace(self, onset=onset, pitch=self.pitch.gather(1, order), phrase=self.phrase.gather(1, order))

    def with_skeletons_of(self, others: Frames) -> Frames:
        """The same bars with skeletons of other songs."""
        return replace(self, onset=others.onset, pitch=others.pitch, phrase=others.phrase)

    def __getitem__(self, rows: Int[Tensor, " k"]) -> Frames:
        return Frames(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True)
class Notes:
    """A batch of notes, `[b, n]` each; pitches count semitones above the gong."""

    onset: Int[Tensor, "b n"]
    duration: Int[Tensor, "b n"]
    pitch: Int[Tensor, "b n"]
    keep: Bool[Tensor, "b n"]

    @property
    def end(self) -> Int[Tensor, "b n"]:
        return self.onset + self.duration

    def to(self, device: torch.device) -> Notes:
        return Notes(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True)
class Situation:
    """What is known at ticks, `[b, n]` each.

    Attributes:
        place: ticks from the beginning of the bar
        bar: number of the bar
        left: bars after it
        until: ticks to the next skeleton note, FAR when there is none
        next: its pitch
        interval: from the note before to it
        final: whether it ends a phrase
        more: skeleton notes of its phrase after it
        phrase: its phrase, or the last one
    """

    place: Int[Tensor, "b n"]
    bar: Int[Tensor, "b n"]
    left: Int[Tensor, "b n"]
    until: Int[Tensor, "b n"]
    next: Int[Tensor, "b n"]
    interval: Int[Tensor, "b n"]
    final: Bool[Tensor, "b n"]
    more: Int[Tensor, "b n"]
    phrase: Int[Tensor, "b n"]


def situation(frames: Frames, tick: Int[Tensor, "b n"], before: Int[Tensor, "b n"]) -> Situation:
    """What is known at ticks.

    Args:
        frames: of the songs
        tick: where the song is
        before: pitch of the note before
    """
    bar = frames.bar_of(tick)
    bars = (frames.bars < FAR).sum(dim=1, keepdim=True)
    place = tick - frames.bars.gather(1, bar)
    known = frames.keep.sum(dim=1, keepdim=True)
    at = torch.searchsorted(frames.onset, tick.contiguous())
    there = at < known
    index = at.clamp(max=frames.onset.shape[1] - 1)
    last = (known - 1).clamp(min=0)
    phrase = frames.phrase.gather(1, torch.minimum(index, last))
    same = frames.phrase[:, None, :] == phrase[:, :, None]
    later = torch.arange(frames.onset.shape[1], device=tick.device) > index[:, :, None]
    more = (same & later & frames.keep[:, None, :]).sum(dim=2)
    following = frames.pitch.gather(1, index)
    return Situation(
        place,
        bar,
        bars - 1 - bar,
        torch.where(there, frames.onset.gather(1, index) - tick, FAR),
        torch.where(there, following, 0),
        torch.where(there, following - before, 0),
        there & (more == 0),
        torch.where(there, more, 0),
        torch.where(known > 0, phrase, 0),
    )


def frame_batch(frames: Sequence[Frame], vocabulary: Vocabulary) -> Frames:
    """Tensors of frames.

    Raises:
        DataError: a metre or mode that the vocabulary lacks
    """
    return Frames(
        _padded([frame.bars for frame in frames], FAR),
        torch.tensor([frame.end for frame in frames]),
        torch.tensor([vocabulary.metre(frame.metre) for frame in frames]),
        torch.tensor([vocabulary.mode(frame.key) for frame in frames]),
        _padded([frame.onset for frame in frames], FAR),
        _padded([frame.pitch - reference(frame.key) for frame in frames], 0),
        _padded([frame.phrase for frame in frames], 0),
    )


def note_batch(songs: Sequence[Melody]) -> Notes:
    """Tensors of notes; padding repeats nothing and is left out by `keep`."""
    lengths = torch.tensor([len(song) for song in songs])
    longest = int(lengths.max())
    return Notes(
        _padded([song.onset for song in songs], 0),
        _padded([song.duration for song in songs], 1),
        _padded([song.pitch - reference(key_of(song)) for song in songs], 0),
        torch.arange(longest) < lengths[:, None],
    )


def _padded(rows: Sequence[np.ndarray], value: int) -> Int[Tensor, "b n"]:
    out = torch.full((len(rows), max(1, *(len(row) for row in rows))), value)
    for at, row in enumerate(rows):
        out[at, : len(row)] = torch.from_numpy(row)
    return out
