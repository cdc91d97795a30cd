"""The simulated cohort: its truth is what theory says, and files carry it whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data.errors import DataError
from data.simulate.cohort import SimulatedCohort
from data.simulate.patches import SHARE, share_to_term
from data.simulate.truth import Hazard, c_index, censoring, expected_c_index


@pytest.fixture(scope="module")
def large() -> SimulatedCohort:
    return SimulatedCohort(patients=1500, patches=12, width=6, seed=1, censored=0.0)


def test_the_true_risk_reaches_the_c_index_of_theory(large: SimulatedCohort):
    # Under proportional hazards a pair is ordered with probability 1 / (1 + exp(-|difference|)); sd .006 at 1,500.
    assert large.ceiling() == pytest.approx(large.expected_ceiling(), abs=0.02)


def test_theory_in_its_limits():
    assert expected_c_index(np.zeros(10)) == 0.5
    assert expected_c_index(np.arange(10) * 1e3) == pytest.approx(1)
    assert expected_c_index(np.array([0.0, np.log(3)])) == pytest.approx(0.75)


def test_both_terms_beat_one_and_the_product_adds_to_both(large: SimulatedCohort):
    truth, patients = large.truth, large.load().patients
    patch, genes = c_index(truth["patch"], patients), c_index(truth["genes"], patients)
    both = c_index(truth["patch"] + truth["genes"], patients)
    assert min(patch, genes) > 0.6
    assert both > max(patch, genes) + 0.03
    assert large.ceiling() > both
    np.testing.assert_allclose(truth["risk"], truth[["patch", "genes", "product"]].sum(axis=1))


def test_the_product_is_no_sum_of_the_two(large: SimulatedCohort):
    truth = large.truth
    parts = np.column_stack([truth["patch"], truth["genes"], np.ones(len(truth))])
    fitted = parts @ np.linalg.lstsq(parts, truth["product"], rcond=None)[0]
    assert np.corrcoef(fitted, truth["product"])[0, 1] < 0.2
    assert truth["product"].std() > 0.4
    np.testing.assert_allclose(truth["product"], 0.8 * truth["patch"] * truth["genes"] / 1.2**2)


def test_terms_have_mean_0_and_variance_1(large: SimulatedCohort):
    truth = large.truth
    for term in (truth["patch"] / 1.2, truth["genes"] / 1.2):
        assert term.mean() == pytest.approx(0, abs=0.1)
        assert term.std() == pytest.approx(1, abs=0.15)
    share = np.random.default_rng(0).beta(*SHARE, size=200_000)
    assert share_to_term(share).mean() == pytest.approx(0, abs=0.01)
    assert share_to_term(share).std() == pytest.approx(1, abs=0.01)


def test_the_gene_term_can_be_read_off_the_table(large: SimulatedCohort):
    genes = large.load().genes
    deciding = sum(genes.filter(regex=rf"^{stem}\d+_rnaseq$").mean(axis=1) for stem in ("ONC", "CYT"))
    assert np.corrcoef(deciding, large.truth["genes"])[0, 1] > 0.99
    rest = genes.filter(regex=r"^(TSG|KIN|CDM|TRF)").apply(lambda c: abs(np.corrcoef(c, large.truth["genes"])[0, 1]))
    assert rest.max() < 0.12


def test_the_patch_term_can_be_read_off_the_bags():
    source = SimulatedCohort(patients=120, patches=40, width=32, seed=2)
    cohort = source.load()
    means = np.stack([cohort.bags.read(i).features.mean(dim=0).numpy() for i in cohort.case_ids])
    design = np.column_stack([means, np.ones(120)])
    fitted = design @ np.linalg.lstsq(design, source.truth["patch"], rcond=None)[0]
    assert np.corrcoef(fitted, source.truth["patch"])[0, 1] > 0.9


def test_the_clock_is_weibull():
    hazard = Hazard(shape=1.7, median=30.0)
    death = hazard.death(np.full(40_000, 0.5), np.random.default_rng(0))
    for months in (5.0, 20.0, 40.0):
        expected = np.exp(-np.log(2) * (months / 30) ** 1.7 * np.exp(0.5))
        assert (death > months).mean() == pytest.approx(expected, abs=0.01)
    assert np.median(hazard.death(np.zeros(40_000), np.random.default_rng(1))) == pytest.approx(30, rel=0.03)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.9])
def test_the_asked_share_is_censored(share: float):
    death = np.random.default_rng(0).exponential(20, size=1000)
    end = censoring(death, share, np.random.default_rng(1))
    assert (end < death).mean() == pytest.approx(share, abs=0.002)


def test_censoring_knows_nothing_of_the_risk():
    draw = np.random.default_rng(0)
    risk = draw.normal(size=4000)
    end = censoring(Hazard().death(risk, draw), 0.4, draw)
    assert abs(np.corrcoef(end, risk)[0, 1]) < 0.05


def test_age_sex_and_site_mean_nothing(large: SimulatedCohort):
    patients = large.load().patients
    for name in ("age", "is_female"):
        assert abs(np.corrcoef(patients[name], large.truth["risk"])[0, 1]) < 0.08


def test_one_seed_is_one_cohort_and_more_patches_do_not_change_the_genes():
    first, same = (SimulatedCohort(patients=20, patches=6, width=3, seed=9) for _ in range(2))
    pd.testing.assert_frame_equal(first.truth, same.truth)
    case = first.load().case_ids[0]
    assert torch.equal(first.load().bags.read(case).features, same.load().bags.read(case).features)
    more = SimulatedCohort(patients=20, patches=12, width=3, seed=9)
    pd.testing.assert_frame_equal(first.load().genes, more.load().genes)
    other = SimulatedCohort(patients=20, patches=6, width=3, seed=10)
    assert not first.truth["risk"].reset_index(drop=True).equals(other.truth["risk"].reset_index(drop=True))


def test_aggressive_patches_lie_together_and_no_two_share_a_place():
    bag = SimulatedCohort(patients=10, patches=80, width=2, seed=0).load().bags
    for case in bag.case_ids:
        read = bag.read(case)
        places = torch.cat([read.slide[:, None].float(), read.grid], dim=1)
        assert len(torch.unique(places, dim=0)) == len(places)


def test_files_carry_the_cohort_whole(tmp_path: Path):
    options = {"patients": 24, "patches": 8, "width": 4, "seed": 7, "missing_slides": 0.2, "missing_genes": 0.2}
    memory = SimulatedCohort(**options)  # type: ignore[arg-type]
    files = SimulatedCohort(**options, folder=str(tmp_path / "sim"))  # type: ignore[arg-type]
    kept, read = memory.load(), files.load()
    pd.testing.assert_frame_equal(read.patients, kept.patients[list(read.patients)])
    pd.testing.assert_frame_equal(read.genes[list(kept.genes)], kept.genes)
    pd.testing.assert_frame_equal(files.truth, memory.truth, check_exact=True)
    assert read.groups == kept.groups
    assert read.bags.case_ids == kept.bags.case_ids
    for case in read.bags.case_ids:
        a, b = read.bags.read(case), kept.bags.read(case)
        assert torch.equal(a.features, b.features)
        assert torch.equal(a.grid, b.grid)
        assert torch.equal(a.slide, b.slide)
        assert a.slides == b.slides
    assert files.splits() == memory.splits()
    assert files.ceiling() == memory.ceiling()
    again = SimulatedCohort(**options, folder=str(tmp_path / "sim"))  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(again.load().genes, read.genes)


def test_a_folder_of_another_simulation_is_refused(tmp_path: Path):
    SimulatedCohort(patients=12, patches=4, width=2).write(tmp_path / "sim")
    with pytest.raises(DataError, match=r"holds something else than this simulation"):
        SimulatedCohort(patients=13, patches=4, width=2, folder=str(tmp_path / "sim")).load()
    with pytest.raises(DataError, match=r"exists already"):
        SimulatedCohort(patients=12, patches=4, width=2).write(tmp_path / "sim")


def test_settings_that_make_no_cohort_are_refused():
    for options, words in (
        ({"patients": 3}, r"patients=3: at least 10"),
        ({"patches": 1}, r"patches=1: at least 4"),
        ({"censored": 1.0}, r"censored=1\.0: must be at least 0 and below 1"),
    ):
        with pytest.raises(ValueError, match=words):
            SimulatedCohort(**options)  # type: ignore[arg-type]
