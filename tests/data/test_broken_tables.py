"""What a broken gene table is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.cohort.schema import TableSchema
from data.cohort.tables import SurvPathCohort, TableCohort
from data.errors import DataError
from tests.data.cohort_files import load, table

MONTHS = np.linspace(1, 60, 40)
EVENT = np.arange(40) % 2
BROKEN = {
    "no identifier": ({"case_id": [None, *[f"P{i}" for i in range(39)]]}, {}, r"row 1 has no case_id \(1 such rows\)"),
    "slide twice": ({"slide_id": "P-DX1.svs"}, {}, r"slide 'P-DX1.svs' occurs more than once \(1 such slides\)"),
    "patient twice": ({"case_id": "P1", "slide_id": None}, {}, r"patient 'P1' occurs more than once"),
    "contradiction": (
        {"case_id": "P1"},
        {},
        r"patient P1 has rows with different survival_months \(.* 1 such patients\)",
    ),
    "negative time": (
        {"survival_months": -MONTHS},
        {},
        r"time of patient P000 \(survival_months\) is -1 months \(40 such",
    ),
    "no time": ({"survival_months": [np.nan, *MONTHS[1:]]}, {}, r"time of patient P000 .* is missing \(1 such"),
    "zero time": ({"survival_months": [0, *MONTHS[1:]]}, {}, r"time of patient P000 .* is 0 .*schema\.zero_times=drop"),
    "event not binary": (
        {"censorship": EVENT + 1},
        {},
        r"'censorship' is 2 for patient P001 \(20 patients are not 0 or 1\)",
    ),
    "event missing": ({"censorship": [np.nan, *EVENT[1:]]}, {}, r"'censorship' is empty for patient P000"),
    "event the other way round": (
        {"censorship": EVENT, "died": EVENT},
        {"schema": TableSchema(event="died")},
        r"'died' and 'censorship' agree for 40 of 40 patients .*coded the other way round",
    ),
    "event and censorship disagree once": (
        {"censorship": EVENT, "died": np.r_[EVENT[0], 1 - EVENT[1:]]},
        {"schema": TableSchema(event="died")},
        r"agree for 1 of 40 patients \(P000 first\).*correct these rows",
    ),
    "time among the features": (
        {},
        {"features": ["A_mut", "survival_months"]},
        r"'survival_months' among the features is an outcome",
    ),
    "another endpoint among the features": (
        {"survival_months_dss": 1.0},
        {"features": ["survival_months_dss"]},
        r"'survival_months_dss' among the features is an outcome",
    ),
    "split mark among the features": (
        {},
        {"features": ["train"]},
        r"'train' among the features is an outcome or a split mark",
    ),
    "event in disguise": (
        {"censorship": EVENT, "X_rnaseq": 5 - 2 * EVENT},
        {},
        r"feature 'X_rnaseq' repeats the event exactly",
    ),
    "time in disguise": (
        {"survival_months": MONTHS, "X_rnaseq": 3 * MONTHS - 7},
        {},
        r"feature 'X_rnaseq' repeats the time exactly",
    ),
    "log time in disguise": (
        {"survival_months": MONTHS, "X_rnaseq": -np.log(MONTHS)},
        {},
        r"feature 'X_rnaseq' repeats the order of the times exactly",
    ),
    "text among numbers": (
        {"B_rnaseq": ["high"] * 40},
        {},
        r"column 'B_rnaseq', row 1: 'high' is not a number \(40 such cells\)",
    ),
    "infinite gene": ({"B_rnaseq": np.inf}, {}, r"B_rnaseq of patient P000 is infinite \(40 such values\)"),
    "no suffix matches": ({}, {"schema": TableSchema(suffixes=("_protein",))}, r"no column ends in _protein"),
    "misspelt feature": ({}, {"features": ["A_rnasq"]}, r"no column 'A_rnasq' .*did you mean 'A_rnaseq'\?"),
    "misspelt column": (
        {},
        {"schema": TableSchema(time="survival_month")},
        r"no column 'survival_month' \(schema\.time\); did you",
    ),
    "renamed age": ({}, {"schema": TableSchema(age="years")}, r"no column 'years' \(schema\.age\)"),
}


@pytest.mark.parametrize("fault", list(BROKEN))
def test_a_broken_table_is_refused_by_name(tmp_path: Path, fault: str):
    changed, options, words = BROKEN[fault]
    path = table(tmp_path, **changed)
    with pytest.raises(DataError, match=words) as told:
        load(path, **options)
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)


def test_rows_of_a_patient_that_differ_in_a_gene_are_refused(tmp_path: Path):
    path = table(tmp_path)
    rows = pd.read_csv(path)
    other = rows.iloc[[3]].assign(slide_id="P003-DX2.svs", B_rnaseq=9.0)
    pd.concat([rows, other]).to_csv(path, index=False)
    with pytest.raises(DataError, match=r"patient P003 has rows with different B_rnaseq \(.* and 9\)"):
        load(path)


def test_a_repeated_column_is_refused(tmp_path: Path):
    path = table(tmp_path)
    text = path.read_text().replace("B_rnaseq", "A_rnaseq", 1)
    path.write_text(text)
    with pytest.raises(DataError, match=r"column 'A_rnaseq' occurs more than once"):
        load(path)


def test_a_table_without_rows_is_refused(tmp_path: Path):
    (tmp_path / "bare.csv").write_text("case_id,survival_months,censorship,age,A_rnaseq\n")
    with pytest.raises(DataError, match=r"bare\.csv: a header line and no rows; expected a row per slide"):
        TableCohort(str(tmp_path / "bare.csv"), groups="none").load()


def test_a_zip_cut_short_is_refused(tmp_path: Path):
    packed = tmp_path / "a.csv.zip"
    packed.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(DataError, match=r"not a zip file, or cut short"):
        load(packed)


def test_a_missing_table_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FUSION_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"fusion data import tcga --from FOLDER"):
        TableCohort("tcga/mutsig/tcga_blca_all_clean.csv.zip").load()
    with pytest.raises(DataError, match=r"no such file or folder"):
        TableCohort("mine.csv").load()


def test_a_schema_that_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match=r"event='censorship': by its name .* Give it as censorship='censorship'"):
        TableSchema(event="censorship")
    with pytest.raises(ValueError, match=r"censorship='died': by its name .* Give it as event='died'"):
        TableSchema(censorship="died")
    with pytest.raises(ValueError, match=r"without event and without censorship"):
        TableSchema(censorship=None)


@pytest.mark.unchecked
def test_an_unknown_choice_is_refused_without_a_type_checker_too():
    with pytest.raises(ValueError, match=r"unit='weeks'"):
        TableSchema(unit="weeks")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"endpoint='XX': expected OS, DSS or PFI"):
        SurvPathCohort(endpoint="XX")  # type: ignore[arg-type]
