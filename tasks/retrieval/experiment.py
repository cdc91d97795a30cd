"""What a retrieval config says: a collection of pairs, two encoders, an objective, and what it must stand beside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from data.pairs.items import Pairs, PairSource
from data.pairs.without import without
from encoders.encoder import Encoder
from tasks.experiment.config import build
from tasks.experiment.folder import RunFolder
from tasks.experiment.trainer import TrainerOptions
from tasks.retrieval.conditional import AttributeEmbedder
from tasks.retrieval.fit_conditional import TripletOptions
from tasks.retrieval.fit_rerank import RerankOptions
from tasks.retrieval.fit_unit import FitOptions
from tasks.retrieval.objectives import Objective
from tasks.retrieval.rerank import CrossEncoder
from tasks.retrieval.two_towers import TwoTowers, Which


@dataclass(frozen=True)
class TowerOptions:
    """What comes after each encoder.

    Attributes:
        width: of the shared space
        hidden: width of the projections' transformer blocks
        blocks: transformer blocks of each projection
        heads: attention heads of each block; must divide hidden
        dropout: of the projections
        residual: sides, left or right, whose projection adds to their encoder's tokens and begins as nothing; width
            must be the width of their tokens. For a pretrained encoder with few items to learn from
        standardize: sides, left or right, whose projection reads features in units of their spread over the training
            items; their encoder must be frozen
    """

    width: int = 128
    hidden: int = 256
    blocks: int = 1
    heads: int = 4
    dropout: float = 0.1
    residual: list[Which] = field(default_factory=list)
    standardize: list[Which] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.width < 1 or self.heads < 1 or self.hidden % self.heads:
            raise ValueError(
                f"towers: width={self.width}, hidden={self.hidden}, heads={self.heads}; expected a width of at least 1 "
                "and heads that divide hidden"
            )


@dataclass(frozen=True)
class SpaceOptions:
    """One space per attribute of the left items, from the left encoder and one backbone (2307.13254).

    Attributes:
        embedders: arms of their own, by name; the first is the one that items are indexed with
        attributes: columns of the collection; null = all that it names
        width: of an embedding
        hidden: width of the backbone
        blocks: transformer blocks of the backbone
        heads: attention heads; must divide hidden
        dropout: of backbone and head
        fit: batches and margin
        epochs: passes over the training items
    """

    embedders: dict[str, Callable[[Encoder, Sequence[str]], AttributeEmbedder]]
    attributes: list[str] | None = None
    width: int = 128
    hidden: int = 128
    blocks: int = 1
    heads: int = 4
    dropout: float = 0.1
    fit: TripletOptions = field(default_factory=TripletOptions)
    epochs: int = 5

    def __post_init__(self) -> None:
        if not self.embedders:
            raise ValueError("spaces.embedders: name at least one, for example {query: ConditionalEmbedder}")
        if min(self.width, self.heads, self.epochs) < 1 or self.blocks < 0 or self.hidden % self.heads:
            raise ValueError(
                f"spaces: width={self.width}, hidden={self.hidden}, heads={self.heads}, blocks={self.blocks}, "
                f"epochs={self.epochs}; expected at least 1 each (blocks 0) and heads that divide hidden"
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
        rerank: a cross-encoder that reads the first hits of the objective under test again; null = none
        prompts: wordings of every text, `{}` for the text: rankings by the mean of their scores stand beside the others
        spaces: one space per attribute of the left items, trained beside the towers; null = none
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
        "tasks.retrieval.conditional",
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
        rerank: RerankOptions | None = None,
        prompts: list[str] | None = None,
        spaces: SpaceOptions | None = None,
        runs: str = "runs",
    ):
        self.name, self.runs, self.pairs = name, runs, pairs
        self.left, self.right, self.towers = left, right, towers
        self.objective, self.rivals = objective, rivals or {}
        self.optimizer, self.fit, self.trainer = optimizer, fit, trainer
        self.rerank, self.prompts, self.spaces = rerank, prompts or [], spaces
        self._collection: Pairs | None = None
        for arm in (*self.rivals, *self.embedders):
            if arm == name or "/" in arm or (arm in self.rivals and arm in self.embedders):
                raise ValueError(f"'{arm}' cannot name a rival of run '{name}'; choose another name")
        for prompt in self.prompts:
            if prompt.count("{}") != 1:
                raise ValueError(f"prompts: '{prompt}' must hold {{}} once, where the text goes")

    def collection(self) -> Pairs:
        """The pairs, without texts of which an encoder keeps no token; what is left out stands in the account.

        Raises:
            DataError: nothing remains
        """
        if self._collection is None:
            pairs = self.pairs.load()
            left, right = (
                made().unread(side.load(range(len(side)))) if side.name == "text" else []
                for made, side in ((self.left, pairs.left), (self.right, pairs.right))
            )
            self._collection = without(pairs, left, right, "the encoder keeps no token of it")
        return self._collection

    @property
    def objectives(self) -> dict[str, Callable[[], Objective]]:
        """Every arm, the one under test first."""
        return {self.name: self.objective, **self.rivals}

    @property
    def embedders(self) -> dict[str, Callable[[Encoder, Sequence[str]], AttributeEmbedder]]:
        """Every arm that learns one space per attribute."""
        return {} if self.spaces is None else self.spaces.embedders

    @property
    def arms(self) -> list[str]:
        """Everything that is trained, the objective under test first."""
        return [*self.objectives, *self.embedders]

    def build_embedder(self, arm: str, attributes: Sequence[str] | None = None) -> AttributeEmbedder:
        """An embedder on a left encoder of its own, with new weights, drawn from torch's generator.

        Args:
            arm: one of `embedders`
            attributes: what it embeds by; None = as the config says
        """
        options = self.spaces
        assert options is not None
        attributes = attributes or options.attributes or self.collection().attributes
        return options.embedders[arm](
            self.left(),
            attributes,
            width=options.width,
            hidden=options.hidden,
            blocks=options.blocks,
            heads=options.heads,
            dropout=options.dropout,
        )  # type: ignore[call-arg]

    def build_cross_encoder(self, towers: TwoTowers) -> CrossEncoder:
        """A cross-encoder over the tokens of both encoders, with new weights, drawn from torch's generator."""
        options = self.rerank
        assert options is not None
        left, right = (int(side.width) for side in (towers.left, towers.right))  # type: ignore[arg-type]
        return CrossEncoder(left, right, options.width, options.heads, options.dropout)

    def build_towers(self, objective: Objective) -> TwoTowers:
        """Towers for an objective with new weights, drawn from torch's generator."""
        options = vars(self.towers)
        return TwoTowers(self.left(), self.right(), **options, separate_pooled=objective.separate_pooled)


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
