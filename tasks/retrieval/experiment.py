"""What a retrieval config says: a collection of pairs, two encoders, an objective, and what it must stand beside."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from data.pairs.items import PairSource
from encoders.encoder import Encoder
from tasks.experiment.config import build
from tasks.experiment.folder import RunFolder
from tasks.experiment.trainer import TrainerOptions
from tasks.retrieval.fit_unit import FitOptions
from tasks.retrieval.objectives import Objective
from tasks.retrieval.two_towers import TwoTowers


@dataclass(frozen=True)
class TowerOptions:
    """What comes after each encoder.

    Attributes:
        width: of the shared space
        hidden: width of the projections' transformer blocks
        blocks: transformer blocks of each projection
        heads: attention heads of each block; must divide hidden
        dropout: of the projections
    """

    width: int = 128
    hidden: int = 256
    blocks: int = 1
    heads: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.width < 1 or self.heads < 1 or self.hidden % self.heads:
            raise ValueError(
                f"towers: width={self.width}, hidden={self.hidden}, heads={self.heads}; expected a width of at least 1 "
                "and heads that divide hidden"
            )


FIT, TRAINER, TOWERS = FitOptions(), TrainerOptions(), TowerOptions()


class RetrievalExperiment:
    """Train and judge one objective on two towers beside other objectives on the same towers and pairs.

    Args:
        name: of the run, of its folder and of the objective under test in every table
        pairs: the collection
        left: encoder of the left side
        right: encoder of the right side
        objective: the objective under test
        optimizer: built from parameter groups
        towers: what comes after the encoders
        fit: batches and stopping
        trainer: Lightning's options
        rivals: other objectives on the same towers, trained and scored alike, by name
        runs: folder that run folders go to, as `<runs>/retrieval/<name>`
    """

    task = "retrieval"
    namespaces = (
        "data.pairs.emoji",
        "data.pairs.folk",
        "data.pairs.captions",
        "data.pairs.matched",
        "data.pairs.sources",
        "data.pairs.arrays",
        "data.simulate.scenes",
        "encoders.image",
        "encoders.text",
        "encoders.melody",
        "encoders.adapters",
        "tasks.retrieval.objectives",
        "torch.optim",
    )

    def __init__(
        self,
        name: str,
        pairs: PairSource,
        left: Callable[[], Encoder],
        right: Callable[[], Encoder],
        objective: Callable[[], Objective],
        optimizer: Callable[[Iterable[Tensor]], Optimizer],
        towers: TowerOptions = TOWERS,
        fit: FitOptions = FIT,
        trainer: TrainerOptions = TRAINER,
        rivals: dict[str, Callable[[], Objective]] | None = None,
        runs: str = "runs",
    ):
        self.name, self.runs, self.pairs = name, runs, pairs
        self.left, self.right, self.towers = left, right, towers
        self.objective, self.rivals = objective, rivals or {}
        self.optimizer, self.fit, self.trainer = optimizer, fit, trainer
        for arm in self.rivals:
            if arm == name or "/" in arm:
                raise ValueError(f"'{arm}' cannot name a rival of run '{name}'; choose another name")

    @property
    def objectives(self) -> dict[str, Callable[[], Objective]]:
        """Every arm, the one under test first."""
        return {self.name: self.objective, **self.rivals}

    def build_towers(self) -> TwoTowers:
        """Towers with new weights, drawn from torch's generator."""
        options = self.towers
        return TwoTowers(
            self.left(), self.right(), options.width, options.hidden, options.blocks, options.heads, options.dropout
        )


def experiment_of(config: dict[str, Any]) -> RetrievalExperiment:
    """The experiment of a resolved config."""
    experiment: RetrievalExperiment = build(
        RetrievalExperiment, {key: value for key, value in config.items() if key != "task"}
    )
    return experiment


def experiment_of_run(run: Path) -> RetrievalExperiment:
    """The experiment of a run folder.

    Raises:
        RunError: there is no run at this path
    """
    return experiment_of(RunFolder.open(run).config)
