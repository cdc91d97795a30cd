"""What is fitted is fitted on training patients, and batches hold what the cohort holds."""

from __future__ import annotations

import dataclasses
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.cohort.cohort import Cohort
from data.cohort.prepare import Fitted, Preparation, Prepared
from data.cohort.scales import time_bins
from data.errors import DataError
from data.simulate.cohort import SimulatedCohort


@pytest.fixture(scope="module")
def source() -> SimulatedCohort:
    return SimulatedCohort(patients=60, patches=8, width=5, seed=3, missing_slides=0.2, missing_genes=0.2)


@pytest.fixture(scope="module")
def cohort(source: SimulatedCohort) -> Cohort:
    return source.load()


@pytest.fixture(scope="module")
def prepared(cohort: Cohort) -> Prepared:
    return Preparation().fit(cohort, cohort.case_ids[:40])


def changed(cohort: Cohort, ids: list[str]) -> Cohort:
    """The same cohort with everything of some patients replaced by something wild."""
    patients, genes = cohort.patients.copy(), cohort.genes.copy()
    patients.loc[ids, ["time", "age"]] = [9999.0, 1.0]
    patients.loc[ids, "event"] = True
    genes.loc[genes.index.isin(ids)] = 36893.0
    return dataclasses.replace(cohort, patients=patients, genes=genes)


def test_nothing_is_learned_from_patients_outside_training(cohort: Cohort, prepared: Prepared):
    train, test = cohort.case_ids[:40], cohort.case_ids[40:]
    assert Preparation().fit(changed(cohort, test), train).fitted == prepared.fitted
    assert Preparation().fit(changed(cohort, train[:5]), train).fitted != prepared.fitted


def test_scaled_training_genes_have_mean_0_and_sd_1_before_clipping(cohort: Cohort):
    train = cohort.case_ids[:40]
    matrix = Preparation(clip=1e9).fit(cohort, train).matrix(train, covariates=False)
    known = matrix.loc[matrix.index.isin(cohort.genes.index)]
    varying = cohort.genes.loc[known.index].nunique() > 1
    np.testing.assert_allclose(known.mean()[varying], 0, atol=1e-5)
    np.testing.assert_allclose(known.std(ddof=0)[varying], 1, atol=1e-5)


@pytest.mark.parametrize("scale", ["standard", "robust"])
def test_clipping_bounds_the_outliers_of_real_tables(shared_data: Path, monkeypatch: pytest.MonkeyPatch, scale: str):
    from data.cohort.tables import TableCohort

    monkeypatch.setenv("FUSION_DATA", str(shared_data))
    source = TableCohort("tcga/mutsig/tcga_brca_all_clean.csv.zip", splits_folder="tcga/splits/5foldcv/tcga_brca")
    cohort, fold = source.load(), source.splits()[0]
    assert cohort.genes.max().max() > 36_000
    matrix = Preparation(scale=scale).fit(cohort, fold.train).matrix(fold.test)  # type: ignore[arg-type]
    assert matrix.drop(columns="age").abs().max().max() == 3
    assert not matrix.isna().any(axis=None)


def test_robust_scaling_is_not_moved_by_an_outlier(cohort: Cohort):
    train = cohort.case_ids[:40]
    wild = cohort.genes.copy()
    victim = next(i for i in train if i in wild.index)
    wild.loc[victim, "ONC1_rnaseq"] = 36893.0
    spoilt = dataclasses.replace(cohort, genes=wild)
    others = [i for i in train if i in wild.index and i != victim]
    for scale, moved in (("robust", False), ("standard", True)):
        before, after = (
            Preparation(scale=scale).fit(c, train).scaled_genes.loc[others, "ONC1_rnaseq"]  # type: ignore[arg-type]
            for c in (cohort, spoilt)
        )
        assert (np.corrcoef(before, after)[0, 1] > 0.99) or scale == "standard"
        assert (after.std() < 0.01) == moved


def test_gaps_and_constant_genes_become_0(cohort: Cohort):
    genes = cohort.genes.copy()
    genes["ONC1_rnaseq"] = 4.25
    genes.iloc[3, 7] = np.nan
    odd = dataclasses.replace(cohort, genes=genes)
    scaled = Preparation().fit(odd, cohort.case_ids[:40]).scaled_genes
    assert (scaled["ONC1_rnaseq"] == 0).all()
    assert scaled.iloc[3, 7] == 0
    assert not scaled.isna().any(axis=None)


@settings(max_examples=50, deadline=None)
@given(
    time=st.lists(st.floats(0.01, 300), min_size=12, max_size=80, unique=True),
    bins=st.integers(1, 4),
)
def test_bins_hold_equally_many_events(time: list[float], bins: int):
    months = np.array(time)
    edges = np.array(time_bins(months, np.ones(len(months), dtype=bool), bins))
    assert edges[0] == 0
    assert np.isinf(edges[-1])
    assert (np.diff(edges) > 0).all()
    inside = [((months >= a) & (months < b)).sum() for a, b in pairwise(edges)]
    assert sum(inside) == len(months)
    assert max(inside) - min(inside) <= 1


