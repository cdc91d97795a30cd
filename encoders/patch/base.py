"""What every patch encoder is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Float32, UInt8

Patches = UInt8[np.ndarray, "p y x 3"]
Features = Float32[np.ndarray, "p c"]


class PatchEncoder(ABC):
    """Turn patches into feature vectors. A patch's features depend on that patch alone.

    Attributes:
        name: names the feature folder; differs where the features differ
        width: length of a feature vector
        central: one process encodes for all readers (a network, perhaps on a GPU); False = every reader encodes its own
        batch: patches encoded at once when `central`
    """

    name: str
    width: int
    central: bool = False
    batch: int = 64

    @abstractmethod
    def __call__(self, pixels: Patches) -> Features:
        """Encode patches.

        Args:
            pixels: RGB, 0 to 255, `[p, y, x, 3]`

        Returns:
            features, `[p, c]`
        """
