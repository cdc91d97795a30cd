"""Cohorts from gene tables: PORPOISE / MCAT, any CSV or Parquet with a schema, and SurvPath's files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from data.cohort.account import Account
from data.cohort.cohort import Cohort, CohortSource
from data.cohort.outcomes import patients_from_rows
from data.cohort.read import read_header, read_table
from data.cohort.schema import TableSchema
from data.cohort.splits import Split, aligned, published_splits, stratified_splits
from data.errors import DataError
from data.genes.features import choose_features, one_row_per_patient
from data.genes.groups import NAMED_GROUPS, grouped, read_groups
from data.genes.table import checked_genes, read_gene_table
from data.slides.feature_folder import bags_of
from data.sources import resolve


class TableCohort(CohortSource):
    """A cohort from one table: a row per slide or patient, outcomes and gene features in columns.

    Args:
        table: CSV, TSV (also .gz, .zip) or Parquet; a path, or a place in an imported data set such as
            tcga/mutsig/tcga_blca_all_clean.csv.zip
        features: feature columns by name; default: all that end in one of the schema's suffixes
        groups: functional, hallmark, reactome, hallmark+reactome, a .gmt or .csv file of gene sets, or none
        signatures: file that a group name is read from, instead of the imported tcga data set's
        schema: names of the columns; default: the PORPOISE / MCAT layout
        name: what reports call the cohort; default: the file's name
        genes: table of the features when they are in a file of their own: first column the patient, a row per sample
        slides: folder of slide features (.pt, CLAM h5, TRIDENT h5)
        coordinates: insist on patch coordinates
        splits_folder: published folds (splits_0.csv, ...); default: generated ones
        folds: number of generated folds
        seed: of generated folds
    """

    def __init__(
        self,
        table: str,
        features: list[str] | None = None,
        groups: str = "functional",
        signatures: str | None = None,
        schema: TableSchema | None = None,
        name: str | None = None,
        genes: str | None = None,
        slides: str | None = None,
        coordinates: bool = False,
        splits_folder: str | None = None,
        folds: int = 5,
        seed: int = 0,
    ):
        self.table, self.features, self.genes = table, features, genes
        self.groups, self.signatures = groups, signatures
        self.schema = schema or TableSchema()
        self.name = name or Path(table).name.split(".")[0].removesuffix("_all_clean")
        self.slides, self.coordinates = slides, coordinates
        self.splits_folder, self.folds, self.seed = splits_folder, folds, seed
        self._cohort: Cohort | None = None

    def load(self) -> Cohort:
        if self._cohort is None:
            self._cohort = self._read()
        return self._cohort

    def splits(self) -> list[Split]:
        if self.splits_folder is None:
            return stratified_splits(self.load(), self.folds, self.seed)
        return aligned(published_splits(resolve(self.splits_folder)), self.load())

    def _read(self) -> Cohort:
        path, account = resolve(self.table), Account()
        header = read_header(path)
        schema = self.schema.found(header, str(path))
        text = [c for c in (schema.id, schema.slide, schema.site) if c is not None]
        clinical = [
            c for c in (schema.time, schema.event, schema.censorship, schema.age, schema.is_female) if c is not None
        ]
        chosen = []
        if self.genes is None:
            chosen = choose_features(header, self.features, schema.suffixes, {*text, *clinical}, str(path), account)
        numbers: dict[str, type] = {**dict.fromkeys(clinical, np.float64), **dict.fromkeys(chosen, np.float32)}
        rows = read_table(path, text, numbers)
        if rows.empty:
            raise DataError(f"{path}: a header line and no rows; expected a row per slide or per patient")
        patients, dropped = patients_from_rows(rows[text + clinical], schema, str(path), account)
        genes = None
        if self.genes is not None:
            genes = read_gene_table(resolve(self.genes), patients, self.features, schema.suffixes, account)
        elif chosen:
            genes = one_row_per_patient(rows[chosen], rows[schema.id], str(path))
            genes = checked_genes(genes.loc[genes.index.isin(patients.index)], patients, str(path), account)
        groups = {} if genes is None else self._groups(list(genes.columns), tuple(schema.suffixes), str(path), account)
        bags = None
        if self.slides is not None:
            if schema.slide is None:
                raise DataError(
                    f"{path}: slide features are given but the table has no slide column; name it in schema.slide"
                )
            slides = rows.set_index(schema.id)[schema.slide]
            bags = bags_of(resolve(self.slides), slides, patients.index, account, self.coordinates)
        return Cohort(self.name, patients, genes, bags, groups, account, dropped)

    def _groups(
        self, columns: list[str], suffixes: tuple[str, ...], where: str, account: Account
    ) -> dict[str, list[str]]:
        if self.groups == "none":
            return {}
        if self.signatures is not None:
            sets = read_groups(resolve(self.signatures))
        elif self.groups in NAMED_GROUPS:
            sets = read_groups(resolve(f"tcga/{NAMED_GROUPS[self.groups]}"))
        else:
            sets = read_groups(resolve(self.groups))
        return grouped(columns, sets, suffixes, where, account)


class SurvPathCohort(CohortSource):
    """A cohort from SurvPath's files: metadata with three endpoints, log RNA, site-stratified folds, pathways.

    Args:
        folder: metadata/, splits/ and the RNA tables
        study: blca, coadread, stad
        endpoint: OS (overall), DSS (disease-specific) or PFI (progression-free interval)
        groups: functional, hallmark, reactome, hallmark+reactome, or a .gmt or .csv file of gene sets
        slides: folder of slide features (.pt, CLAM h5, TRIDENT h5)
        coordinates: insist on patch coordinates
    """

    def __init__(
        self,
        folder: str = "tcga/survpath",
        study: str = "blca",
        endpoint: Literal["OS", "DSS", "PFI"] = "DSS",
        groups: str = "hallmark+reactome",
        slides: str | None = None,
        coordinates: bool = False,
    ):
        if endpoint not in ("OS", "DSS", "PFI"):
            raise ValueError(f"endpoint={endpoint!r}: expected OS, DSS or PFI")
        self.folder, self.study, self.endpoint, self.groups = folder, study, endpoint, groups
        self.slides, self.coordinates = slides, coordinates
        self._cohort: Cohort | None = None

    def load(self) -> Cohort:
        if self._cohort is None:
            self._cohort = self._read()
        return self._cohort

    def splits(self) -> list[Split]:
        return aligned(published_splits(resolve(self.folder) / "splits" / f"tcga_{self.study}"), self.load())

    def _read(self) -> Cohort:
        folder = resolve(self.folder)
        ending = "" if self.endpoint == "OS" else f"_{self.endpoint.lower()}"
        schema = TableSchema(
            time=f"survival_months{ending}", censorship=f"censorship{ending}", suffixes=(), zero_times="drop"
        )
        metadata = folder / "metadata" / f"tcga_{self.study}.csv"
        if not metadata.is_file():
            there = ", ".join(sorted(p.stem.removeprefix("tcga_") for p in (folder / "metadata").glob("tcga_*.csv")))
            raise DataError(f"{folder}: no study {self.study!r} here (found: {there or 'none'})")
        name = f"survpath_{self.study}_{self.endpoint.lower()}"
        clinical = TableCohort(
            str(metadata),
            features=[],
            groups="none",
            schema=schema,
            name=name,
            slides=self.slides,
            coordinates=self.coordinates,
        ).load()
        genes, groups = self._genes(folder, clinical.patients, clinical.account)
        return Cohort(name, clinical.patients, genes, clinical.bags, groups, clinical.account, clinical.dropped)

    def _genes(
        self, folder: Path, patients: pd.DataFrame, account: Account
    ) -> tuple[pd.DataFrame | None, dict[str, list[str]]]:
        path = folder / f"rna_xena_{self.study}.csv.zip"
        if not path.is_file():
            account.note("patients without genes", len(patients), f"no file {path.name}")
            return None, {}
        genes = read_gene_table(path, patients, None, (), account)
        sets = (
            read_groups(folder / Path(NAMED_GROUPS[self.groups]).name)
            if self.groups in NAMED_GROUPS
            else read_groups(resolve(self.groups))
        )
        return genes, grouped(list(genes.columns), sets, (), str(path), account)
