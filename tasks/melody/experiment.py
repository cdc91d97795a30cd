"""What a melody config says: which music, a model, whom it must stand beside, and what is generated to be judged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data.music.book import SongSource
from data.music.chorales import Chorales
from tasks.experiment.config import build
from tasks.experiment.folder import RunFolder
from tasks.melody.model import MelodyModel


@dataclass(frozen=True)
class Judged:
    """What is generated to be judged beside real songs.

    Attributes:
        songs: held-out songs whose skeletons are given back as melodies; 0 = nothing is generated
        genre: only songs of which this is part of the genre, `xiaodiao`; null = any song
        seed: of the sampling
        temperature: below 1 = likelier notes
        top_p: choose among the likeliest notes that hold this share of the probability
        shown: how many songs the report plays
    """

    songs: int = 100
    genre: str | None = None
    seed: int = 1
    temperature: float = 1.0
    top_p: float = 0.95
    shown: int = 3

    def __post_init__(self) -> None:
        if self.songs < 0 or self.shown < 0:
            raise ValueError(
                f"judged: songs={self.songs}, shown={self.shown}; expected at least 0 (0 songs = nothing is generated)"
            )
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"judged: temperature={self.temperature}, top_p={self.top_p}; expected a temperature above 0 and a "
                "share above 0 and at most 1"
            )


JUDGED = Judged()


class MelodyExperiment:
    """Train and judge one model of music beside others and beside tables, on the same pieces.

    Args:
        name: of the run, of its folder and of the model under test in every table
        music: the collection
        model: the model under test
        rivals: other models, trained and measured alike, by name
        baselines: models without randomness on the same pieces, by name
        judged: what is generated to be judged, by models that generate
        runs: folder that run folders go to, as `<runs>/melody/<name>`
    """

    task = "melody"
    namespaces = (
        "data.music.essen",
        "data.music.pop909",
        "data.music.folder",
        "data.music.chorales",
        "data.simulate.melodies",
        "tasks.melody.models.small_tunes",
        "tasks.melody.models.music_transformer",
        "tasks.melody.markov",
        "tasks.melody.chorale_table",
        "torch.optim",
    )

    def __init__(
        self,
        name: str,
        music: SongSource | Chorales,
        model: MelodyModel,
        rivals: dict[str, MelodyModel] | None = None,
        baselines: dict[str, MelodyModel] | None = None,
        judged: Judged = JUDGED,
        runs: str = "runs",
    ):
        self.name, self.runs, self.music = name, runs, music
        self.model, self.rivals, self.baselines = model, rivals or {}, baselines or {}
        self.judged = judged
        for arm in {**self.rivals, **self.baselines}:
            if arm == name or "/" in arm:
                raise ValueError(f"'{arm}' cannot name a rival or a baseline of run '{name}'; choose another name")
        if both := self.rivals.keys() & self.baselines.keys():
            raise ValueError(f"'{min(both)}' names a rival and a baseline; give one of them another name")

    @cached_property
    def pieces(self) -> Any:
        """What `music` loads, read once: a `SongBook`, or parts of chorales.

        Raises:
            DataError: nothing of it can be read
        """
        return self.music.load()

    @property
    def models(self) -> dict[str, MelodyModel]:
        """Everything that is measured, the model under test first."""
        return {self.name: self.model, **self.rivals, **self.baselines}


def experiment_of(config: dict[str, Any]) -> MelodyExperiment:
    """The experiment of a resolved config."""
    experiment: MelodyExperiment = build(
        MelodyExperiment, {key: value for key, value in config.items() if key != "task"}
    )
    return experiment


def experiment_of_run(run: Path) -> MelodyExperiment:
    """The experiment of a run folder.

    Raises:
        RunError: there is no run at this path
    """
    return experiment_of(RunFolder.open(run).config)
