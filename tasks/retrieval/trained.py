"""Trained towers in a run folder: everything but the weights of frozen encoders, which come with their packages."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import torch

from data.errors import DataError
from encoders.encoder import Encoder
from encoders.frozen import encoder_hash
from tasks.experiment.folder import RunError, write_whole
from tasks.experiment.saved import Damaged, read_saved
from tasks.retrieval.experiment import RetrievalExperiment
from tasks.retrieval.objectives import Objective
from tasks.retrieval.scores import Score
from tasks.retrieval.two_towers import TwoTowers

FILE = "weights.pt"


@dataclass(frozen=True)
class Trained:
    """Towers and objective of one finished unit, in evaluation mode.

    Attributes:
        towers, objective: as trained
        hash: of the towers; an index made by them carries it
    """

    towers: TwoTowers
    objective: Objective
    hash: str

    @property
    def score(self) -> Score:
        """What the objective ranks by."""
        score: Score = self.objective.score
        return score

    @property
    def weight(self) -> float:
        """Share of the global score where both are mixed."""
        return float(self.objective.global_share)

    def encoder(self, side: str) -> Encoder:
        """The encoder of a side, left or right."""
        found: Encoder = self.towers.left if side == "left" else self.towers.right  # type: ignore[assignment]
        return found

    @classmethod
    def load(cls, unit: Path, experiment: RetrievalExperiment, arm: str) -> Trained:
        """The towers of a finished unit.

        Raises:
            RunError: the unit is not finished, or its weights belong to another version of the program
        """
        if not (unit / FILE).is_file():
            raise RunError(f"{unit}: no {FILE}; this unit is not finished, train it with --resume")
        towers, objective = experiment.build_towers(), experiment.objectives[arm]()
        try:
            kept = read_saved(unit / FILE)
        except Damaged as error:
            raise RunError(f"{unit / FILE}: cannot be loaded ({error}); train the run again") from None
        try:
            missing = [
                name for name in towers.load_state_dict(kept["towers"], strict=False)[0] if not _frozen(towers, name)
            ]
            objective.load_state_dict(kept["objective"])
        except (RuntimeError, KeyError, TypeError, AttributeError, DataError) as error:
            missing = [str(error).splitlines()[0]]
        if missing:
            raise RunError(f"{unit}: weights do not fit this version ({missing[0]}); train the run again")
        return cls(towers.eval(), objective.eval(), encoder_hash(towers))


def save(unit: Path, towers: TwoTowers, objective: Objective) -> None:
    """Write the trained weights of a unit."""
    kept = {name: value for name, value in towers.state_dict().items() if not _frozen(towers, name)}
    content = io.BytesIO()
    torch.save({"towers": kept, "objective": objective.state_dict()}, content)
    write_whole(unit / FILE, content.getvalue())


def _frozen(towers: TwoTowers, name: str) -> bool:
    """Whether an entry of the towers' state belongs to an encoder that is not trained."""
    sides = {"left.": towers.left, "right.": towers.right}
    return any(name.startswith(prefix) and bool(encoder.frozen) for prefix, encoder in sides.items())
