"""Folk-like tunes with a known grammar: a slow line of structural notes, decorated by steps, in phrases that recur."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Bool

from data.music.book import SongBook, SongSource, split_by_opening
from data.music.key import PENTATONIC, Key
from data.music.melody import TICKS, Melody, bar_ticks, parse_metre

MODES = ("gong", "shang", "zhi", "yu")
_FILLS = ((24,), (12, 12), (18, 6), (12, 6, 6), (6, 6, 12))
"""Ways to fill a quarter, in ticks."""
_FORMS = ((0, 1, 0, 2), (0, 0, 1, 2), (0, 1, 2, 1), (0, 1, 0, 1))
_LINE_STEPS = (-2, -1, -1, 0, 1, 1, 2)


class GeneratedSongs(SongSource):
    """Pentatonic tunes that need no data.

    Every phrase has the same number of bars, and every bar begins with a structural note: a random walk on the five
    degrees of the mode. Between two structural notes the tune goes by steps towards the next one. The last bar of a
    phrase is one long note, and the last phrase ends on the tonic. Phrases recur in one of four forms, so phrases,
    skeleton (`skeletons`) and what a decorating note owes to the next structural one are all known.

    Args:
        songs: how many
        phrases: of each tune
        bars: of each phrase
        metre: in quarters, such as 2/4 or 4/4
        wander: share of decorating notes that go anywhere instead of towards the next structural note, 0 to 1
        seed: of everything
    """

    def __init__(
        self, songs: int = 120, phrases: int = 4, bars: int = 4, metre: str = "2/4", wander: float = 0.15, seed: int = 0
    ):
        parsed = parse_metre(metre)
        for name, value in (("songs", songs), ("phrases", phrases), ("bars", bars - 1)):
            if value < 1:
                raise ValueError(f"GeneratedSongs: {name} is too small; expected songs, phrases >= 1 and bars >= 2")
        if parsed is None or parsed[1] != 4:
            raise ValueError(f"metre={metre!r}: expected quarters, such as 2/4")
        if not 0 <= wander <= 1:
            raise ValueError(f"wander={wander:g}: between 0 and 1")
        self.songs, self.phrases, self.bars, self.metre = songs, phrases, bars, parsed
        self.wander, self.seed = wander, seed

    def load(self) -> SongBook:
        songs = [self._song(number) for number in range(self.songs)]
        return SongBook(
            "generated", songs, split_by_opening(songs), [f"{self.songs} generated songs, seed {self.seed}"]
        )

    def skeletons(self) -> list[Bool[np.ndarray, " n"]]:
        """The structural notes of each song: those that begin a bar."""
        return [song.position == 0 for song in self.load().songs]

    def _song(self, number: int) -> Melody:
        draw = np.random.default_rng([self.seed, number])
        key = Key(int(draw.integers(12)), str(draw.choice(MODES)))
        # Pitches of the mode from the gong below middle C up, two octaves; the walk stays among the middle ones.
        ladder = [48 + key.gong + 12 * octave + step for octave in range(3) for step in PENTATONIC][2:13]
        form = _FORMS[int(draw.integers(len(_FORMS)))]
        known: dict[int, list[tuple[int, int]]] = {}
        notes: list[tuple[int, int, int]] = []
        for phrase in range(self.phrases):
            label = form[phrase % len(form)]
            if label not in known:
                known[label] = self._phrase(draw, len(ladder))
            own = list(known[label])
            if phrase == self.phrases - 1:
                home = [rung for rung, pitch in enumerate(ladder) if pitch % 12 == key.tonic]
                own[-1] = (min(home, key=lambda rung: abs(rung - own[-1][0])), own[-1][1])
            notes += [(ladder[rung], long, phrase) for rung, long in own]
        pitch, duration, phrases = np.array(notes).T
        onset = np.cumsum(duration) - duration
        bars = np.arange(0, self.phrases * self.bars) * bar_ticks(self.metre)
        return Melody(f"tune-{number:04d}", onset, duration, pitch, bars, self.metre, key, phrases)

    def _phrase(self, draw: np.random.Generator, rungs: int) -> list[tuple[int, int]]:
        """Rung and length of each note."""
        line = [int(draw.integers(3, rungs - 3))]
        for _ in range(self.bars - 1):
            line.append(int(np.clip(line[-1] + draw.choice(_LINE_STEPS), 0, rungs - 1)))
        found: list[tuple[int, int]] = []
        for now, goal in pairwise(line):
            lengths = [long for _ in range(self.metre[0]) for long in _FILLS[int(draw.integers(len(_FILLS)))]]
            rung = now
            for place, long in enumerate(lengths):
                if place:
                    towards = int(np.sign(goal - rung)) or int(draw.choice((-1, 1)))
                    step = int(draw.choice((-2, -1, 1, 2))) if draw.random() < self.wander else towards
                    rung = int(np.clip(rung + step, 0, rungs - 1))
                found.append((rung, long))
        return [*found, (line[-1], self.metre[0] * TICKS)]
