"""Gene tables: what is read of one, in any layout."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.cohort.schema import TableSchema
from data.errors import DataError
from tests.data.cohort_files import load, table


def test_the_first_member_of_a_zip_is_read_whatever_its_name(tmp_path: Path):
    plain = table(tmp_path)
    packed = tmp_path / "study_all_clean.csv.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(plain, "../../elsewhere/study.csv.zip")
    pd.testing.assert_frame_equal(load(packed).genes, load(plain).genes)
    assert not (tmp_path.parent / "elsewhere").exists()


def test_the_order_of_columns_does_not_matter(tmp_path: Path):
    path = table(tmp_path)
    first = load(path)
    shuffled = pd.read_csv(path)
    shuffled[shuffled.columns[::-1]].to_csv(path)
    second = load(path)
    pd.testing.assert_frame_equal(first.patients, second.patients)
    pd.testing.assert_frame_equal(first.genes, second.genes[first.genes.columns])


def test_rows_of_one_patient_are_joined(tmp_path: Path):
    path = table(tmp_path)
    rows = pd.read_csv(path)
    more = rows.iloc[:7].assign(slide_id=lambda t: t["slide_id"].str.replace("DX1", "DX2"))
    pd.concat([rows, more]).to_csv(path, index=False)
    cohort = load(path)
    assert len(cohort.patients) == 40
    assert "47 rows" in str(cohort.account)


def test_event_and_censorship_tell_the_same_story(tmp_path: Path):
    censored = np.arange(40) % 2
    by_censorship = load(table(tmp_path, censorship=censored)).patients["event"]
    by_both = load(table(tmp_path, censorship=censored, died=1 - censored), schema=TableSchema(event="died")).patients
    by_event = load(table(tmp_path, censorship=None, died=1 - censored), schema=TableSchema(event="died")).patients
    assert by_censorship.tolist() == by_both["event"].tolist() == by_event["event"].tolist() == (censored == 0).tolist()


def test_an_event_column_beside_censorship_is_held_against_it_unasked(tmp_path: Path):
    censored = np.arange(40) % 2
    assert load(table(tmp_path, event=1 - censored, censorship=censored)).patients["event"].sum() == 20
    with pytest.raises(DataError, match=r"'event' and 'censorship' agree for 40 of 40 .*coded the other way round"):
        load(table(tmp_path, event=censored, censorship=censored))


@pytest.mark.parametrize(("unit", "factor"), [("days", 12 / 365.25), ("months", 1.0), ("years", 12.0)])
def test_times_become_months(tmp_path: Path, unit: str, factor: float):
    path = table(tmp_path)
    cohort = load(path, schema=TableSchema(unit=unit))  # type: ignore[arg-type]
    np.testing.assert_allclose(cohort.patients["time"], pd.read_csv(path)["survival_months"] * factor)


def test_new_patients_need_no_outcome(tmp_path: Path):
    path = table(tmp_path, survival_months=None, censorship=None)
    cohort = load(path, schema=TableSchema(time=None, censorship=None))
    assert not cohort.has_outcomes
    assert cohort.patients["time"].isna().all()


def test_tables_of_other_packings_are_the_same(tmp_path: Path):
    path = table(tmp_path)
    rows = pd.read_csv(path)
    expected = load(path).genes
    rows.to_csv(tmp_path / "a.csv.gz", index=False)
    rows.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    for name in ("a.csv.gz", "a.tsv"):
        pd.testing.assert_frame_equal(load(tmp_path / name).genes, expected)


def test_parquet_is_read_or_asks_for_its_reader(tmp_path: Path):
    path = table(tmp_path)
    parquet = tmp_path / "a.parquet"
    try:
        pd.read_csv(path).to_parquet(parquet)
    except ImportError:
        parquet.write_bytes(b"PAR1")
        with pytest.raises(DataError, match=r"reading Parquet needs pyarrow; pip install pyarrow"):
            load(parquet)
    else:
        pd.testing.assert_frame_equal(load(parquet).genes, load(path).genes)


def test_genes_may_come_in_a_file_of_their_own(tmp_path: Path):
    path = table(tmp_path)
    whole = load(path)
    draw = np.random.default_rng(0)
    rna = pd.DataFrame(draw.normal(size=(44, 2)), columns=["X_rnaseq", "Y_rnaseq"])
    rna.insert(0, "sample", [*[f"P{i:03d}" for i in range(2, 40)], "P003", "P003", "Q1", "Q2", "Q3", "Q4"])
    rna.to_csv(tmp_path / "rna.csv", index=False)
    cohort = load(path, genes=str(tmp_path / "rna.csv"))
    pd.testing.assert_frame_equal(cohort.patients, whole.patients)
    assert list(cohort.genes) == ["X_rnaseq", "Y_rnaseq"]
    expected = rna.loc[rna["sample"] == "P003", "X_rnaseq"].mean()
    assert cohort.genes.loc["P003", "X_rnaseq"] == pytest.approx(expected, abs=1e-6)
    text = str(cohort.account)
    assert "2 patients without genes: kept (P000, P001)" in text
    assert "4 RNA samples of nobody" in text
    assert "1 patients with several RNA samples: averaged (P003)" in text
    rna.assign(sample="TCGA-A1-0001-01A").to_csv(tmp_path / "rna.csv", index=False)
    with pytest.raises(
        DataError, match=r"none of its 44 samples is a patient .*samples like 'TCGA-A1-0001-01A', patients"
    ):
        load(path, genes=str(tmp_path / "rna.csv"))


def test_gaps_and_constant_genes_are_counted(tmp_path: Path):
    gap = np.r_[np.nan, np.ones(38), 2.0]
    cohort = load(table(tmp_path, A_rnaseq=gap, B_rnaseq=3.0, C_rnaseq=np.nan))
    assert list(cohort.genes) == ["A_rnaseq", "B_rnaseq", "A_mut"]
    text = str(cohort.account)
    assert "1 gene columns dropped: no value at all (C_rnaseq)" in text
    assert "1 gene values missing: count as average (A_rnaseq)" in text
    assert "1 constant gene columns: kept, carry no information (B_rnaseq)" in text


def test_a_patient_without_any_gene_value_has_no_genes(tmp_path: Path):
    hole = np.r_[np.nan, np.random.default_rng(0).normal(size=39)]
    cohort = load(table(tmp_path, A_rnaseq=hole, B_rnaseq=hole**2, A_mut=np.r_[np.nan, np.arange(39) % 2]))
    assert len(cohort.patients) == 40
    assert "P000" not in cohort.genes.index
    assert "1 patients without genes: kept (P000)" in str(cohort.account)


def test_a_mutation_in_the_only_patient_who_died_is_no_leak(tmp_path: Path):
    died = np.r_[1, np.zeros(39, dtype=int)]
    cohort = load(table(tmp_path, censorship=1 - died, A_mut=died))
    assert "A_mut" in cohort.genes
