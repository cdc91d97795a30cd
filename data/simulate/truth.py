"""The law by which simulated patients die, and what is the best that any model could make of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float


@dataclass(frozen=True)
class Hazard:
    """log hazard = patch * P + genes * G + product * P G, with P and G of mean 0 and variance 1, on a Weibull clock.

    Args:
        patch: weight of the patch-mixture term P, the share of aggressive patches
        genes: weight of the gene term G
        product: weight of P G, which no sum of one-modality models can express
        shape: of the Weibull clock; 1 = a hazard that is constant in time
        median: months at which a patient of risk 0 has died with probability 1/2
    """

    patch: float = 1.2
    genes: float = 1.2
    product: float = 0.8
    shape: float = 1.3
    median: float = 24.0

    def risk(self, patch_term: Float[np.ndarray, " n"], gene_term: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """log hazard ratio of each patient."""
        return self.patch * patch_term + self.genes * gene_term + self.product * patch_term * gene_term

    def death(self, risk: Float[np.ndarray, " n"], draw: np.random.Generator) -> Float[np.ndarray, " n"]:
        """Months until death: S(t) = exp(-ln 2 (t / median)^shape exp(risk))."""
        exposure = draw.exponential(size=len(risk)) / np.log(2)
        return self.median * (exposure * np.exp(-risk)) ** (1 / self.shape)


def expected_c_index(risk: Float[np.ndarray, " n"]) -> float:
    """c-index of the true risk when nobody is censored: mean of 1 / (1 + exp(-|difference|)) over pairs.

    Under proportional hazards the patient of higher risk dies first with exactly this probability. It is the ceiling:
    no model orders uncensored patients better, on average over what chance does to their times.
    """
    gap = np.abs(risk[:, None] - risk[None, :])[np.triu_indices(len(risk), k=1)]
    return float((1 / (1 + np.exp(-gap))).mean())


def censoring(death: Float[np.ndarray, " n"], share: float, draw: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Months until each patient would be lost: uniform from 0 to the end of the study, whatever the risk.

    The end is set so that the given share of these patients is lost before death.
    """
    if share == 0:
        return np.full(len(death), np.inf)
    when = draw.uniform(size=len(death))
    ends = np.sort(death / when)
    lost = min(len(ends) - 1, round(share * len(ends)))
    return when * ends[len(ends) - 1 - lost]


def c_index(risk: pd.Series, patients: pd.DataFrame) -> float:
    """Harrell's c-index of a risk on patients with time and event; what the true risk reaches on this very sample."""
    from lifelines.utils import concordance_index

    known = patients.loc[risk.index]
    return float(concordance_index(known["time"], -risk, known["event"]))
