"""Generate melodies into frames: a batch at a time, with a cache, field by field under the decode grammar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.music.melody import Melody
from tasks.melody.composed import Account, Composed, OnPhrase
from tasks.melody.frame import Frame
from tasks.melody.grammar import Grammar
from tasks.melody.models.notes_network import NotesNetwork
from tasks.melody.rules import Rules, Sampling
from tasks.melody.sampling import Draws, bound_by, choose
from tasks.melody.song_batch import Frames, frame_batch
from tasks.melody.vocabulary import reference


@dataclass
class _Song:
    """Notes of one song while it grows."""

    notes: list[tuple[int, int, int, bool]] = field(default_factory=list)
    account: Account = field(default_factory=Account)
    told: int = 0


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
    rows = len(frames)
    songs = [_Song() for _ in frames]
    draws = Draws(sampling.seed, rows)
    none = torch.full((rows, 1), network.vocabulary.low - 1)
    sung, before, length = none, none, torch.full((rows, 1), len(network.durations))
    real = torch.ones(rows, 1, dtype=torch.bool)
    while not bool(grammar.done.all()):
        tokens = network.read(shown, grammar.now[:, None], sung, length, before, real)
        h, state = network.step(shown, tokens, state)
        onset, pitch, duration, must = _note(network, shown, grammar, h, sung, draws, sampling, songs)
        taken = grammar.take(onset, duration)
        for row in torch.nonzero(taken)[:, 0].tolist():
            note = int(onset[row]), int(duration[row]), int(pitch[row]), bool(must[row])
            songs[row].notes.append(note)
            if on_phrase is not None:
                _tell(row, songs[row], frames[row], bool(grammar.done[row]), on_phrase)
        before, sung = sung, pitch[:, None]
        length = torch.searchsorted(network.durations, duration[:, None]).clamp(max=len(network.durations) - 1)
    return [_composed(song, frame) for song, frame in zip(songs, frames, strict=True)]


def _note(
    network: NotesNetwork, shown: Frames, grammar: Grammar, h: Float[Tensor, "b 1 w"], sung: Int[Tensor, "b 1"],
    draws: Draws, sampling: Sampling, songs: Sequence[_Song],
) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"], Int[Tensor, " b"], Bool[Tensor, " b"]]:  # fmt: skip
    """Onset, pitch and duration of the next note of every song, and whether it had to come."""
    rows = torch.arange(len(songs))
    active = ~grammar.done
    legal, has_to = grammar.onsets()
    choice = active & (has_to < 0)
    skips = legal.any(dim=2)
    logits = network.skip_logits(h)[:, 0]
    skip = choose(logits, skips, draws.next(), sampling)
    _account("which bar", logits, skips, choice, songs)
    logits = network.place_logits(h, skip[:, None])[:, 0]
    place = choose(logits, legal[rows, skip], draws.next(), sampling)
    _account("where in the bar", logits, legal[rows, skip], choice, songs)
    bar = (grammar.bar + skip).clamp(max=grammar.bars.shape[1] - 1)
    onset = torch.where(has_to >= 0, has_to, grammar.bars[rows, bar] + grammar.places[place])
    onset = torch.where(active, onset, grammar.now)
    note, at = network.note(h, shown, onset[:, None], sung)
    pitches, must = grammar.pitches(onset)
    logits = network.pitch_logits(note, at, sung)[:, 0]
    pitch = choose(logits, pitches, draws.next(), sampling) + network.vocabulary.low
    _account("skeleton pitch", logits, pitches, active & must, songs)
    _account("key and range", logits, pitches, active & ~must, songs)
    lengths, held = grammar.lengths(onset)
    logits = network.duration_logits(note, pitch[:, None])[:, 0]
    chosen = network.durations[choose(logits, lengths, draws.next(), sampling)]
    _account("length: one voice, no note over the end", logits, lengths, active & (held < 0), songs)
    return onset, pitch, torch.where(held >= 0, held, chosen), must


def _account(
    rule: str, logits: Float[Tensor, "b v"], legal: Bool[Tensor, "b v"], of: Bool[Tensor, " b"], songs: Sequence[_Song]
) -> None:
    overruled, removed = bound_by(logits, legal)
    for row in torch.nonzero(of)[:, 0].tolist():
        songs[row].account.note(rule, bool(overruled[row]), float(removed[row]))


def _tell(row: int, song: _Song, frame: Frame, done: bool, on_phrase: OnPhrase) -> None:
    """Say which phrases are complete: those before the phrase of the last note, and its own when that note ends it."""
    onset = song.notes[-1][0]
    number = int(_phrases(np.array([onset]), frame)[0])
    ends = onset in set(frame.onset[frame.final].tolist())
    for phrase in range(song.told, number + 1 if ends or done else number):
        last = int(frame.onset[frame.phrase == phrase][-1]) if len(frame.onset) else onset
        on_phrase(row, phrase, _composed(song, frame, last).melody)
        song.told = phrase + 1


def _phrases(onset: Int[np.ndarray, " n"], frame: Frame) -> Int[np.ndarray, " n"]:
    """The phrase of notes: that of the next skeleton note."""
    if not len(frame.onset):
        return np.zeros(len(onset), np.int64)
    return frame.phrase[np.searchsorted(frame.onset, onset).clip(max=len(frame.onset) - 1)]


def _composed(song: _Song, frame: Frame, last: int | None = None) -> Composed:
    """The song so far, up to the note that begins at tick `last`."""
    notes = [note for note in song.notes if last is None or note[0] <= last]
    onset, duration, pitch, must = (np.array(column) for column in zip(*notes, strict=True))
    phrase = _phrases(onset, frame)
    melody = Melody(
        frame.name,
        onset,
        duration,
        pitch + reference(frame.key),
        frame.bars,
        frame.metre,
        frame.key,
        np.unique(phrase, return_inverse=True)[1],
    )
    return Composed(melody, must.astype(bool), song.account)
