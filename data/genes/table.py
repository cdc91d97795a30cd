"""Gene values in a file of their own: one row per sample, named by its patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data.cohort.account import Account
from data.cohort.read import read_header, read_table
from data.errors import DataError
from data.genes.features import choose_features, refuse_outcome_copies, without_gaps


def read_gene_table(
    path: Path, patients: pd.DataFrame, listed: Sequence[str] | None, suffixes: Sequence[str], account: Account
) -> pd.DataFrame:
    """Genes of a cohort's patients from a table whose first column is the patient's identifier.

    Args:
        path: .csv, .tsv, .csv.gz, .csv.zip or .parquet
        patients: indexed by case_id, with time and event
        listed: feature columns by name; None = by suffix
        suffixes: endings of feature columns; empty = every column but the first
        account: told about samples of nobody and patients with several samples, which are averaged

    Raises:
        DataError: not one sample belongs to a patient, or the features are unusable (see `data.genes.features`)
    """
    sample, *columns = read_header(path)
    if listed is None and not suffixes:
        listed = columns
    chosen = choose_features(columns, listed, suffixes, {sample}, str(path), account)
    values = read_table(path, [sample], dict.fromkeys(chosen, np.float32)).set_index(sample)
    values.index = pd.Index(values.index.astype(str), name="case_id")
    if not len(values):
        raise DataError(f"{path}: a header and no sample; export the table again")
    known = values.loc[values.index.isin(patients.index), chosen]
    if not len(known):
        raise DataError(
            f"{path}: none of its {len(values)} samples is a patient of this cohort (samples like {values.index[0]!r}, "
            f"patients like {patients.index[0]!r}); the first column must hold the patient's identifier"
        )
    strangers = values.index.difference(patients.index)
    account.note("RNA samples of nobody", len(strangers), "not a patient of this cohort, not used", strangers)
    repeated = known.index[known.index.duplicated()].unique()
    account.note("patients with several RNA samples", len(repeated), "averaged", repeated)
    if len(repeated):
        known = known.groupby(level=0, sort=False).mean()
    return checked_genes(known, patients, str(path), account)


def checked_genes(genes: pd.DataFrame, patients: pd.DataFrame, where: str, account: Account) -> pd.DataFrame:
    """Genes without empty columns and patients, none of them an outcome in disguise; tells who has any.

    Args:
        genes: one row per patient, all of them patients of the cohort
        patients: indexed by case_id, with time and event; times are NaN for patients that are only to be predicted
        where: the file, for messages
        account: told about gaps, constant columns and patients without genes

    Raises:
        DataError: an infinite value, or a feature that repeats the outcome
    """
    genes = without_gaps(genes, where, account)
    known = patients.loc[genes.index]
    if known["time"].notna().all():
        refuse_outcome_copies(genes, known["time"], known["event"], where)
    without = patients.index.difference(genes.index)
    account.note("patients with genes", len(genes), f"{genes.shape[1]} features")
    account.note("patients without genes", len(without), "kept", without)
    return genes
