"""Single patients on demand, and how they are joined into a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.cohort.batch import PatientBatch
from data.slides.feature_files import Bag, BagStore


@dataclass(frozen=True)
class Patient:
    """One patient, scaled; see `PatientBatch` for units.

    Attributes:
        bag: None for a patient without slides
        genes: all gene features in the table's order; None for a patient without genes
    """

    case_id: str
    bag: Bag | None
    genes: Tensor | None
    covariates: Tensor
    offset: float
    time: float
    event: bool
    bin: int


class PatientDataset(Dataset[Patient]):
    """Patients of one side of a split; bags are read when a patient is asked for.

    Args:
        case_ids: patients, in order; the arrays below follow it
        bags: None when the cohort has no slides
        genes: scaled, indexed by case_id
        covariates: scaled, `[n, a]`
        offset: log risk, `[n]`
        time: months, `[n]`
        event: True = died, `[n]`
        bins: index of the time bin, `[n]`
        max_patches: random patches kept of each bag; None = all
        seed: of the random patches
    """

    def __init__(
        self,
        case_ids: Sequence[str],
        bags: BagStore | None,
        genes: pd.DataFrame,
        covariates: np.ndarray,
        offset: np.ndarray,
        time: np.ndarray,
        event: np.ndarray,
        bins: np.ndarray,
        max_patches: int | None = None,
        seed: int = 0,
    ):
        self.case_ids = list(case_ids)
        self.time, self.event, self.bins, self.offset = time, event, bins, offset
        self._bags, self._max_patches, self._seed, self._epoch = bags, max_patches, seed, 0
        self._genes = torch.from_numpy(genes.to_numpy(np.float32))
        self._gene_row = {case: row for row, case in enumerate(genes.index)}
        self._covariates = torch.from_numpy(np.ascontiguousarray(covariates, dtype=np.float32))

    def set_epoch(self, epoch: int) -> None:
        """Draw other patches than in other epochs, the same ones whenever this epoch is run."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self.case_ids)

    def __getitem__(self, index: int) -> Patient:
        case = self.case_ids[index]
        row = self._gene_row.get(case)
        return Patient(
            case_id=case,
            bag=self._drawn(self._bags.read(case), index) if self._bags is not None and case in self._bags else None,
            genes=None if row is None or not self._genes.shape[1] else self._genes[row],
            covariates=self._covariates[index],
            offset=float(self.offset[index]),
            time=float(self.time[index]),
            event=bool(self.event[index]),
            bin=int(self.bins[index]),
        )

    def _drawn(self, bag: Bag, index: int) -> Bag:
        patches = len(bag.slide)
        if self._max_patches is None or patches <= self._max_patches:
            return bag
        draw = np.random.default_rng((self._seed, self._epoch, index))
        kept = torch.from_numpy(np.sort(draw.permutation(patches)[: self._max_patches]))
        grid = None if bag.grid is None else bag.grid[kept]
        return replace(bag, features=bag.features[kept], grid=grid, slide=bag.slide[kept])


def joined(patients: Sequence[Patient], patch_width: int, groups: Mapping[str, Tensor]) -> PatientBatch:
    """One batch of several patients.

    Args:
        patients: at least one
        patch_width: channels of a patch feature, 0 when the cohort has no slides
        groups: group name -> positions of its genes
    """
    longest = max((len(p.bag.slide) for p in patients if p.bag is not None), default=0)
    b = len(patients)
    patches = torch.zeros(b, longest, patch_width)
    slide_keep = torch.zeros(b, longest, dtype=torch.bool)
    slide = torch.zeros(b, longest, dtype=torch.long)
    known = longest > 0 and all(p.bag is None or p.bag.grid is not None for p in patients)
    grid = torch.zeros(b, longest, 2) if known else None
    for row, patient in enumerate(patients):
        if patient.bag is None:
            continue
        n = len(patient.bag.slide)
        patches[row, :n] = patient.bag.features
        slide_keep[row, :n] = True
        slide[row, :n] = patient.bag.slide
        if grid is not None and patient.bag.grid is not None:
            grid[row, :n] = patient.bag.grid
    width = next(
        (len(p.genes) for p in patients if p.genes is not None),
        max((int(i.max()) + 1 for i in groups.values()), default=0),
    )
    genes = torch.stack([torch.zeros(width) if p.genes is None else p.genes for p in patients])
    return PatientBatch(
        case_id=[p.case_id for p in patients],
        patches=patches,
        slide_keep=slide_keep,
        grid=grid,
        genes={name: genes[:, positions] for name, positions in groups.items()},
        genes_present=torch.tensor([p.genes is not None for p in patients]),
        covariates=torch.stack([p.covariates for p in patients]),
        offset=torch.tensor([p.offset for p in patients], dtype=torch.float32),
        time=torch.tensor([p.time for p in patients], dtype=torch.float32),
        event=torch.tensor([p.event for p in patients]),
        bins=torch.tensor([p.bin for p in patients]),
        slide=slide,
    )
