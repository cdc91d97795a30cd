"""The published gene tables hold what their README says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
