"""What a survival config says: a cohort, a model, how it is fitted, and whom it must stand beside."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer

from data.cohort.batch import CohortSizes
from data.cohort.cohort import Cohort, CohortSource
from data.cohort.prepare import Preparation
from tasks.experiment.trainer import TrainerOptions
from tasks.survival.baselines import Baseline, LinearBaseline
from tasks.survival.losses import DiscreteHazard, SurvivalLoss
from tasks.survival.models.base import MissingModality, SurvivalModel


@dataclass(frozen=True)
class FitOptions:
    """How patients reach the model and when training stops.

    Attributes:
        batch_size: patients per batch
        sampling: `all` visits every training patient once an epoch; `balanced` draws as many with replacement, every
            class of time bin and censoring equally often (the MCAT and CMTA protocol)
        select: `last` keeps the last epoch; `nested` holds out some training patients, takes the number of epochs
            with their lowest loss (0 = the untrained model included) and trains on everybody for that many
        nested_share: share of the training patients held out for `nested`
    """

    batch_size: int = 16
    sampling: Literal["all", "balanced"] = "all"
    select: Literal["last", "nested"] = "last"
    nested_share: float = 0.2

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"fit.batch_size: expected at least 1, found {self.batch_size}")
        if not 0 < self.nested_share < 1:
            raise ValueError(f"fit.nested_share: expected between 0 and 1, found {self.nested_share}")


FIT, TRAINER = FitOptions(), TrainerOptions()


class SurvivalExperiment:
    """Train and judge one survival model beside its baselines, on the same folds and the same cases.

    Args:
        name: of the run, of its folder and of the model under test in every table
        cohort: who the patients are
        model: the model under test; it is built for every fold from the sizes of the prepared cohort
        loss: how logits become a loss and a risk
        optimizer: built from the model's parameters
        prepare: scaling, clipping and time bins, fitted on training patients only
        fit: batches, sampling and selection
        trainer: Lightning's options
        baselines: statistical models on the same folds, by the name the report gives them
        rivals: other networks, trained and scored like `model`, by name
        offset: a baseline whose out-of-fold log risk the models receive as `PatientBatch.offset`; null = zeros
        runs: folder that run folders go to, as `<runs>/survival/<name>`
    """

    task = "survival"
    namespaces = (
        "tasks.survival.models",
        "tasks.survival.losses",
        "tasks.survival.baselines",
        "data.cohort.tables",
        "data.cohort.prepare",
        "data.simulate.cohort",
        "data.simulate.semireal_cohort",
        "torch.optim",
    )

    def __init__(
        self,
        name: str,
        cohort: CohortSource,
        model: Callable[[CohortSizes], SurvivalModel],
        loss: SurvivalLoss,
        optimizer: Callable[[Iterable[Tensor]], Optimizer],
        prepare: Preparation,
        fit: FitOptions = FIT,
        trainer: TrainerOptions = TRAINER,
        baselines: dict[str, Baseline] | None = None,
        rivals: dict[str, Callable[[CohortSizes], SurvivalModel]] | None = None,
        offset: Baseline | None = None,
        runs: str = "runs",
    ):
        self.name, self.runs = name, runs
        self.cohort, self.prepare = cohort, prepare
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.fit, self.trainer = fit, trainer
        self.baselines, self.rivals, self.offset = baselines or {}, rivals or {}, offset
        if name in ("", ".", "..") or "/" in name:
            raise ValueError(f"name={name}: a run's name is that of its folder below runs={runs}, without a '/'")
        for arm in {**self.baselines, **self.rivals}:
            if arm == name or "/" in arm:
                raise ValueError(f"'{arm}' cannot name a baseline or a rival of run '{name}'; choose another name")
        if isinstance(loss, DiscreteHazard) and loss.outputs != prepare.bins:
            raise ValueError(
                f"loss.bins={loss.outputs} and prepare.bins={prepare.bins} differ; the hazards of the loss belong to "
                "the bins of the preparation, give both the same number"
            )
        both = self.baselines.keys() & self.rivals.keys()
        if both:
            raise ValueError(f"'{min(both)}' names a baseline and a rival; give one of them another name")

    def left_out(self, cohort: Cohort) -> dict[str, str]:
        """Rivals and baselines that read a modality this cohort lacks, and why they are not run."""
        genes = {name: len(columns) for name, columns in cohort.groups.items()} if cohort.genes is not None else {}
        width = None if cohort.bags is None else cohort.bags.width
        sizes = CohortSizes(width, genes, self.prepare.covariates, self.loss.outputs)
        reasons = {}
        for name, rival in self.rivals.items():
            try:
                rival(sizes)
            except MissingModality as error:
                reasons[name] = str(error).split(";")[0]
        for name, baseline in self.baselines.items():
            if isinstance(baseline, LinearBaseline) and baseline.genes and cohort.genes is None:
                reasons[name] = "it reads genes, but the cohort has none"
        return reasons

    @property
    def networks(self) -> dict[str, Callable[[CohortSizes], SurvivalModel]]:
        """Everything that is trained by gradient, the model under test first."""
        return {self.name: self.model, **self.rivals}

    @property
    def arms(self) -> list[str]:
        """Everything that is scored, the model under test first."""
        return [*self.networks, *self.baselines]
