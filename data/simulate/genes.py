"""Simulated genes: six families, each moved by a factor of its own; two of the factors decide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

FAMILIES = {
    "Tumor Suppressor Genes": ("TSG", 12),
    "Oncogenes": ("ONC", 20),
    "Protein Kinases": ("KIN", 28),
    "Cell Differentiation Markers": ("CDM", 24),
    "Transcription Factors": ("TRF", 32),
    "Cytokines and Growth Factors": ("CYT", 18),
}
DECIDING = ("Oncogenes", "Cytokines and Growth Factors")
_SHARED = 0.4


@dataclass(frozen=True)
class SimulatedGenes:
    """Attributes:
    values: `SYMBOL_rnaseq`, `SYMBOL_mut` (0/1) and `SYMBOL_cnv` (-2..2) of every patient, `[n, genes]`
    families: family -> gene symbols
    term: the gene term of the hazard, mean 0 and variance 1 by its law, `[n]`
    """

    values: pd.DataFrame
    families: dict[str, list[str]]
    term: Float[np.ndarray, " n"]


def drawn_genes(case_ids: list[str], draw: np.random.Generator) -> SimulatedGenes:
    """Genes of all patients.

    A family's RNA values share a factor (40 % of their variance). The gene term is the mean RNA value of the two
    deciding families, so it can be read off the table exactly; mutations and copy numbers are noise.
    """
    n = len(case_ids)
    columns: dict[str, np.ndarray] = {}
    families: dict[str, list[str]] = {}
    term = np.zeros(n)
    for family, (stem, count) in FAMILIES.items():
        symbols = [f"{stem}{i + 1}" for i in range(count)]
        factor = draw.normal(size=(n, 1))
        rna = np.sqrt(_SHARED) * factor + np.sqrt(1 - _SHARED) * draw.normal(size=(n, count))
        rna = rna.astype(np.float32)
        families[family] = symbols
        columns |= {f"{symbol}_rnaseq": rna[:, i] for i, symbol in enumerate(symbols)}
        rate = draw.uniform(0.02, 0.3, size=count // 4)
        columns |= {
            f"{s}_mut": (draw.uniform(size=n) < r).astype(np.float32) for s, r in zip(symbols, rate, strict=False)
        }
        copies = np.clip(np.round(draw.normal(scale=0.8, size=(n, count // 4))), -2, 2).astype(np.float32)
        columns |= {f"{s}_cnv": copies[:, i] for i, s in enumerate(symbols[: count // 4])}
        if family in DECIDING:
            term += rna.mean(axis=1, dtype=np.float64) / np.sqrt(len(DECIDING) * (_SHARED + (1 - _SHARED) / count))
    return SimulatedGenes(pd.DataFrame(columns, index=pd.Index(case_ids, name="case_id")), families, term)
