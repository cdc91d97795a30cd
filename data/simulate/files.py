"""A simulated cohort as the files a real one would come in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data.cohort.cohort import Cohort
from data.simulate.patches import PITCH
from data.slides.feature_layouts import SlideFeatures
from data.slides.feature_layouts import write_features as write_slide
from data.slides.grid import Grid
from data.slides.levels import Level


def write_table(path: Path, cohort: Cohort) -> None:
    """A row per slide in the PORPOISE layout; a patient without slides has one row without slide_id."""
    assert cohort.genes is not None
    patients = cohort.patients.rename(columns={"time": "survival_months"})
    patients["censorship"] = 1 - patients.pop("event").astype(int)
    joined = patients.join(cohort.genes.astype(np.float64), how="left")
    slides = pd.DataFrame(_slides(cohort), columns=["case_id", "slide_id"])
    slides.merge(joined, left_on="case_id", right_index=True).to_csv(path, index=False)


def _slides(cohort: Cohort) -> list[tuple[str, str | None]]:
    rows: list[tuple[str, str | None]] = []
    for case_id in cohort.case_ids:
        has = cohort.bags is not None and case_id in cohort.bags
        names = cohort.bags.read(case_id).slides if has and cohort.bags is not None else (None,)
        rows += [(case_id, None if name is None else f"{name}.svs") for name in names]
    return rows


def write_signatures(path: Path, groups: dict[str, list[str]]) -> None:
    """A column of gene symbols per group."""
    symbols = {name: pd.Series(sorted({c.rsplit("_", 1)[0] for c in columns})) for name, columns in groups.items()}
    pd.DataFrame(symbols).to_csv(path, index=False)


def write_features(folder: Path, cohort: Cohort) -> None:
    """Write all bags as a TRIDENT job: 256 px patches at 20x of a 40x scan."""
    assert cohort.bags is not None
    for case_id in cohort.bags.case_ids:
        bag = cohort.bags.read(case_id)
        assert bag.grid is not None
        for index, name in enumerate(bag.slides):
            of_slide = bag.slide == index
            coords = bag.grid[of_slide].numpy().astype(np.int64)
            width, height = (int(side) + PITCH for side in coords.max(axis=0))
            grid = Grid(
                patch=256,
                overlap=0,
                mpp=0.5,
                level=0,
                ratio=PITCH / 256,
                size0=PITCH,
                step0=PITCH,
                slide_mpp=0.25,
                width=width,
                height=height,
            )
            level = Level(width, height, 1.0, 1.0)
            features = bag.features[of_slide].numpy()
            made = SlideFeatures(name, grid, level, coords, features, "simulated", "simulation")
            write_slide(folder, made, "trident")
