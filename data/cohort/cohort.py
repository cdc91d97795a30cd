"""A cohort: the patients of one study, what is known of each, and an account of who was left out and why."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import pandas as pd

from data.cohort.account import Account
from data.cohort.splits import Split
from data.slides.feature_files import BagStore


@dataclass(frozen=True)
class Cohort:
    """Everything known about the patients of one study.

    Attributes:
        name: what reports call it
        patients: indexed by case_id; columns time (months, > 0), event (True = died), age (years, NaN = missing),
            and is_female and site when the source has them
        genes: gene features, float32, one row per patient that has any; None when the study has none
        bags: patch features of the patients that have slides; None when the study has none
        groups: group name -> gene feature columns, in order; a feature may be in several groups or in none
        account: who and what was left out, and why
        dropped: case_id -> why this patient of the source is not in `patients`
    """

    name: str
    patients: pd.DataFrame
    genes: pd.DataFrame | None
    bags: BagStore | None
    groups: dict[str, list[str]]
    account: Account
    dropped: dict[str, str] = field(default_factory=dict)

    @property
    def case_ids(self) -> list[str]:
        return list(self.patients.index)

    @property
    def has_outcomes(self) -> bool:
        """False for new patients that are only to be predicted: their times are unknown."""
        return bool(self.patients["time"].notna().all())


class CohortSource(ABC):
    """Where a cohort comes from; what a config names under `cohort`."""

    @abstractmethod
    def load(self) -> Cohort:
        """Read, check and align everything. Reads at most once; later calls return the same cohort."""

    @abstractmethod
    def splits(self) -> list[Split]:
        """The folds of this cohort: the published ones where there are any, else generated ones."""
