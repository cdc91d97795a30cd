"""Semi-real cohorts: real patients, genes and outcomes; simulated slides that know a stated part of the outcome."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import beta, norm, rankdata

from data.cohort.cohort import Cohort, CohortSource
from data.cohort.splits import Split
from data.errors import DataError
from data.simulate.patches import SHARE, Tissue, drawn_bag
from data.simulate.truth import c_index
from data.slides.feature_files import MemoryBags


class SemiRealCohort(CohortSource):
    """A real cohort whose slides are replaced by bags of simulated patches.

    Each patient's outcome becomes a normal score: the rank of the martingale residual (event minus Nelson-Aalen
    cumulative hazard at the patient's time), so that early deaths are high and long survival is low. The share of
    aggressive patches is a monotone map of `information * score + sqrt(1 - information^2) * noise`; its distribution is
    the same whatever the information. Genes and covariates stay as they are. A result here says what a fusion could
    gain if slides carried that much; it says nothing about real slides.

    Args:
        cohort: the real patients; slides they have are not looked at
        information: correlation of the slides' hidden score with the outcome's, at least 0 and below 1
        patches: mean number of patches of a patient
        width: channels of a patch feature
        seed: of slides and noise; noise is the same for every amount of information
    """

    def __init__(
        self, cohort: CohortSource, information: float = 0.5, patches: int = 24, width: int = 32, seed: int = 0
    ):
        if not 0 <= information < 1:
            raise ValueError(f"information={information}: must be at least 0 and below 1")
        for name, value, low in (("patches", patches, 4), ("width", width, 1)):
            if value < low:
                raise ValueError(f"{name}={value}: at least {low}")
        self.cohort, self.information = cohort, information
        self.patches, self.width, self.seed = patches, width, seed
        self._cohort: Cohort | None = None
        self._hidden: pd.Series | None = None

    def load(self) -> Cohort:
        if self._cohort is None:
            real = self.cohort.load()
            if not real.has_outcomes:
                raise DataError(f"{real.name}: slides can be simulated only for patients whose outcome is known")
            self._cohort, self._hidden = self._with_slides(real)
        return self._cohort

    def splits(self) -> list[Split]:
        return self.cohort.splits()

    @property
    def hidden(self) -> pd.Series:
        """What the slides hold, per case_id: a standard normal score, the larger the more aggressive patches."""
        self.load()
        assert self._hidden is not None
        return self._hidden

    def slides_ceiling(self, case_ids: list[str]) -> float:
        """c-index of the hidden score on these patients: what a perfect reader of the slides alone would reach."""
        return c_index(self.hidden.loc[case_ids], self.load().patients)

    def _with_slides(self, real: Cohort) -> tuple[Cohort, pd.Series]:
        look, noise, slide = (np.random.default_rng(s) for s in np.random.SeedSequence(self.seed).spawn(3))
        score = outcome_score(real.patients["time"].to_numpy(float), real.patients["event"].to_numpy(bool))
        chance = noise.normal(size=len(score))
        hidden = self.information * score + np.sqrt(1 - self.information**2) * chance
        tissue = Tissue.drawn(self.width, look)
        shares = beta.ppf(norm.cdf(hidden), *SHARE)
        streams = slide.spawn(len(score))
        bags = {
            case_id: drawn_bag(case_id, self.patches, tissue, stream, float(share))[0]
            for case_id, share, stream in zip(real.case_ids, shares, streams, strict=True)
        }
        account = deepcopy(real.account)
        account.note(
            "patients with simulated slides", len(bags), f"semi-real: information {self.information:g} of the outcome"
        )
        cohort = replace(real, name=f"{real.name}, simulated slides", bags=MemoryBags(bags), account=account)
        return cohort, pd.Series(hidden, index=real.patients.index)


def outcome_score(time: Float[np.ndarray, " n"], event: np.ndarray) -> Float[np.ndarray, " n"]:
    """Normal scores of martingale residuals: how much earlier than expected a patient died, or how much longer lived.

    Args:
        time: until death or until the patient was lost, above 0
        event: True = died
    """
    order = np.argsort(time, kind="stable")
    at_risk = len(time) - np.searchsorted(time[order], time, side="left")
    hazard = np.array([(1 / at_risk[event & (time <= until)]).sum() for until in time])
    return norm.ppf((rankdata(event - hazard) - 0.5) / len(time))
