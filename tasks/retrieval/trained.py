"""Trained towers in a run folder: everything but the weights of frozen encoders, which come with their packages."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.errors import DataError
from encoders.encoder import Encoder
from encoders.frozen import encoder_hash
from fusion.tokens import Tokens
from tasks.experiment.folder import RunError, write_whole
from tasks.experiment.saved import Damaged, read_saved
from tasks.retrieval.experiment import RetrievalExperiment
from tasks.retrieval.objectives import Objective
from tasks.retrieval.scores import Score
from tasks.retrieval.two_towers import Encoded, TwoTowers

FILE = "weights.pt"
CROSS_ENCODER = "cross_encoder.pt"


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

    @property
    def encoders(self) -> dict[str, Encoder]:
        """By side: left and right."""
        left: Encoder = self.towers.left  # type: ignore[assignment]
        right: Encoder = self.towers.right  # type: ignore[assignment]
        return {"left": left, "right": right}

    def encoder(self, side: str) -> Encoder:
        """The encoder of a side, left or right."""
        return self.encoders[side]

    def project(self, side: str, tokens: Tokens) -> Encoded:
        """Items of a side in the shared space, from their encoder's tokens."""
        return self.towers.project_left(tokens) if side == "left" else self.towers.project_right(tokens)

    @classmethod
    def load(cls, unit: Path, experiment: RetrievalExperiment, arm: str) -> Trained:
        """The towers of a finished unit.

        Raises:
            RunError: the unit is not finished, or its weights belong to another version of the program
        """
        objective = experiment.objectives[arm]()
        towers = experiment.build_towers(objective)
        both = nn.ModuleDict({"towers": towers, "objective": objective})
        load_state(unit / FILE, both, list(_kept(towers, objective)))
        return cls(towers.eval(), objective.eval(), encoder_hash(towers))


def save(unit: Path, towers: TwoTowers, objective: Objective) -> None:
    """Write the trained weights of a unit."""
    save_state(unit / FILE, _kept(towers, objective))


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write weights, all of them or nothing."""
    content = io.BytesIO()
    torch.save(dict(state), content)
    write_whole(path, content.getvalue())


def load_state(path: Path, module: nn.Module, wanted: Sequence[str]) -> None:
    """Read weights into a module.

    Args:
        path: as `save_state` wrote it
        module: changed in place
        wanted: names of what must be there

    Raises:
        RunError: no such file, or it belongs to another version of the program
    """
    if not path.is_file():
        raise RunError(f"{path.parent}: no {path.name}; this unit is not finished, train it with --resume")
    try:
        kept = read_saved(path)
    except Damaged as error:
        raise RunError(f"{path}: cannot be loaded ({error}); train the run again") from None
    lacking = [name for name in wanted if name not in kept]
    try:
        lacking += module.load_state_dict(kept, strict=False).unexpected_keys
    except (RuntimeError, KeyError, TypeError, AttributeError, DataError) as error:
        lacking.append(str(error).splitlines()[-1].strip())
    if lacking:
        raise RunError(f"{path.parent}: weights do not fit this version ({lacking[0]}); train the run again")


def finished_unit(run: Path, done: Sequence[str], arm: str, seed: int | None) -> str:
    """The first finished unit of an arm.

    Args:
        run: the run folder
        done: names of its finished units
        arm: whose
        seed: which training; None = any

    Raises:
        RunError: there is none
    """
    units = [unit for unit in done if unit.rsplit("/", 1)[0] == arm]
    units = [unit for unit in units if seed is None or unit.endswith(f"-seed{seed}")]
    if not units:
        which = "" if seed is None else f" with seed {seed}"
        raise RunError(f"{run}: no finished training of '{arm}'{which}; train it with --resume")
    return units[0]


def _kept(towers: TwoTowers, objective: Objective) -> dict[str, Any]:
    """What training changes."""
    own = {f"towers.{name}": value for name, value in towers.state_dict().items() if not _frozen(towers, name)}
    return own | {f"objective.{name}": value for name, value in objective.state_dict().items()}


def _frozen(towers: TwoTowers, name: str) -> bool:
    """Whether an entry of the towers' state belongs to an encoder that is not trained."""
    sides = {"left.": towers.left, "right.": towers.right}
    return any(name.startswith(prefix) and bool(encoder.frozen) for prefix, encoder in sides.items())
