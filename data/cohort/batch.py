"""The typed batch a survival model sees, and the sizes it must be built for."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Modality = Literal["slide", "genes"]


@dataclass(frozen=True)
class CohortSizes:
    """What a model must know about a prepared cohort before it is built.

    Attributes:
        patch_width: channels of a patch feature, None when the cohort has no slides
        gene_groups: group name -> number of genes, in order; empty when the cohort has no genes
        covariates: names of the clinical covariates (age, ...), z-scored on the training patients
        outputs: width of the head: the number of time bins, or 1 for a Cox risk
    """

    patch_width: int | None
    gene_groups: dict[str, int]
    covariates: tuple[str, ...]
    outputs: int


@dataclass(frozen=True)
class PatientBatch:
    """Patients of one step. Ragged bags are padded to the longest; `slide_keep` says what is real.

    Attributes:
        case_id: patient identifiers, length b
        patches: patch features, `[b, p, c]`; p = 0 when no patient of the batch has a slide
        slide_keep: True = a real patch, `[b, p]`; a row of False = a patient without slides
        grid: patch coordinates in level-0 pixels, `[b, p, 2]`; None when unknown for any patient of the batch
        genes: group name -> values, `[b, g]`
        genes_present: False = a patient without gene data (values are then 0), `[b]`
        covariates: z-scored on the training patients, a missing value is 0, `[b, a]`
        offset: log risk of the linear baseline, out of fold for training patients; 0 unless asked for, `[b]`
        time: months, > 0, `[b]`
        event: True = died, False = censored, `[b]`
        bins: index of the time bin, `[b]`
        slide: which of the patient's slides a patch is from, 0, 1, ..., `[b, p]`; `grid` holds places within one slide
    """

    case_id: list[str]
    patches: Float[Tensor, "b p c"]
    slide_keep: Bool[Tensor, "b p"]
    grid: Float[Tensor, "b p 2"] | None
    genes: dict[str, Float[Tensor, "b _"]]
    genes_present: Bool[Tensor, " b"]
    covariates: Float[Tensor, "b a"]
    offset: Float[Tensor, " b"]
    time: Float[Tensor, " b"]
    event: Bool[Tensor, " b"]
    bins: Int[Tensor, " b"]
    slide: Int[Tensor, "b p"] | None = None

    def __len__(self) -> int:
        return len(self.case_id)

    def without(self, modality: Modality) -> PatientBatch:
        """The same patients with one modality absent."""
        if modality == "slide":
            return replace(self, slide_keep=torch.zeros_like(self.slide_keep))
        return replace(
            self,
            genes={name: torch.zeros_like(values) for name, values in self.genes.items()},
            genes_present=torch.zeros_like(self.genes_present),
        )

    def to(self, device: torch.device | str) -> PatientBatch:
        """Move every tensor."""
        moved: dict[str, object] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                moved[f.name] = value.to(device)
            elif f.name == "genes":
                moved[f.name] = {name: group.to(device) for name, group in value.items()}
        return replace(self, **moved)  # type: ignore[arg-type]
