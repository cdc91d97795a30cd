"""What `melody generate` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks.melody.rules import Scale


@dataclass(frozen=True)
class Request:
    """What is asked for; see the options of `melody generate`."""

    run: Path
    output: Path
    skeleton: Path | None = None
    key: str | None = None
    metre: str | None = None
    seed: int = 1
    top_p: float = 0.9
    temperature: float = 1.0
    count: int = 1
    infill: str | None = None
    low: int | None = None
    high: int | None = None
    scale: Scale = "key"
    rho: float = 0.3
    track: str | None = None
    wav: bool = False
    roll: bool = False
    bars: int | None = None
    stream: bool = False
    arm: str | None = None
    unit_seed: int | None = None

    def place(self, number: int) -> Path:
        """Where a melody goes, numbered from 0."""
        if self.count == 1:
            return self.output
        return self.output.with_name(f"{self.output.stem}-{number + 1}{self.output.suffix}")

    @property
    def only_for_melodies(self) -> list[str]:
        """Options that were given and that only a run of songs can follow."""
        given = {
            "--skeleton": self.skeleton is not None,
            "--key": self.key is not None,
            "--metre": self.metre is not None,
            "--infill": self.infill is not None,
            "--low": self.low is not None,
            "--high": self.high is not None,
            "--scale": self.scale != "key",
            "--track": self.track is not None,
            "--stream": self.stream,
            "--roll": self.roll,
        }
        return [name for name, there in given.items() if there]
