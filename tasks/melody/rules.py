"""What may be added to a skeleton, and how values are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool

from data.errors import DataError
from data.music.key import Key
from tasks.melody.vocabulary import Vocabulary, reference

Scale = Literal["key", "any"]


@dataclass(frozen=True)
class Rules:
    """What may be added.

    Attributes:
        low: lowest MIDI pitch; None = as low as the vocabulary goes
        high: highest
        scale: `key` = the pitches of the key (five in the pentatonic modes, seven in major and minor), `any` = all
    """

    low: int | None = None
    high: int | None = None
    scale: Scale = "key"

    @property
    def ends(self) -> tuple[int, int]:
        """Lowest and highest MIDI pitch."""
        return 0 if self.low is None else self.low, 127 if self.high is None else self.high

    def allowed(self, key: Key, vocabulary: Vocabulary) -> Bool[np.ndarray, " p"]:
        """Which pitches of a vocabulary may be added in a key.

        Raises:
            DataError: none
        """
        pitch = reference(key) + np.arange(vocabulary.low, vocabulary.high + 1)
        low, high = self.ends
        legal = (pitch >= low) & (pitch <= high)
        if self.scale == "key":
            legal &= np.isin(pitch % 12, scale_of(key))
        if not legal.any():
            raise DataError(
                f"no pitch of {key} lies between {low} and {high}; vocabulary {vocabulary.hash} reaches from "
                f"{pitch[0]} to {pitch[-1]} in this key; widen the range"
            )
        return legal


def scale_of(key: Key) -> tuple[int, ...]:
    """Pitch classes of a key: five of the pentatonic modes, seven of major and minor."""
    return key.scale if key.mode in ("maj", "min") else key.pentatonic


@dataclass(frozen=True)
class Sampling:
    """How values are drawn.

    Attributes:
        seed: of the draws; a song's draws depend on the seed and its number alone
        temperature: below 1 = likelier values
        top_p: choose among the likeliest values that hold this share of the probability
    """

    seed: int = 1
    temperature: float = 1.0
    top_p: float = 0.9

    def __post_init__(self) -> None:
        if not self.temperature > 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature={self.temperature}, top_p={self.top_p}; expected a temperature above 0 and a share "
                "above 0 and at most 1"
            )
