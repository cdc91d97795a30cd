"""What a reader may do with a file: read it, or say in one line what is wrong; and on how many files it is tried.

`make test` tries 50 cases of each law, always the same ones; `make faults` tries 2,000 and adds up what they did.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings

from data.errors import DataError
from tasks.experiment.folder import RunError
from tasks.experiment.signatures import ConfigError

MANY = "faults"
for name, cases in (("few", 50), (MANY, 2000)):
    settings.register_profile(
        name,
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def law(**made: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test of many made-up cases; how many is the profile's to say."""
    profile = MANY if settings.get_current_profile_name() == MANY else "few"
    return lambda test: settings.get_profile(profile)(given(**made)(test))


class Tried:
    """Calls a reader and allows two ends.

    Attributes:
        ends: how often it read, and how often it refused
    """

    def __init__(self) -> None:
        self.ends: Counter[str] = Counter()

    def __call__(self, read: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numpy, over values no cohort has
            try:
                found = read(*arguments, **options)
            except (DataError, ConfigError, RunError) as error:
                said = str(error)
                assert said.strip(), "an error without words"
                assert said.isprintable(), f"not one line: {said!r}"
                self.ends["refused"] += 1
                return None
        self.ends["read"] += 1
        return found
