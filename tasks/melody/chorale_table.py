"""The floor for chorales: a table that backs off from the whole chord before to the voice's own last note.

Contexts, shortest first: the voice; and its symbol a 16th before; and the place in the quarter; and the chord's symbols
so far (the voice above alone, then all); and all four symbols a 16th before. Interpolated by Witten and Bell (1991), as
in `markov`. Without the context of the voice above alone it is .02 nats better (`ChoraleTable(above=False)`): both are
floors.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from data.music.chorales import VOICES
from tasks.experiment.folder import RunError, write_whole
from tasks.melody.chorale_tokens import QUARTER, SYMBOLS, Piece, pieces_of
from tasks.melody.model import Measurement, MelodyModel

FILE = "chorales.json"
BEFORE = (-1,) * len(VOICES)
"""The chord before the first."""
Steps = Sequence[Sequence[int]]


class ChoraleTable(MelodyModel):
    """Counts of what followed in the training chorales, from the whole chord before down to the voice alone.

    Args:
        above: whether the voice above alone is a context between none and all voices above
    """

    seedless: ClassVar[bool] = True
    parts: ClassVar[tuple[str, ...]] = ("token",)

    def __init__(self, above: bool = True):
        self.above = above

    def fit(self, music: Any, folder: Path, seed: int) -> dict[str, Any]:
        pieces = pieces_of(music, "train")
        write_whole(folder / FILE, json.dumps([piece.tolist() for piece in pieces]))
        self.load(folder)
        return {"chorales": len(pieces), "contexts": len(self.counts)}

    def load(self, folder: Path) -> None:
        if not (folder / FILE).is_file():
            raise RunError(f"{folder}: no {FILE}; this unit is not finished, train it with --resume")
        self.counts: dict[Hashable, Counter[int]] = defaultdict(Counter)
        for steps in json.loads((folder / FILE).read_text()):
            for symbol, contexts in self._read(steps):
                for context in contexts:
                    self.counts[context][symbol] += 1

    def measure(self, music: Any, split: str) -> list[Measurement]:
        return [
            Measurement(split, f"{split}-{row}", "token", piece.numel(), len(piece), self.nats(piece))
            for row, piece in enumerate(pieces_of(music, split))
        ]

    def nats(self, piece: Piece) -> float:
        """Sum of -log p over a piece."""
        return sum(-math.log(self._share(symbol, contexts)) for symbol, contexts in self._read(piece.tolist()))

    def _share(self, symbol: int, contexts: Sequence[Hashable]) -> float:
        share = 1 / SYMBOLS
        for context in contexts:
            seen = self.counts.get(context)
            if seen is not None:
                total, kinds = seen.total(), len(seen)
                share = (seen[symbol] + kinds * share) / (total + kinds)
        return share

    def _read(self, steps: Steps) -> Iterator[tuple[int, list[Hashable]]]:
        """Every symbol with its contexts, shortest first."""
        for at, chord in enumerate(steps):
            before, place = tuple(steps[at - 1]) if at else BEFORE, at % QUARTER
            for voice, symbol in enumerate(chord):
                known: tuple[Any, ...] = (voice, before[voice], place)
                so_far = tuple(chord[:voice])
                above: list[Hashable] = [(*known, so_far[-1:])] if self.above else []
                # Contexts of different kinds differ in length or nesting, so that one dictionary holds them all.
                longest = [(*known, "all", so_far), (*known, "all", so_far, before)]
                yield symbol, [known[:1], known[:2], known, *above, *longest]
