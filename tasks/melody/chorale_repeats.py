"""Where a chorale repeats itself: what a network that copies would find easy."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from tasks.melody.chorale_tokens import Piece

LEAST = 16
"""16ths: a bar of 4/4."""


def continued(piece: Piece, least: int = LEAST) -> Bool[Tensor, " _"]:
    """16ths whose last `least` chords stand somewhere before them in the same order, so that the next can be copied.

    Args:
        piece: symbols
        least: chords that must agree
    """
    _, chords = np.unique(piece.numpy(), axis=0, return_inverse=True)
    n = len(chords)
    chords = chords.reshape(n)
    run, found = np.zeros(n, np.int64), np.zeros(n, bool)
    for at in range(1, n):
        # run[j]: how many chords before `at` equal those before the earlier place j.
        longer = np.where(chords[at - 1] == chords[: at - 1], run[: at - 1] + 1, 0)
        run = np.zeros(n, np.int64)
        run[1:at] = longer
        found[at] = longer.max(initial=0) >= least
    return torch.from_numpy(found)
