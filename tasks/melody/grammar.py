"""The decode grammar: at every choice it says what is legal, so that no sequence of choices can break a promise.

Promises: notes begin on the grid inside the given bars, one voice, no note crosses the end, added notes are in the key
and in the range, every note that must come comes at its place with its pitch (and its duration, where it is kept).
There is always a legal choice: before a note that must come at tick t, another may begin at p only if the shortest note
fits between them, and t itself is always legal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from data.errors import DataError
from tasks.melody.frame import Frame
from tasks.melody.rules import Rules
from tasks.melody.song_batch import FAR
from tasks.melody.vocabulary import SKIPS, Vocabulary, reference


class Grammar:
    """The rules for a batch of songs, and where each of them is.

    Args:
        frames: of the songs
        vocabulary: of the model
        rules: what may be added

    Raises:
        DataError: names the song and the note that cannot be kept

    Attributes:
        now: tick at which the last note ends, `[b]`
        bar: number of the bar in which it began, `[b]`
        at: number of the next note that must come, `[b]`
        done: songs that are complete, `[b]`
    """

    def __init__(self, frames: Sequence[Frame], vocabulary: Vocabulary, rules: Rules):
        self.vocabulary = vocabulary
        self.places, self.durations = torch.tensor(vocabulary.places), torch.tensor(vocabulary.durations)
        self.shortest = int(self.durations[0])
        owed = [_owed(frame, vocabulary, rules, self.shortest) for frame in frames]
        rows, most = len(frames), max(1, *(len(notes) for notes, _ in owed))
        self.due = torch.tensor([FAR, 0, 0]).repeat(rows, most + 1, 1)
        self.at_once = torch.zeros(rows, most + 1, dtype=torch.bool)
        for row, (notes, at_once) in enumerate(owed):
            self.due[row, : len(notes)] = torch.from_numpy(notes)
            self.at_once[row, : len(notes)] = torch.from_numpy(at_once)
        self.owed = torch.tensor([len(notes) for notes, _ in owed])
        self.end = torch.tensor([frame.end for frame in frames])
        bars = [np.append(frame.bars, [frame.end, FAR]) for frame in frames]
        longest = max(len(own) for own in bars) + SKIPS + 1
        self.bars = torch.tensor(np.array([np.append(own, [FAR] * (longest - len(own))) for own in bars]))
        self.allowed = torch.tensor(np.array([rules.allowed(frame.key, vocabulary) for frame in frames]))
        self.now = self.bars[:, 0].clone()
        self.bar = torch.zeros(rows, dtype=torch.long)
        self.at = torch.zeros(rows, dtype=torch.long)
        self.done = torch.zeros(rows, dtype=torch.bool)
        self._settle()

    def onsets(self) -> tuple[Bool[Tensor, "b skips places"], Int[Tensor, " b"]]:
        """Where the next note may begin, and where it has to, or FAR when there is a choice.

        A place in a bar is legal when it is not before `now` and either a note must come there or the shortest note
        fits before the next that must come, and before the end.
        """
        bar = self.bar[:, None] + torch.arange(SKIPS + 1)
        begin, after = (self.bars.gather(1, (bar + shift).clamp(max=self.bars.shape[1] - 1)) for shift in (0, 1))
        tick = begin[..., None] + self.places
        due = self._due(0)
        inside = (tick < after[..., None]) & (tick >= self.now[:, None, None]) & (begin < self.end[:, None])[..., None]
        room = torch.minimum(due, self.end)[:, None, None]
        legal = inside & ((tick == due[:, None, None]) | (tick + self.shortest <= room))
        chosen = self.at_once.gather(1, self.at[:, None])[:, 0] | ~legal.flatten(1).any(dim=1)
        return legal & ~self.done[:, None, None], torch.where(chosen, due, FAR)

    def pitches(self, onset: Int[Tensor, " b"]) -> tuple[Bool[Tensor, "b pitches"], Bool[Tensor, " b"]]:
        """Which pitches, from the lowest of the vocabulary up, are legal; and whether this is a note that must come."""
        must = onset == self._due(0)
        only = self._due(1)[:, None] == torch.arange(self.vocabulary.low, self.vocabulary.high + 1)
        return torch.where(must[:, None], only, self.allowed), must

    def lengths(self, onset: Int[Tensor, " b"]) -> tuple[Bool[Tensor, "b durations"], Int[Tensor, " b"]]:
        """Which durations of the vocabulary are legal, and the one it has to be in ticks, or -1."""
        must = onset == self._due(0)
        following = torch.where(must, self._due(0, 1), self._due(0))
        room = torch.minimum(following, self.end) - onset
        held = torch.where(must & (self._due(2) > 0), self._due(2), -1)
        return self.durations <= room[:, None], held

    def take(self, onset: Int[Tensor, " b"], duration: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Move on past a note of every song that is not done; returns which songs took it."""
        taking = ~self.done
        self.at = torch.where(taking & (onset == self._due(0)), self.at + 1, self.at)
        self.now = torch.where(taking, onset + duration, self.now)
        bar = torch.searchsorted(self.bars, onset[:, None], right=True)[:, 0] - 1
        self.bar = torch.where(taking, bar, self.bar)
        self._settle()
        return taking

    def _due(self, column: int, further: int = 0) -> Int[Tensor, " b"]:
        at = (self.at + further).clamp(max=self.due.shape[1] - 1)
        return self.due[torch.arange(len(at)), at, column]

    def _settle(self) -> None:
        """A song is complete after its last note that must come; without any, when nothing more fits."""
        legal, has_to = self.onsets()
        nothing = ~legal.flatten(1).any(dim=1) & (has_to == FAR)
        self.done = self.done | torch.where(self.owed > 0, self.at >= self.owed, nothing)


def _owed(
    frame: Frame, vocabulary: Vocabulary, rules: Rules, shortest: int
) -> tuple[Int[np.ndarray, "o 3"], Bool[np.ndarray, " o"]]:
    """The notes that must come, pitches above the gong, after a check that they can."""
    notes, at_once = frame.obligations()
    onset, pitch, held = (notes[:, column] for column in range(3))
    free = onset[held == 0]
    relative = pitch - reference(frame.key)
    room = np.append(onset[1:], frame.end)[: len(onset)] - onset
    low, high = rules.ends
    inside = (pitch >= low) & (pitch <= high)
    for wrong, why in (
        ((onset < frame.bars[0]) | (onset >= frame.end), "lies outside of the bars"),
        (
            (relative < vocabulary.low) | (relative > vocabulary.high),
            f"is not in vocabulary {vocabulary.hash}; transpose",
        ),
        (~inside & np.isin(onset, free), f"lies outside of the range {low} to {high}; widen it"),
        ((held == 0) & (room < shortest), f"leaves no room for a note of {shortest} ticks; leave one of the two out"),
    ):
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise DataError(f"{frame.name}: the note {pitch[first]} at tick {onset[first]} {why}")
    return np.column_stack([onset, relative, held]), at_once
