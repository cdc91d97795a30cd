"""A small gene table to write, change and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data.cohort.tables import TableCohort


def table(folder: Path, patients: int = 40, **changed: object) -> Path:
    """A small table in the PORPOISE layout, one row per patient, with some columns replaced."""
    draw = np.random.default_rng(5)
    columns: dict[str, object] = {
        "case_id": [f"P{i:03d}" for i in range(patients)],
        "slide_id": [f"P{i:03d}-DX1.svs" for i in range(patients)],
        "age": draw.integers(40, 80, patients),
        "site": draw.choice(["A1", "B2"], patients),
        "survival_months": np.round(draw.uniform(1, 60, patients), 2),
        "censorship": draw.integers(0, 2, patients),
        "is_female": draw.integers(0, 2, patients),
        "train": 1.0,
        "A_rnaseq": draw.normal(size=patients),
        "B_rnaseq": draw.normal(size=patients),
        "A_mut": draw.integers(0, 2, patients),
    }
    columns |= changed
    path = folder / "study_all_clean.csv"
    pd.DataFrame({name: values for name, values in columns.items() if values is not None}).to_csv(path, index=False)
    return path


def load(path: Path, **options: object):
    return TableCohort(str(path), groups="none", **options).load()  # type: ignore[arg-type]
