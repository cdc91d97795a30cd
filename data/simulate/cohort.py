"""A cohort whose truth is known: patients, genes and slides drawn by a law that is written down."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from data.cohort.account import Account
from data.cohort.cohort import Cohort, CohortSource
from data.cohort.schema import TableSchema
from data.cohort.splits import Split, aligned, published_splits, stratified_splits, write_splits
from data.cohort.tables import TableCohort
from data.errors import DataError
from data.genes.groups import grouped
from data.simulate.files import write_features, write_signatures, write_table
from data.simulate.genes import drawn_genes
from data.simulate.patches import Tissue, drawn_bag, share_to_term
from data.simulate.truth import Hazard, c_index, censoring, expected_c_index
from data.slides.feature_files import Bag, MemoryBags

_SETTINGS = "simulation.json"


class SimulatedCohort(CohortSource):
    """Patients who die by a known law of their patches, their genes and the product of both.

    The true risk of every patient is in `truth`, so the best reachable c-index (`ceiling`) is known. Age, sex and site
    are there and mean nothing.

    Args:
        patients: how many
        patches: mean number of patches of a patient, on one slide or two
        width: channels of a patch feature
        seed: of everything; the same seed gives the same cohort
        censored: share of patients lost before death, below 1
        missing_slides: share of patients without slides
        missing_genes: share of patients without genes
        hazard: the law
        folder: write the cohort there in the layout of a real one (table, h5 features, folds, truth.csv) and read it
            back through the same code; None = keep it in memory
        folds: number of folds
    """

    def __init__(
        self,
        patients: int = 300,
        patches: int = 60,
        width: int = 64,
        seed: int = 0,
        censored: float = 0.35,
        missing_slides: float = 0.0,
        missing_genes: float = 0.0,
        hazard: Hazard | None = None,
        folder: str | None = None,
        folds: int = 5,
    ):
        for name, value, low in (("patients", patients, 10), ("patches", patches, 4), ("width", width, 1)):
            if value < low:
                raise ValueError(f"{name}={value}: at least {low}")
        for name, share in (
            ("censored", censored),
            ("missing_slides", missing_slides),
            ("missing_genes", missing_genes),
        ):
            if not 0 <= share < 1:
                raise ValueError(f"{name}={share}: must be at least 0 and below 1")
        self.patients, self.patches, self.width, self.seed, self.folds = patients, patches, width, seed, folds
        self.censored, self.missing_slides, self.missing_genes = censored, missing_slides, missing_genes
        self.hazard = hazard or Hazard()
        self.folder = None if folder is None else Path(folder).expanduser()
        self._cohort: Cohort | None = None
        self._truth: pd.DataFrame | None = None

    def load(self) -> Cohort:
        if self._cohort is None:
            if self.folder is None:
                self._cohort, self._truth = self._drawn()
            else:
                self._cohort, self._truth = self._from_folder(self.folder)
        return self._cohort

    def splits(self) -> list[Split]:
        if self.folder is not None:
            return aligned(published_splits(self.folder / "splits"), self.load())
        return stratified_splits(self.load(), self.folds, self.seed)

    @property
    def truth(self) -> pd.DataFrame:
        """Per patient, indexed by case_id: risk (true log hazard), the sum of the columns patch, genes and product."""
        self.load()
        assert self._truth is not None
        return self._truth

    def ceiling(self, case_ids: list[str] | None = None) -> float:
        """c-index of the true risk on these patients (default: all): no model is expected to do better.

        Args:
            case_ids: for example the test side of a fold
        """
        truth = self.truth if case_ids is None else self.truth.loc[case_ids]
        return c_index(truth["risk"], self.load().patients)

    def expected_ceiling(self) -> float:
        """What the ceiling is on average over death times, without censoring."""
        return expected_c_index(self.truth["risk"].to_numpy())

    def settings(self) -> dict[str, object]:
        """Everything the cohort depends on."""
        return {
            "patients": self.patients,
            "patches": self.patches,
            "width": self.width,
            "seed": self.seed,
            "censored": self.censored,
            "missing_slides": self.missing_slides,
            "missing_genes": self.missing_genes,
            "hazard": asdict(self.hazard),
            "folds": self.folds,
        }

    def _drawn(self) -> tuple[Cohort, pd.DataFrame]:
        # One stream each: more patches do not change the genes, another clock does not change the slides.
        clinic, gene, look, slide, clock, lost = (
            np.random.default_rng(s) for s in np.random.SeedSequence(self.seed).spawn(6)
        )
        case_ids = [
            f"SIM-{site:02d}-{number:04d}" for number, site in enumerate(clinic.integers(8, size=self.patients))
        ]
        genes = drawn_genes(case_ids, gene)
        tissue = Tissue.drawn(self.width, look)
        bags: dict[str, Bag] = {}
        share = np.empty(self.patients)
        for row, (case_id, stream) in enumerate(zip(case_ids, slide.spawn(self.patients), strict=True)):
            bags[case_id], aggressive = drawn_bag(case_id, self.patches, tissue, stream)
            share[row] = aggressive.mean()
        patch_term = share_to_term(share)
        risk = self.hazard.risk(patch_term, genes.term)
        death = self.hazard.death(risk, clock)
        end = censoring(death, self.censored, lost)
        index = pd.Index(case_ids, name="case_id")
        patients = pd.DataFrame(
            {
                "time": np.maximum(np.minimum(death, end), 0.01),
                "event": death <= end,
                "age": np.round(np.clip(clinic.normal(62, 10, size=self.patients), 20, 95)),
                "is_female": clinic.integers(2, size=self.patients).astype(float),
                "site": [case_id.split("-")[1] for case_id in case_ids],
            },
            index=index,
        )
        truth = pd.DataFrame(
            {
                "risk": risk,
                "patch": self.hazard.patch * patch_term,
                "genes": self.hazard.genes * genes.term,
                "product": self.hazard.product * patch_term * genes.term,
            },
            index=index,
        )
        account = Account()
        account.note("patients", self.patients, f"simulated, seed {self.seed}")
        without_slides = lost.uniform(size=self.patients) < self.missing_slides
        without_genes = lost.uniform(size=self.patients) < self.missing_genes
        bags = {case_id: bag for (case_id, bag), gone in zip(bags.items(), without_slides, strict=True) if not gone}
        account.note("patients without slides", int(without_slides.sum()), "kept", index[without_slides])
        account.note("patients without genes", int(without_genes.sum()), "kept", index[without_genes])
        groups = grouped(list(genes.values), genes.families, TableSchema().suffixes, "simulation", account)
        values = genes.values.loc[~without_genes]
        return Cohort("simulated", patients, values, MemoryBags(bags), groups, account), truth

    def _from_folder(self, folder: Path) -> tuple[Cohort, pd.DataFrame]:
        if not folder.exists():
            self.write(folder)
        kept = folder / _SETTINGS
        if not kept.is_file() or json.loads(kept.read_text()) != self.settings():
            raise DataError(
                f"{folder}: holds something else than this simulation; give another folder, or remove this one"
            )
        source = TableCohort(
            str(folder / "table.csv"),
            signatures=str(folder / "signatures.csv"),
            name="simulated",
            slides=str(folder / "slides"),
        )
        return source.load(), pd.read_csv(folder / "truth.csv", index_col="case_id", float_precision="round_trip")

    def write(self, folder: Path | str) -> None:
        """Write the cohort as files, all or nothing.

        table.csv, signatures.csv, slides/ (a TRIDENT job), splits/, truth.csv, simulation.json.

        Raises:
            DataError: the folder exists already
        """
        folder = Path(folder)
        if folder.exists():
            raise DataError(f"{folder}: exists already; give another folder, or remove this one")
        cohort, truth = self._drawn()
        folder.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            write_table(staged / "table.csv", cohort)
            write_signatures(staged / "signatures.csv", cohort.groups)
            write_features(staged / "slides", cohort)
            write_splits(staged / "splits", stratified_splits(cohort, self.folds, self.seed))
            truth.to_csv(staged / "truth.csv")
            (staged / _SETTINGS).write_text(json.dumps(self.settings(), indent=1))
            staged.chmod(0o755)
            staged.rename(folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
