"""The floor: a table of what followed the last notes in the training songs, for pitch and for rhythm apart.

Probabilities are interpolated by Witten and Bell (1991): p(x | context) = (n(x) + t p(x | shorter)) / (n + t), with n
occurrences of the context and t different followers; below order 0 all values of the training songs are equally likely.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from data.errors import DataError
from data.music.book import SongBook
from data.music.melody import Melody
from tasks.experiment.folder import RunError, write_whole
from tasks.melody.composed import Composed, Composer, OnPhrase
from tasks.melody.frame import Frame, frame_of, without_skeleton
from tasks.melody.model import Measurement
from tasks.melody.rules import Rules, Sampling
from tasks.melody.vocabulary import key_of, reference

FILE = "table.json"
START = "start"
V = TypeVar("V", bound=Hashable)


class Table(Generic[V]):
    """Counts of followers for every context up to an order.

    Args:
        order: longest context
        sequences: what to count in
    """

    def __init__(self, order: int, sequences: Sequence[Sequence[V]]):
        self.order = order
        self.counts: dict[tuple[object, ...], Counter[V]] = defaultdict(Counter)
        for sequence in sequences:
            padded: list[object] = [*[START] * order, *sequence]
            for at, value in enumerate(sequence, start=order):
                for length in range(order + 1):
                    self.counts[tuple(padded[at - length : at])][value] += 1
        self.values = sorted(self.counts[()], key=repr)
        self.place = {value: at for at, value in enumerate(self.values)}

    def shares(self, past: Sequence[V]) -> np.ndarray:
        """Probability of every value of the training sequences after a past."""
        padded: list[object] = [*[START] * self.order, *past]
        share = np.full(len(self.values), 1 / len(self.values))
        for length in range(self.order + 1):
            seen = self.counts.get(tuple(padded[len(padded) - length :]))
            if seen:
                n, t = seen.total(), len(seen)
                share = t * share / (n + t)
                for value, count in seen.items():
                    share[self.place[value]] += count / (n + t)
        return share

    def nats(self, sequence: Sequence[V]) -> np.ndarray:
        """-log p of every value; one that never stood in training is half as likely as the rarest."""
        found = np.empty(len(sequence))
        for at, value in enumerate(sequence):
            share = self.shares(sequence[max(0, at - self.order) : at])
            known = self.place.get(value)
            found[at] = -np.log(share[known] if known is not None else share.min() / 2)
        return found


class Markov(Composer):
    """Order-2 tables of pitch above the gong and of rhythm (rest before a note, its length), without skeleton or bars.

    Args:
        order: notes back
    """

    seedless: ClassVar[bool] = True
    parts: ClassVar[tuple[str, ...]] = ("note", "pitch", "rhythm")

    def __init__(self, order: int = 2):
        if order < 0:
            raise ValueError(f"Markov: order={order}; expected at least 0")
        self.order = order

    def fit(self, music: Any, folder: Path, seed: int) -> dict[str, Any]:
        if not isinstance(music, SongBook):
            raise DataError("Markov: learns from songs, and this music has none; take EssenSongs or another of songs")
        songs = music.part("train")
        content = {"pitch": [_pitches(song) for song in songs], "rhythm": [_rhythm(song) for song in songs]}
        write_whole(folder / FILE, json.dumps(content))
        self.load(folder)
        return {"songs": len(songs)}

    def load(self, folder: Path) -> None:
        if not (folder / FILE).is_file():
            raise RunError(f"{folder}: no {FILE}; this unit is not finished, train it with --resume")
        content = json.loads((folder / FILE).read_text())
        self.pitch = Table(self.order, content["pitch"])
        self.rhythm = Table(self.order, [[(rest, length) for rest, length in song] for song in content["rhythm"]])

    def measure(self, music: Any, split: str) -> list[Measurement]:
        rows = []
        for song in music.part(split):
            pitch, rhythm = self.pitch.nats(_pitches(song)), self.rhythm.nats(_rhythm(song))
            sixteenths = (song.end - int(song.onset[0])) / 6
            for part, nats in {"note": pitch + rhythm, "pitch": pitch, "rhythm": rhythm}.items():
                rows.append(Measurement(split, song.name, part, len(song), sixteenths, float(nats.sum())))
        return rows

    def frames(self, songs: Sequence[Melody]) -> list[Frame]:
        """Bars, metre and key of the songs."""
        return [without_skeleton(frame_of(song, np.ones(len(song), bool))) for song in songs]

    def compose(
        self, frames: Sequence[Frame], sampling: Sampling, rules: Rules, on_phrase: OnPhrase | None = None
    ) -> list[Composed]:
        """A free song as long as each frame; skeletons are not kept, so this is a floor and no generator for users."""
        return [self._song(frame, np.random.default_rng([sampling.seed, at])) for at, frame in enumerate(frames)]

    def _song(self, frame: Frame, random: np.random.Generator) -> Composed:
        pitches: list[int] = []
        steps: list[tuple[int, int]] = []
        notes: list[tuple[int, int, int]] = []
        now = int(frame.bars[0])
        while True:
            rest, length = _drawn(self.rhythm, steps, random)
            above = _drawn(self.pitch, pitches, random)
            onset = now + rest
            if notes and onset + length > frame.end:
                break
            notes.append((onset, min(length, max(1, frame.end - onset)), above + reference(frame.key)))
            steps.append((rest, length))
            pitches.append(above)
            now = onset + length
        onset, duration, pitch = (np.array(column) for column in zip(*notes, strict=True))
        melody = Melody(frame.name, onset, duration, pitch.clip(0, 127), frame.bars, frame.metre, frame.key)
        return Composed(melody, np.zeros(len(notes), bool))


def _drawn(table: Table[V], past: Sequence[V], random: np.random.Generator) -> V:
    share = table.shares(past[-table.order :] if table.order else [])
    return table.values[int(random.choice(len(share), p=share / share.sum()))]


def _pitches(song: Melody) -> list[int]:
    """Semitones above the gong."""
    return (song.pitch - reference(key_of(song))).tolist()


def _rhythm(song: Melody) -> list[tuple[int, int]]:
    """Rest before each note and its length, in ticks; the first rest is the place in its bar."""
    ends = np.append(song.bars[0], song.onset[:-1] + song.duration[:-1])
    return list(zip((song.onset - ends).tolist(), song.duration.tolist(), strict=True))
