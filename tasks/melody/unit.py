"""One model with one seed: learn, say how likely the held-out pieces are, and generate what is to be judged."""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from data.music.book import SongBook
from tasks.experiment.folder import write_whole
from tasks.melody.composed import Composer
from tasks.melody.experiment import MelodyExperiment, experiment_of
from tasks.melody.judged import generate
from tasks.melody.model import table_of

MEASURED_SPLITS = ("valid", "test")


@lru_cache(maxsize=2)
def experiment_in_process(config: str) -> MelodyExperiment:
    """The experiment of a config as JSON; a process that runs several units reads its music once."""
    return experiment_of(json.loads(config))


def run(folder: Path, config: dict[str, Any], arm: str, fold: int, seed: int) -> dict[str, Any]:
    """Learn and measure.

    Args:
        folder: of this unit
        config: the resolved config
        arm: one of `MelodyExperiment.models`
        fold: always 0: the collection says what is trained and what is tested
        seed: of weights, order and dropout

    Returns:
        facts for done.json
    """
    experiment = experiment_in_process(json.dumps(config))
    music = experiment.pieces
    model = copy.deepcopy(experiment.models[arm])
    facts = model.fit(music, folder, seed)
    measured = [row for split in MEASURED_SPLITS for row in model.measure(music, split)]
    write_whole(folder / "nll.csv", table_of(measured).to_csv(index=False))
    if isinstance(model, Composer) and model.composes and experiment.judged.songs and isinstance(music, SongBook):
        facts["generated"] = generate(folder, model, music, experiment.judged)
    return facts
