"""What a melody config says: which music, a model, whom it must stand beside, and what is generated to be judged."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from data.music.book import SongBook, SongSource
from data.music.chorales import Chorales
from tasks.experiment.config import build
from tasks.experiment.folder import RunFolder
from tasks.melody.judged import JUDGED, Judged, with_judged, with_keys
from tasks.melody.model import MelodyModel


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
        "tasks.melody.models.chorale_transformer",
        "tasks.melody.models.chorale_network",
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
        """What `music` loads, read once: a `SongBook` in which songs to be judged are test songs, or parts of chorales.

        Songs of unknown key are left out.

        Raises:
            DataError: nothing of it can be read
        """
        music = self.music.load()
        return with_judged(with_keys(music), self.judged) if isinstance(music, SongBook) else music

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