def test_more_bins_than_event_times_are_refused():
    months = np.array([1.0, 2.0, 3.0, 3.0, 9.0])
    assert len(time_bins(months, np.array([True] * 4 + [False]), 3)) == 4
    with pytest.raises(
        DataError, match=r"4 events at 3 different times among 5 training patients cannot be cut into 4"
    ):
        time_bins(months, np.array([True] * 4 + [False]), 4)


def test_bins_are_those_of_pandas_qcut_on_training_events(cohort: Cohort, prepared: Prepared):
    train = cohort.patients.iloc[:40]
    _, expected = pd.qcut(train.loc[train["event"], "time"], q=4, retbins=True)
    np.testing.assert_allclose(prepared.edges[1:-1], expected[1:-1])


def test_bins_are_right_open(prepared: Prepared):
    edges = np.array(prepared.edges[:-1])
    assert prepared.bins_of(edges).tolist() == [0, 1, 2, 3]
    assert prepared.bins_of(np.nextafter(edges[1:], 0)).tolist() == [0, 1, 2]
    assert prepared.bins_of(np.array([1e9])).tolist() == [3]


def test_a_batch_holds_the_patients_and_only_them(cohort: Cohort, prepared: Prepared):
    ids = cohort.case_ids[20:50]
    data = prepared.dataset(ids)
    batch = prepared.collate([data[i] for i in range(len(data))])
    assert batch.case_id == ids
    for row, case in enumerate(ids):
        bag = cohort.bags.read(case) if case in cohort.bags else None
        n = 0 if bag is None else len(bag.slide)
        assert batch.slide_keep[row].sum() == n
        assert batch.slide_keep[row, :n].all()
        if bag is not None:
            torch.testing.assert_close(batch.patches[row, :n], bag.features)
            torch.testing.assert_close(batch.grid[row, :n], bag.grid)
            torch.testing.assert_close(batch.slide[row, :n], bag.slide)
        assert (batch.patches[row, n:] == 0).all()
        assert bool(batch.genes_present[row]) == (case in cohort.genes.index)
    for name, columns in cohort.groups.items():
        expected = prepared.scaled_genes.reindex(ids, fill_value=0.0)[columns].to_numpy()
        np.testing.assert_array_equal(batch.genes[name].numpy(), expected)
    np.testing.assert_allclose(batch.time, cohort.patients.loc[ids, "time"], rtol=1e-6)
    assert batch.event.tolist() == cohort.patients.loc[ids, "event"].tolist()
    assert (batch.offset == 0).all()


def test_sizes_describe_the_batches(prepared: Prepared):
    sizes = prepared.sizes(outputs=4)
    data = prepared.dataset(prepared.cohort.case_ids[:3])
    batch = prepared.collate([data[0], data[1]])
    assert batch.patches.shape[2] == sizes.patch_width == 5
    assert {name: group.shape[1] for name, group in batch.genes.items()} == sizes.gene_groups
    assert batch.covariates.shape[1] == len(sizes.covariates) == 1
    assert sizes.outputs == 4


def test_a_cohort_of_one_modality_makes_batches_too(cohort: Cohort):
    train = cohort.case_ids[:40]
    slides = Preparation().fit(dataclasses.replace(cohort, genes=None, groups={}), train)
    genes = Preparation().fit(dataclasses.replace(cohort, bags=None), train)
    only_slides = slides.collate([slides.dataset(train)[i] for i in range(4)])
    only_genes = genes.collate([genes.dataset(train)[i] for i in range(4)])
    assert (only_slides.genes, only_slides.genes_present.any().item()) == ({}, False)
    assert only_genes.patches.shape == (4, 0, 0)
    assert only_genes.grid is None
    assert slides.sizes(4).gene_groups == {}
    assert genes.sizes(4).patch_width is None


def test_patients_without_anything_make_a_batch(cohort: Cohort, prepared: Prepared):
    bare = [i for i in cohort.case_ids if i not in cohort.bags and i not in cohort.genes.index]
    data = prepared.dataset(bare)
    batch = prepared.collate([data[i] for i in range(len(bare))])
    assert len(bare) > 0
    assert not batch.slide_keep.any()
    assert not batch.genes_present.any()
    assert {n: g.shape[1] for n, g in batch.genes.items()} == prepared.sizes(4).gene_groups


def test_missing_ages_count_as_average(cohort: Cohort):
    patients = cohort.patients.copy()
    patients.iloc[:3, patients.columns.get_loc("age")] = np.nan
    prepared = Preparation().fit(dataclasses.replace(cohort, patients=patients), cohort.case_ids[:40])
    assert (prepared.scaled_covariates["age"].iloc[:3] == 0).all()
    assert prepared.scaled_covariates["age"].iloc[3:40].mean() == pytest.approx(0, abs=1e-5)


