"""What generation returns: a melody, which of its notes had to come, and how often each rule bound a choice."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

from data.music.melody import Melody
from tasks.melody.frame import Frame
from tasks.melody.model import MelodyModel
from tasks.melody.rules import Rules, Sampling

OnPhrase = Callable[[int, int, Melody], None]
"""Called with the number of a song, of a phrase, and the song up to and with that phrase."""


@dataclass(frozen=True)
class Bound:
    """How a rule bound the choices of one song.

    Attributes:
        choices: how many there were
        overruled: of them, those whose likeliest value was illegal
        removed: probability of illegal values, summed over choices
    """

    choices: int = 0
    overruled: int = 0
    removed: float = 0.0


@dataclass(frozen=True)
class Composed:
    """A generated melody.

    Attributes:
        melody: with the bars, metre and key of its frame; its phrases are those of the skeleton
        skeleton: which notes had to come, `[n]`
        bound: rule -> how often it bound a choice
    """

    melody: Melody
    skeleton: Bool[np.ndarray, " n"]
    bound: Mapping[str, Bound] = field(default_factory=dict)


class Composer(MelodyModel):
    """A model that generates melodies."""

    @property
    def composes(self) -> bool:
        """Whether this one, as it is set up, is to generate songs that are judged."""
        return True

    @property
    def keeps_skeletons(self) -> bool:
        """Whether what it generates has to hold the skeleton notes of the frames."""
        return False

    @abstractmethod
    def frames(self, songs: Sequence[Melody]) -> list[Frame]:
        """What this model generates into to be judged beside songs."""

    @abstractmethod
    def compose(
        self, frames: Sequence[Frame], sampling: Sampling, rules: Rules, on_phrase: OnPhrase | None = None
    ) -> list[Composed]:
        """A melody for every frame, after `fit` or `load`.

        Args:
            frames: what to generate into
            sampling: seed, temperature, nucleus
            rules: what may be added
            on_phrase: called as soon as a phrase is complete

        Raises:
            DataError: a note that must be kept cannot be, or the vocabulary lacks the metre or mode
        """
