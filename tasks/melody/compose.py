"""Generate melodies into frames: a batch at a time, with a cache, field by field under the decode grammar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.music.melody import Melody
from tasks.melody.composed import Bound, Composed, OnPhrase
from tasks.melody.frame import Frame
from tasks.melody.grammar import Grammar
from tasks.melody.models.notes_network import NotesNetwork
from tasks.melody.rules import Rules, Sampling
from tasks.melody.sampling import Draws, bound_by, choose
from tasks.melody.song_batch import FAR, Frames, frame_batch
from tasks.melody.vocabulary import reference


class _Written:
    """Notes of a batch of songs while they grow, and how often each rule bound a choice.

    Args:
        frames: what is generated into
        on_phrase: called as soon as a phrase is complete
    """

    def __init__(self, frames: Sequence[Frame], on_phrase: OnPhrase | None):
        self.frames, self.on_phrase = frames, on_phrase
        self.steps: list[Int[np.ndarray, "b 5"]] = []
        self.bound: dict[str, Float[Tensor, "b 3"]] = {}
        self.told = [0] * len(frames)

    def rule(self, name: str, logits: Float[Tensor, "b v"], legal: Bool[Tensor, "b v"], of: Bool[Tensor, " b"]) -> None:
        """One more choice of some songs under a rule."""
        overruled, removed = bound_by(logits, legal)
        row = torch.stack([of.float(), (of & overruled).float(), removed.masked_fill(~of, 0.0)], dim=1)
        self.bound[name] = self.bound.get(name, torch.zeros(())) + row

    def note(self, grammar: Grammar, taken: Bool[Tensor, " b"], *columns: Tensor) -> None:
        """One more note of the songs that took it: onset, duration, pitch, whether it had to come."""
        self.steps.append(torch.stack([*(column.long() for column in columns), taken.long()], dim=1).numpy())
        if self.on_phrase is not None:
            for row in torch.nonzero(taken)[:, 0].tolist():
                self._tell(row, bool(grammar.done[row]), self.on_phrase)

    def _tell(self, row: int, done: bool, on_phrase: OnPhrase) -> None:
        """Say which phrases are complete: those before the last note's, and its own when that note ends it."""
        frame, onset = self.frames[row], int(self.steps[-1][row, 0])
        number = int(_phrases(np.array([onset]), frame)[0])
        ends = onset in set(frame.onset[frame.final].tolist())
        for phrase in range(self.told[row], number + 1 if ends or done else number):
            last = int(frame.onset[frame.phrase == phrase][-1]) if len(frame.onset) else onset
            on_phrase(row, phrase, self.song(row, last).melody)
            self.told[row] = phrase + 1

    def song(self, row: int, last: int | None = None) -> Composed:
        """A song so far, up to the note that begins at tick `last`."""
        frame = self.frames[row]
        notes = np.array([step[row] for step in self.steps])
        notes = notes[(notes[:, 4] > 0) & (notes[:, 0] <= (frame.end if last is None else last))]
        onset, duration, pitch, must = notes[:, :4].T
        phrase = np.unique(_phrases(onset, frame), return_inverse=True)[1]
        pitch = pitch + reference(frame.key)
        melody = Melody(frame.name, onset, duration, pitch, frame.bars, frame.metre, frame.key, phrase)
        rules = {name: Bound(int(of[row, 0]), int(of[row, 1]), float(of[row, 2])) for name, of in self.bound.items()}
        return Composed(melody, must.astype(bool), {name: bound for name, bound in rules.items() if bound.choices})


@torch.no_grad()
def compose(
    network: NotesNetwork,
    frames: Sequence[Frame],
    sampling: Sampling,
    rules: Rules,
    on_phrase: OnPhrase | None = None,
) -> list[Composed]:
    """A melody for every frame.

    Args:
        network: in evaluation mode
        frames: what to generate into
        sampling: seed, temperature, nucleus
        rules: what may be added
        on_phrase: called as soon as a phrase is complete

    Raises:
        DataError: a note that must be kept cannot be
    """
    grammar = Grammar(frames, network.vocabulary, rules)
    shown = frame_batch(frames, network.vocabulary)
    state = network.start(shown)
    rows, written = len(frames), _Written(frames, on_phrase)
    draws = Draws(sampling.seed, rows)
    none = torch.full((rows, 1), network.vocabulary.low - 1)
    sung, before, length = none, none, torch.full((rows, 1), len(network.durations))
    real = torch.ones(rows, 1, dtype=torch.bool)
    while not bool(grammar.done.all()):
        tokens = network.read(shown, grammar.now[:, None], sung, length, before, real)
        h, state = network.step(shown, tokens, state)
        onset, pitch, duration, must = _note(network, shown, grammar, h, sung, draws, sampling, written)
        written.note(grammar, grammar.take(onset, duration), onset, duration, pitch, must)
        before, sung = sung, pitch[:, None]
        length = torch.searchsorted(network.durations, duration[:, None]).clamp(max=len(network.durations) - 1)
    return [written.song(row) for row in range(rows)]


def _note(
    network: NotesNetwork, shown: Frames, grammar: Grammar, h: Float[Tensor, "b 1 w"], sung: Int[Tensor, "b 1"],
    draws: Draws, sampling: Sampling, written: _Written,
) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"], Int[Tensor, " b"], Bool[Tensor, " b"]]:  # fmt: skip
    """Onset, pitch and duration of the next note of every song, and whether it had to come."""
    active = ~grammar.done
    rows = torch.arange(len(active))
    legal, has_to = grammar.onsets()
    choice = active & (has_to == FAR)
    skips = legal.any(dim=2)
    logits = network.skip_logits(h)[:, 0]
    skip = choose(logits, skips, draws.next(), sampling)
    written.rule("which bar", logits, skips, choice)
    logits = network.place_logits(h, skip[:, None])[:, 0]
    place = choose(logits, legal[rows, skip], draws.next(), sampling)
    written.rule("where in the bar", logits, legal[rows, skip], choice)
    bar = (grammar.bar + skip).clamp(max=grammar.bars.shape[1] - 1)
    onset = torch.where(has_to < FAR, has_to, grammar.bars[rows, bar] + grammar.places[place])
    onset = torch.where(active, onset, grammar.now)
    note, at = network.note(h, shown, onset[:, None], sung)
    pitches, must = grammar.pitches(onset)
    logits = network.pitch_logits(note, at, sung)[:, 0]
    pitch = choose(logits, pitches, draws.next(), sampling) + network.vocabulary.low
    written.rule("skeleton pitch", logits, pitches, active & must)
    written.rule("key and range", logits, pitches, active & ~must)
    lengths, held = grammar.lengths(onset)
    logits = network.duration_logits(note, pitch[:, None])[:, 0]
    chosen = network.durations[choose(logits, lengths, draws.next(), sampling)]
    written.rule("length: one voice, no note over the end", logits, lengths, active & (held < 0))
    return onset, pitch, torch.where(held >= 0, held, chosen), must


def _phrases(onset: Int[np.ndarray, " n"], frame: Frame) -> Int[np.ndarray, " n"]:
    """The phrase of notes: that of the next skeleton note."""
    if not len(frame.onset):
        return np.zeros(len(onset), np.int64)
    return frame.phrase[np.searchsorted(frame.onset, onset).clip(max=len(frame.onset) - 1)]
