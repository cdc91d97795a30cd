"""Gene tables: what real ones contain, and what a broken one is told."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.cohort.schema import TableSchema
from data.cohort.tables import SurvPathCohort, TableCohort
from data.errors import DataError

# The data README's table: rows, patients, events, median months, mut/cnv/rna columns, group sizes.
MUTSIG = {
    "blca": (437, 373, 169, 17.6, (371, 256, 1554), [102, 336, 518, 434, 199, 444]),
    "brca": (1022, 956, 130, 28.9, (21, 1333, 1558), [93, 330, 529, 460, 223, 450]),
    "gbmlgg": (1011, 569, 187, 19.2, (16, 30, 1544), [87, 310, 496, 413, 138, 427]),
    "luad": (515, 453, 158, 21.9, (864, 517, 1555), [94, 334, 531, 471, 218, 440]),
    "ucec": (538, 480, 75, 31.0, (1406, 5, 0), [20, 63, 78, 28, 150, 9]),
}
MCAT_SIG = {
    "blca": [94, 334, 521, 468, 1496, 479],
    "luad": [89, 334, 534, 471, 1510, 482],
    "ucec": [3, 24, 21, 22, 65, 15],
}
FOLD0 = {"blca": (298, 75), "brca": (764, 192), "gbmlgg": (455, 114), "luad": (362, 91), "ucec": (384, 96)}


@pytest.fixture
def home(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FUSION_DATA", str(shared_data))
    return shared_data


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


@pytest.mark.parametrize("cancer", list(MUTSIG))
def test_the_published_tables_hold_what_their_readme_says(home: Path, cancer: str):
    rows, patients, events, median, kinds, sizes = MUTSIG[cancer]
    source = TableCohort(
        f"tcga/mutsig/tcga_{cancer}_all_clean.csv.zip", splits_folder=f"tcga/splits/5foldcv/tcga_{cancer}"
    )
    cohort = source.load()
    assert cohort.name == f"tcga_{cancer}"
    assert len(cohort.patients) == patients
    assert cohort.patients["event"].sum() == events
    assert cohort.patients["time"].median() == pytest.approx(median, abs=0.05)
    assert cohort.genes is not None
    assert cohort.genes.dtypes.eq(np.float32).all()
    counted = tuple(sum(c.endswith(s) for c in cohort.genes) for s in ("_mut", "_cnv", "_rnaseq"))
    assert counted == kinds
    assert [len(group) for group in cohort.groups.values()] == sizes
    assert f"{rows} rows" in str(cohort.account).replace("  ", " ")
    splits = source.splits()
    assert len(splits) == 5
    assert (len(splits[0].train), len(splits[0].test)) == FOLD0[cancer]
    assert sorted(i for split in splits for i in split.test) == sorted(cohort.case_ids)


@pytest.mark.parametrize("cancer", list(MCAT_SIG))
def test_mcat_tables_give_its_group_sizes_and_never_an_outcome(home: Path, cancer: str):
    cohort = TableCohort(f"tcga/mcat_sig/tcga_{cancer}_all_clean.csv.zip").load()
    assert [len(group) for group in cohort.groups.values()] == MCAT_SIG[cancer]
    assert cohort.genes is not None
    assert not {"censorship", "train", "survival_months"} & set(cohort.genes)


def test_the_outcome_that_published_code_feeds_to_its_model_is_refused(home: Path):
    path = "tcga/mcat_sig/tcga_luad_all_clean.csv.zip"
    with pytest.raises(DataError, match=r"'censorship' among the features is an outcome"):
        TableCohort(path, features=["censorship", "AAK1_rnaseq"]).load()


def test_cmta_s_table_without_suffixes_counts_what_it_does_not_use(home: Path):
    cohort = TableCohort("tcga/tcga_ucec_all_clean.zip").load()
    assert [len(group) for group in cohort.groups.values()] == MCAT_SIG["ucec"]
    assert "8139 columns not used: do not end in _mut, _cnv, _rnaseq" in str(cohort.account)


def test_missing_ages_are_kept_and_counted(home: Path):
    cohort = TableCohort("tcga/mutsig/tcga_luad_all_clean.csv.zip").load()
    assert cohort.patients["age"].isna().sum() == 10
    assert "10 patients without age: kept" in str(cohort.account)


def test_tissue_source_sites_regain_their_zeros(home: Path):
    cohort = TableCohort("tcga/mutsig/tcga_gbmlgg_all_clean.csv.zip").load()
    assert (cohort.patients["site"] == [case.split("-")[1] for case in cohort.case_ids]).all()


@pytest.mark.parametrize(
    ("study", "endpoint", "patients", "events"),
    [
        ("blca", "OS", 359, 156),
        ("blca", "DSS", 359, 113),
        ("blca", "PFI", 359, 158),
        ("coadread", "OS", 298, 58),
        ("coadread", "DSS", 298, 37),
    ],
)
def test_survpath_studies_have_their_endpoints(home: Path, study: str, endpoint: str, patients: int, events: int):
    source = SurvPathCohort(study=study, endpoint=endpoint)  # type: ignore[arg-type]
    cohort = source.load()
    assert (len(cohort.patients), cohort.patients["event"].sum()) == (patients, events)
    assert len(cohort.groups) == 331
    assert len(set().union(*cohort.groups.values())) == 1577
    assert len(source.splits()) == 5


def test_survpath_patients_without_rna_stay_and_those_without_follow_up_go(home: Path):
    source = SurvPathCohort(study="coadread", endpoint="PFI")
    cohort = source.load()
    # 83 progressions in the files; two of these patients have a time of 0, and no follow-up cannot be scored.
    assert cohort.patients["event"].sum() == 81
    assert cohort.dropped == dict.fromkeys(["TCGA-AG-4021", "TCGA-CM-6678"], "time is 0")
    assert cohort.genes is not None
    assert len(cohort.patients) - len(cohort.genes) == 2
    text = str(cohort.account)
    assert "2 patients dropped: time is 0" in text
    assert "2 patients without genes: kept (TCGA-EI-6883, TCGA-G4-6323)" in text
    assert "3 patients with several RNA samples: averaged" in text
    assert not set(cohort.dropped) & {i for split in source.splits() for i in (*split.train, *split.test)}


def test_the_gene_sets_of_survpath_are_50_and_281(home: Path):
    sizes = {name: len(SurvPathCohort(groups=name).load().groups) for name in ("hallmark", "reactome")}
    assert sizes == {"hallmark": 50, "reactome": 281}


def test_a_study_without_an_rna_file_is_a_cohort_without_genes(home: Path):
    cohort = SurvPathCohort(study="stad").load()
    assert cohort.genes is None
    assert "319 patients without genes: no file rna_xena_stad.csv.zip" in str(cohort.account)
    with pytest.raises(DataError, match=r"no study 'stadt' here \(found: blca, coadread, stad\)"):
        SurvPathCohort(study="stadt").load()


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
