"""What `fusion tune` may change: a YAML file of config keys, each with a list of choices or a range.

    optimizer.lr: {low: 1.0e-5, high: 1.0e-2, log: true}
    trainer.max_epochs: {low: 2, high: 30}
    model.size: [small, large]

Whole bounds make whole values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tasks.experiment.signatures import ConfigError, did_you_mean


@dataclass(frozen=True)
class Choices:
    """One of several values."""

    values: tuple[Any, ...]

    @property
    def corners(self) -> tuple[Any, ...]:
        """Values that a config must accept if it is to accept all."""
        return self.values

    def suggested(self, trial: Any, key: str) -> Any:
        """What an Optuna trial is to try."""
        return trial.suggest_categorical(key, self.values)

    def holds(self, value: Any) -> bool:
        """Whether the search could come upon this value."""
        return value in self.values


@dataclass(frozen=True)
class Range:
    """A number between two bounds, both included; whole when both bounds are; evenly on a log scale with `log`."""

    low: int | float
    high: int | float
    log: bool = False

    @property
    def corners(self) -> tuple[Any, ...]:
        """Values that a config must accept if it is to accept all."""
        return self.low, self.high

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are tried."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def suggested(self, trial: Any, key: str) -> Any:
        """What an Optuna trial is to try."""
        suggest = trial.suggest_int if self.whole else trial.suggest_float
        return suggest(key, self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        """Whether the search could come upon this value."""
        kinds = int if self.whole else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and self.low <= value <= self.high


Space = dict[str, Choices | Range]


def read_space(path: Path, fixed: Iterable[str]) -> Space:
    """The space of a file.

    Args:
        path: the YAML file
        fixed: first parts of keys that may not be searched, because trials would no longer be judged on the same cases

    Raises:
        ConfigError: the file cannot be read, a key is fixed, or a value is neither choices nor a range
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; docs/scale.md shows a space") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{path}: expected config keys with choices or ranges, e.g. 'optimizer.lr: [1.0e-4, 1.0e-3]'")
    space = {}
    for key, value in content.items():
        if (first := str(key).split(".")[0]) in fixed:
            raise ConfigError(f"{path}: {key} cannot be searched; with another {first} a trial is another experiment")
        space[str(key)] = (
            _choices(value, f"{path}: {key}") if isinstance(value, list) else _range(value, f"{path}: {key}")
        )
    return space


def _choices(values: list[Any], where: str) -> Choices:
    plain = all(value is None or isinstance(value, str | int | float | bool) for value in values)
    if len(values) < 2 or not plain or len(set(map(repr, values))) < len(values):
        raise ConfigError(f"{where}: expected at least two different plain values, found {values}")
    return Choices(tuple(values))


def _range(value: Any, where: str) -> Range:
    options = ("low", "high", "log")
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected a list of choices or {{low: .., high: .., log: ..}}, found {value!r}")
    for name in value:
        if name not in options:
            raise ConfigError(f"{where}: a range has no '{name}'{did_you_mean(str(name), options)} (low, high, log)")
    low, high = (_number(value.get(name), f"{where}: {name}") for name in ("low", "high"))
    log = value.get("log", False)
    if not low < high or not isinstance(log, bool) or (log and low <= 0):
        raise ConfigError(f"{where}: expected low < high, and low above 0 with log, found {value}")
    return Range(low, high, log)


def _number(value: Any, where: str) -> int | float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ConfigError(f"{where} must be a number, found {value!r} (YAML needs a point in 1.0e-4)")
    return value
