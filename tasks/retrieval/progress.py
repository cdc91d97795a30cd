"""How far a long job is and how long it will take, a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

from tasks.experiment.console import say

EVERY = 5.0
"""Seconds between lines; a job that ends before says nothing."""


class Progress:
    """Say how many are done and how much time is left; called with (done, in all).

    Args:
        things: what is counted, in the plural
        out: where lines go
        clock: seconds
    """

    def __init__(self, things: str, out: Callable[[str], None] = say, clock: Callable[[], float] = time.monotonic):
        self.things, self.out, self.clock = things, out, clock
        self._began = self._said = clock()
        self._before = 0

    def __call__(self, done: int, total: int) -> None:
        now = self.clock()
        if done < self._before:
            self._began = now
        self._before = done
        if now - self._said >= EVERY and done:
            self._said = now
            left = (now - self._began) * (total - done) / done
            self.out(f"{done:,} of {total:,} {self.things}, about {_words(left)} left")


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