def test_a_covariate_that_is_constant_in_training_is_left_out(cohort: Cohort):
    women = dataclasses.replace(cohort, patients=cohort.patients.assign(is_female=1.0))
    prepared = Preparation(covariates=("age", "is_female")).fit(women, cohort.case_ids[:40])
    assert prepared.sizes(4).covariates == ("age",)
    assert list(prepared.matrix(cohort.case_ids[:2], genes=False)) == ["age"]


def test_offsets_reach_their_patients(cohort: Cohort, prepared: Prepared):
    ids = cohort.case_ids[:5]
    offset = pd.Series(np.arange(60.0), index=cohort.case_ids)[::-1]
    batch = prepared.collate([prepared.dataset(ids, offset=offset)[i] for i in range(5)])
    assert batch.offset.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match=rf"no offset for patient {ids[0]} \(5 such patients\)"):
        prepared.dataset(ids, offset=pd.Series(dtype=float))


def test_random_patches_are_part_of_the_bag_and_repeat_with_their_epoch(cohort: Cohort):
    prepared = Preparation(max_patches=4).fit(cohort, cohort.case_ids[:40])
    case = next(i for i in cohort.case_ids if i in cohort.bags and len(cohort.bags.read(i).slide) > 8)
    data = prepared.dataset([case], training=True, seed=1)
    first = data[0].bag.features
    data.set_epoch(1)
    second = data[0].bag.features
    data.set_epoch(0)
    assert torch.equal(data[0].bag.features, first)
    assert not torch.equal(first, second)
    whole = {tuple(row.tolist()) for row in cohort.bags.read(case).features}
    assert len(first) == 4
    assert {tuple(row.tolist()) for row in first} <= whole
    assert len(prepared.dataset([case])[0].bag.slide) == len(whole)


def test_what_was_fitted_survives_a_file_exactly(prepared: Prepared, tmp_path: Path):
    prepared.fitted.save(tmp_path / "fitted.json")
    assert Fitted.load(tmp_path / "fitted.json") == prepared.fitted
    (tmp_path / "other.json").write_text('{"edges": [0, 1]}')
    with pytest.raises(DataError, match=r"other\.json: not a saved preparation"):
        Fitted.load(tmp_path / "other.json")


def test_new_patients_are_prepared_as_the_training_ones_taught(cohort: Cohort, prepared: Prepared):
    unknown = cohort.patients.assign(time=np.nan, event=False)
    new = Prepared(dataclasses.replace(cohort, patients=unknown), prepared.fitted)
    pd.testing.assert_frame_equal(new.matrix(cohort.case_ids), prepared.matrix(cohort.case_ids))
    batch = new.collate([new.dataset(cohort.case_ids)[0]])
    assert batch.bins.tolist() == [0]
    with pytest.raises(DataError, match=r"no outcomes, so nothing can be trained on it"):
        Preparation().fit(new.cohort, cohort.case_ids)
    fewer = dataclasses.replace(cohort, genes=cohort.genes.drop(columns=["ONC1_rnaseq"]))
    with pytest.raises(
        DataError, match=r"1 of the 200 genes the model learned from are not in this table \(ONC1_rnaseq\)"
    ):
        Prepared(fewer, prepared.fitted)


def test_workers_can_carry_a_prepared_cohort(prepared: Prepared):
    data = pickle.loads(pickle.dumps(prepared.dataset(prepared.cohort.case_ids)))
    loader = torch.utils.data.DataLoader(data, batch_size=7, collate_fn=prepared.collate)
    assert sum(len(batch) for batch in loader) == 60


def test_bad_arguments_and_patients_are_named(cohort: Cohort):
    train = cohort.case_ids[:40]
    with pytest.raises(DataError, match=r"no patient nobody \(1 of the 2 asked for are unknown\)"):
        Preparation().fit(cohort, [train[0], "nobody"])
    with pytest.raises(DataError, match=r"no covariate 'weight'; it has age, is_female"):
        Preparation(covariates=("weight",)).fit(cohort, train)
    alive = dataclasses.replace(cohort, patients=cohort.patients.assign(event=False))
    with pytest.raises(
        DataError, match=r"0 events at 0 different times among 40 training patients cannot be cut into 4"
    ):
        Preparation().fit(alive, train)
    with pytest.raises(DataError, match=r"none of the 40 training patients has genes"):
        Preparation().fit(dataclasses.replace(cohort, genes=cohort.genes.iloc[:0]), train)
    for options, words in (
        ({"bins": 0}, "bins=0"),
        ({"clip": 0.0}, "clip=0"),
        ({"max_patches": 0}, "max_patches=0"),
    ):
        with pytest.raises(ValueError, match=words):
            Preparation(**options)  # type: ignore[arg-type]


@pytest.mark.unchecked
def test_an_unknown_scale_is_refused_without_a_type_checker_too():
    with pytest.raises(ValueError, match=r"scale='x': expected standard or robust"):
        Preparation(scale="x")  # type: ignore[arg-type]
