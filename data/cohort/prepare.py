"""Everything that is fitted before a model: scalers, clipping and time bins, on training patients only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from data.cohort.batch import CohortSizes, PatientBatch
from data.cohort.cohort import Cohort
from data.cohort.patients import Patient, PatientDataset, joined
from data.cohort.scales import gene_scales, time_bins
from data.errors import DataError
from data.slides.locks import write_whole
from data.text.reading import parsed_object, read_text


@dataclass(frozen=True)
class Fitted:
    """What training patients taught: enough to prepare any other patient the same way.

    Attributes:
        edges: bounds of the time bins in months, first 0, last inf; bin i holds edges[i] <= t < edges[i + 1]
        clip: bound of a scaled gene value
        covariates: names of the clinical covariates that vary
        covariate_mean, covariate_scale: of each covariate
        genes: names of the gene features
        gene_mean, gene_scale: of each gene feature; a scale of 0 marks one that is constant
        groups: group name -> gene features
    """

    edges: tuple[float, ...]
    clip: float
    covariates: tuple[str, ...]
    covariate_mean: tuple[float, ...]
    covariate_scale: tuple[float, ...]
    genes: tuple[str, ...]
    gene_mean: tuple[float, ...]
    gene_scale: tuple[float, ...]
    groups: dict[str, list[str]]

    def save(self, path: Path) -> None:
        """Write as JSON; every number survives exactly."""
        write_whole(path, json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Fitted:
        """Read what `save` wrote.

        Raises:
            DataError: no such file, or not one that `save` wrote
        """
        try:
            kept = parsed_object(read_text(path), str(path))
            values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in kept.items()}
            fitted = cls(**values)
            fitted.check()
        except (DataError, TypeError, AttributeError, ValueError) as problem:
            raise DataError(
                f"{path}: not a saved preparation ({problem}); it is written beside every trained fold"
            ) from problem
        return fitted

    def check(self) -> None:
        """Every value is of the kind and number that belong together.

        Raises:
            ValueError: one is not
        """
        named = {"covariate_mean": self.covariates, "covariate_scale": self.covariates}
        named |= {"gene_mean": self.genes, "gene_scale": self.genes}
        for field, names in named.items():
            values = getattr(self, field)
            if not isinstance(values, tuple) or len(values) != len(names):
                raise ValueError(f"{field} of {len(names)} names")
        of_genes = (*self.gene_mean, *self.gene_scale)
        numbers = [self.clip, *self.edges, *self.covariate_mean, *self.covariate_scale, *of_genes]
        if not all(isinstance(number, int | float) for number in numbers):
            raise ValueError("a number that is none")
        if not all(isinstance(name, str) for name in (*self.covariates, *self.genes)):
            raise ValueError("a name that is no text")
        known = set(self.genes)
        if not all(isinstance(group, list) and known.issuperset(group) for group in self.groups.values()):
            raise ValueError("a group of unknown genes")


class Preparation:
    """How patients are made ready for a model.

    Args:
        bins: time bins, cut at the quantiles of the training patients' event times
        clip: bound of a gene value after scaling; real tables hold z-scores of 36,893
        scale: "standard": mean and standard deviation. "robust": median and half the central 68 % where that is
            narrower, so that one such outlier does not flatten everybody else's values to nothing
        covariates: clinical columns to use, of age and is_female; one that is constant in training is left out
        max_patches: random patches kept of a bag while training; None = all
    """

    def __init__(
        self,
        bins: int = 4,
        clip: float = 3.0,
        scale: Literal["standard", "robust"] = "standard",
        covariates: tuple[str, ...] = ("age",),
        max_patches: int | None = None,
    ):
        if bins < 1:
            raise ValueError(f"bins={bins}: at least 1")
        if not clip > 0:
            raise ValueError(f"clip={clip}: must be positive")
        if scale not in ("standard", "robust"):
            raise ValueError(f"scale={scale!r}: expected standard or robust")
        if max_patches is not None and max_patches < 1:
            raise ValueError(f"max_patches={max_patches}: at least 1, or null for all")
        self.bins, self.clip, self.scale = bins, clip, scale
        self.covariates, self.max_patches = tuple(covariates), max_patches

    def fit(self, cohort: Cohort, train_ids: Sequence[str]) -> Prepared:
        """Learn scalers and time bins from training patients.

        Raises:
            DataError: an unknown patient or covariate, no outcomes, or too few events for the bins
        """
        if not cohort.has_outcomes:
            raise DataError(
                f"cohort {cohort.name}: no outcomes, so nothing can be trained on it; it can only be predicted"
            )
        train = _of(cohort, train_ids)
        covariates, mean, scale = self._fit_covariates(cohort, train)
        genes, gene_mean, gene_scale = gene_scales(cohort, train, self.scale == "robust")
        fitted = Fitted(
            edges=time_bins(train["time"].to_numpy(), train["event"].to_numpy(), self.bins, cohort.name),
            clip=self.clip,
            covariates=covariates,
            covariate_mean=mean,
            covariate_scale=scale,
            genes=genes,
            gene_mean=gene_mean,
            gene_scale=gene_scale,
            groups=cohort.groups,
        )
        return Prepared(cohort, fitted, self.max_patches)

    def _fit_covariates(
        self, cohort: Cohort, train: pd.DataFrame
    ) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
        unknown = [c for c in self.covariates if c not in train]
        if unknown:
            raise DataError(
                f"cohort {cohort.name}: no covariate {unknown[0]!r}; it has "
                f"{', '.join(c for c in ('age', 'is_female') if c in train)}"
            )
        values = train[list(self.covariates)].astype(float)
        varying = [c for c in self.covariates if values[c].nunique() > 1]
        chosen = values[varying]
        return tuple(varying), tuple(chosen.mean()), tuple(chosen.std(ddof=0))


def _of(cohort: Cohort, ids: Sequence[str]) -> pd.DataFrame:
    unknown = [i for i in ids if i not in cohort.patients.index]
    if unknown:
        raise DataError(
            f"cohort {cohort.name}: no patient {unknown[0]} ({len(unknown)} of the {len(ids)} asked for are unknown)"
        )
    return cohort.patients.loc[list(ids)]


@dataclass(frozen=True)
class Prepared:
    """A cohort seen through what training patients taught; the cohort may be theirs or one of new patients.

    Attributes:
        cohort: whose patients are prepared
        fitted: scalers and bins
        max_patches: random patches kept of a bag while training; None = all
    """

    cohort: Cohort
    fitted: Fitted
    max_patches: int | None = None

    def __post_init__(self) -> None:
        have = set() if self.cohort.genes is None else set(self.cohort.genes.columns)
        missing = [g for g in self.fitted.genes if g not in have]
        if missing and have:
            raise DataError(
                f"cohort {self.cohort.name}: {len(missing)} of the {len(self.fitted.genes)} genes the model learned "
                f"from are not in this table ({', '.join(missing[:3])}); add these columns (empty where unknown)"
            )

    def without_slides(self) -> Prepared:
        """The same patients, nothing of whose slides is read."""
        return replace(self, cohort=replace(self.cohort, bags=None))

    @property
    def edges(self) -> tuple[float, ...]:
        """Bounds of the time bins in months, bins + 1 of them, first 0, last inf."""
        return self.fitted.edges

    def sizes(self, outputs: int) -> CohortSizes:
        """What a model is built for.

        Args:
            outputs: width of its head
        """
        return CohortSizes(
            patch_width=None if self.cohort.bags is None else self.cohort.bags.width,
            gene_groups={name: len(columns) for name, columns in self.fitted.groups.items()},
            covariates=self.fitted.covariates,
            outputs=outputs,
        )

    @cached_property
    def scaled_genes(self) -> pd.DataFrame:
        """Clipped z-scores, float32, of the patients that have genes; a gap and a constant gene are 0."""
        if self.cohort.genes is None or not self.fitted.genes:
            return pd.DataFrame(index=self.cohort.patients.index[:0], columns=list(self.fitted.genes), dtype=np.float32)
        raw = self.cohort.genes[list(self.fitted.genes)]
        mean, scale = np.asarray(self.fitted.gene_mean), np.asarray(self.fitted.gene_scale)
        z = (raw.to_numpy(np.float64) - mean) / np.where(scale > 0, scale, np.inf)
        clipped = np.clip(np.nan_to_num(z, nan=0.0), -self.fitted.clip, self.fitted.clip)
        return pd.DataFrame(clipped.astype(np.float32), index=raw.index, columns=raw.columns)

    @cached_property
    def scaled_covariates(self) -> pd.DataFrame:
        """z-scores, float32, of every patient; a missing value is 0."""
        names = list(self.fitted.covariates)
        raw = self.cohort.patients.reindex(columns=names).astype(float)
        z = (raw - np.asarray(self.fitted.covariate_mean)) / np.asarray(self.fitted.covariate_scale)
        return z.fillna(0.0).astype(np.float32)

    def matrix(self, ids: Sequence[str], genes: bool = True, covariates: bool = True) -> pd.DataFrame:
        """Scaled features of some patients for linear models: genes, then covariates.

        Args:
            ids: patients, in the order wanted
            genes: all gene features, grouped or not; 0 for a patient without genes
            covariates: the clinical covariates
        """
        patients = _of(self.cohort, ids)
        parts = []
        if genes:
            parts.append(self.scaled_genes.reindex(patients.index, fill_value=0.0))
        if covariates:
            parts.append(self.scaled_covariates.loc[patients.index])
        return pd.concat(parts, axis=1) if parts else pd.DataFrame(index=patients.index)

    def dataset(
        self, ids: Sequence[str], offset: pd.Series | None = None, training: bool = False, seed: int = 0
    ) -> PatientDataset:
        """Single patients; bags are read when a patient is asked for.

        Args:
            ids: patients, in order
            offset: log risk of a linear baseline, indexed by case_id; None = 0
            training: draw `max_patches` of each bag, new ones each epoch (`PatientDataset.set_epoch`)
            seed: of these draws
        """
        patients = _of(self.cohort, ids)
        if offset is not None and not patients.index.isin(offset.index).all():
            lacking = patients.index[~patients.index.isin(offset.index)]
            raise DataError(
                f"cohort {self.cohort.name}: no offset for patient {lacking[0]} ({len(lacking)} such patients)"
            )
        time = patients["time"].to_numpy(float)
        return PatientDataset(
            case_ids=list(patients.index),
            bags=self.cohort.bags,
            genes=self.scaled_genes,
            covariates=self.scaled_covariates.loc[patients.index].to_numpy(),
            offset=np.zeros(len(patients)) if offset is None else offset.loc[patients.index].to_numpy(float),
            time=time,
            event=patients["event"].to_numpy(bool),
            bins=self.bins_of(time),
            max_patches=self.max_patches if training else None,
            seed=seed,
        )

    def bins_of(self, time: np.ndarray) -> np.ndarray:
        """Index of the right-open time bin of each time in months; 0 for an unknown time."""
        return np.where(np.isnan(time), 0, np.searchsorted(self.edges[1:-1], time, side="right"))

    @cached_property
    def _group_positions(self) -> dict[str, torch.Tensor]:
        at = {gene: i for i, gene in enumerate(self.fitted.genes)}
        return {name: torch.tensor([at[g] for g in columns]) for name, columns in self.fitted.groups.items()}

    def collate(self, patients: list[Patient]) -> PatientBatch:
        """Join single patients into one batch: bags padded to the longest, genes gathered into their groups."""
        width = 0 if self.cohort.bags is None else self.cohort.bags.width
        return joined(patients, width, self._group_positions)
