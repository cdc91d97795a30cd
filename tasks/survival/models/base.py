"""What every survival model is: a module built for a cohort that turns patients into logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data.cohort.batch import CohortSizes, PatientBatch


@dataclass(frozen=True)
class Prediction:
    """What a model says about the patients of a batch.

    Attributes:
        logits: hazard logits of each time bin, or one log risk, `[b, k]`
        losses: terms the model adds to the training loss, by name, already weighted
        attention: who looked where, by name, for explanations; no gradient
        counted: how many patients a term of `losses` is averaged over, where that is not the whole batch
    """

    logits: Float[Tensor, "b k"]
    losses: dict[str, Tensor] = field(default_factory=dict)
    attention: dict[str, Tensor] = field(default_factory=dict)
    counted: dict[str, Tensor] = field(default_factory=dict)


class MissingModality(ValueError):
    """A model reads a modality that the whole cohort lacks."""


class SurvivalModel(nn.Module, ABC):
    """Order patients by risk from whichever modalities they have.

    A subclass takes `sizes` and its own keyword options with defaults.

    Args:
        sizes: what the prepared cohort holds

    Attributes:
        reads_offset: whether the model looks at `PatientBatch.offset`
        reads_slides: whether it looks at patches; if not, none are loaded for it
    """

    reads_offset: ClassVar[bool] = False
    reads_slides: ClassVar[bool] = True

    def __init__(self, sizes: CohortSizes):
        super().__init__()
        if sizes.outputs < 1:
            raise ValueError(f"{type(self).__name__}: sizes.outputs is {sizes.outputs}; expected at least 1")
        self.sizes = sizes

    @abstractmethod
    def forward(self, batch: PatientBatch) -> Prediction:
        """Logits of the patients of a batch."""

    def patch_width(self) -> int:
        """Channels of a patch feature; refuses a cohort without slides."""
        if self.sizes.patch_width is None:
            raise MissingModality(
                f"{type(self).__name__} reads slides, but the cohort has none; "
                "give cohort.slides=FOLDER or choose a model of genes"
            )
        return self.sizes.patch_width

    def gene_groups(self) -> dict[str, int]:
        """Genes in each group; refuses a cohort without genes."""
        if not self.sizes.gene_groups:
            raise MissingModality(
                f"{type(self).__name__} reads genes, but the cohort has none; "
                "give a table with genes (cohort.table, cohort.groups) or choose a model of slides"
            )
        return self.sizes.gene_groups

    def last_layer(self) -> nn.Linear:
        """The layer that gives the logits: the last linear one that was built."""
        return [layer for layer in self.modules() if isinstance(layer, nn.Linear)][-1]


def initialise_xavier(module: nn.Module) -> None:
    """Xavier-normal weights and zero biases in every linear layer, as the CMTA and PORPOISE authors start."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def mean_of_present(
    vectors: list[Float[Tensor, "b w"]], present: list[Tensor], absent: Float[Tensor, " w"]
) -> Float[Tensor, "b w"]:
    """Average over the vectors a patient has; `absent` when there is none.

    Args:
        vectors: one summary per source, any values where absent
        present: which patients have it, bool `[b]` each
        absent: learned stand-in
    """
    keep = torch.stack(present, dim=1)[..., None]
    stacked = torch.stack(vectors, dim=1).masked_fill(~keep, 0.0)
    count = keep.sum(dim=1)
    return torch.where(count > 0, stacked.sum(dim=1) / count.clamp(min=1), absent)
