"""Semi-real cohorts: patients, genes and folds stay as they are; slides know the stated part of the outcome."""

import numpy as np
import pytest
import torch
from lifelines import NelsonAalenFitter

from data.simulate.cohort import SimulatedCohort
from data.simulate.semireal_cohort import SemiRealCohort, outcome_score


@pytest.fixture(scope="module")
def real() -> SimulatedCohort:
    return SimulatedCohort(patients=200, patches=6, width=4, seed=3)


def test_only_the_slides_are_replaced(real: SimulatedCohort):
    cohort, before = SemiRealCohort(real, patches=8, width=5).load(), real.load()
    assert cohort.patients.equals(before.patients)
    assert cohort.genes is not None
    assert cohort.genes.equals(before.genes)
    assert cohort.groups == before.groups
    assert cohort.bags is not None
    assert cohort.bags.width == 5
    assert "simulated slides" in cohort.name
    assert "semi-real" in str(cohort.account)
    assert "semi-real" not in str(before.account), "the real cohort's own account stays as it was"
    assert [split.test for split in SemiRealCohort(real).splits()] == [split.test for split in real.splits()]


@pytest.mark.parametrize("information", [0.0, 0.4, 0.8])
def test_the_hidden_score_correlates_with_the_outcome_as_stated(real: SimulatedCohort, information: float):
    source = SemiRealCohort(real, information, patches=8, width=4)
    patients = source.load().patients
    score = outcome_score(patients["time"].to_numpy(), patients["event"].to_numpy())
    # 200 patients: three standard errors of a correlation.
    assert np.corrcoef(source.hidden, score)[0, 1] == pytest.approx(
        information, abs=3 * (1 - information**2) / 200**0.5
    )


def test_more_information_ranks_patients_better_and_none_ranks_by_chance(real: SimulatedCohort):
    ids = real.load().case_ids
    reached = [SemiRealCohort(real, amount, patches=8, width=4).slides_ceiling(ids) for amount in (0.0, 0.3, 0.6, 0.9)]
    assert reached == sorted(reached)
    assert reached[0] == pytest.approx(0.5, abs=0.08)
    assert reached[-1] > 0.8


def test_the_share_of_aggressive_patches_does_not_depend_on_the_information(real: SimulatedCohort):
    means = []
    for information in (0.0, 0.9):
        bags = SemiRealCohort(real, information, patches=20, width=6).load().bags
        assert bags is not None
        means.append(torch.stack([bags.read(case).features.mean(dim=0) for case in real.load().case_ids]).mean(dim=0))
    torch.testing.assert_close(means[0], means[1], rtol=0, atol=0.15)


def test_the_outcome_score_ranks_patients_by_their_martingale_residual(real: SimulatedCohort):
    time, event = (real.load().patients[column].to_numpy() for column in ("time", "event"))
    hazard = NelsonAalenFitter(nelson_aalen_smoothing=False).fit(time, event).cumulative_hazard_at_times(time)
    score = outcome_score(time, event)
    residual = event - hazard.to_numpy()
    order = np.argsort(residual)
    assert (np.diff(score[order]) > -1e-12).all()


def test_impossible_amounts_are_refused(real: SimulatedCohort):
    with pytest.raises(ValueError, match=r"information=1\.0: must be at least 0 and below 1"):
        SemiRealCohort(real, 1.0)
    with pytest.raises(ValueError, match="patches=1: at least 4"):
        SemiRealCohort(real, patches=1)
