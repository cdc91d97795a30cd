"""Small songs, frames and networks for the tests of generation."""

from __future__ import annotations

import numpy as np
import torch

from data.music.key import Key
from data.music.melody import Melody
from data.simulate.melodies import GeneratedSongs
from tasks.melody.frame import Frame
from tasks.melody.models.notes_network import NotesNetwork, Sizes
from tasks.melody.vocabulary import Vocabulary

SIZES = Sizes(width=16, heads=2, encoder=1, decoder=1, reach=16, phrases=8)
METRES = ((2, 4), (3, 4), (4, 4), (6, 8), (7, 8), (5, 4), None)


def songs(count: int = 12, seed: int = 0) -> list[Melody]:
    return GeneratedSongs(count, seed=seed).load().songs


def vocabulary() -> Vocabulary:
    """What the generated songs need, with more metres and modes."""
    own = Vocabulary.of(songs())
    metres = tuple(sorted("none" if metre is None else f"{metre[0]}/{metre[1]}" for metre in METRES))
    places = tuple(range(0, 120, 3))
    durations = tuple(range(3, 97, 3))
    return Vocabulary(places, durations, -14, 40, metres, tuple(sorted({*own.modes, "maj", "min", "jue"})))


def network(seed: int = 0, spread: float = 0.0) -> NotesNetwork:
    """A network with random weights; a spread makes them wild."""
    torch.manual_seed(seed)
    made = NotesNetwork(vocabulary(), SIZES).eval()
    if spread:
        for weights in made.parameters():
            torch.nn.init.normal_(weights, std=spread)
    return made


def random_frame(random: np.random.Generator, number: int) -> Frame:
    """Any frame a user could ask for: odd metres, pickups, bars of other lengths, triplets, rests, dense skeletons."""
    metre = METRES[number % len(METRES)]
    usual = 96 if metre is None else 96 * metre[0] // metre[1]
    lengths = np.full(int(random.integers(1, 5)), usual)
    if random.random() < 0.3:
        lengths[random.integers(len(lengths))] += 24
    start = int(random.choice([0, -usual // 2, 48]))
    bars = start + np.append(0, np.cumsum(lengths)[:-1])
    end = start + int(lengths.sum())
    step = int(random.choice([3, 4, 6, 12, 24]))
    ticks = np.arange(start, end - 3, step)
    onset = np.sort(random.choice(ticks, max(1, int(len(ticks) * random.choice([0.02, 0.2, 0.9]))), replace=False))
    key = Key(int(random.integers(12)), str(random.choice(["maj", "min", "gong", "zhi", "jue"])))
    phrase = np.minimum(np.cumsum(random.random(len(onset)) < 0.2), 7)
    pitch = random.integers(56, 74, len(onset))
    return Frame(f"frame {number}", bars, end, metre, key, onset, pitch, np.unique(phrase, return_inverse=True)[1])
