"""The sceptic's baselines: the columns they read, what gaps become, and risks that never saw their own outcome."""

import numpy as np
import pandas as pd
import pytest

from data.errors import DataError
from tasks.survival.baselines import (
    Chance,
    LinearBaseline,
    age,
    out_of_fold_risk,
    ridge_genes_and_age,
    score_fold,
)
from tasks.survival.concordance import harrell
from tasks.survival.follow_up import FollowUp, kaplan_meier
from tasks.survival.metrics import evaluate


def ridge() -> LinearBaseline:
    return LinearBaseline("ridge genes", genes=True)


def cohort(n: int = 120, genes: int = 200, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A prepared matrix and the patients' outcomes; the hazard follows age and the first gene."""
    rng = np.random.default_rng(seed)
    matrix = pd.DataFrame(rng.normal(size=(n, genes)), columns=[f"G{i}_rnaseq" for i in range(genes)])
    matrix = matrix.assign(age=rng.normal(size=n), is_female=rng.integers(0, 2, size=n).astype(float))
    matrix.index = [f"P{i:03d}" for i in range(n)]
    died = rng.exponential(20 * np.exp(-0.8 * matrix["age"] - 0.8 * matrix["G0_rnaseq"]))
    left = rng.exponential(50, size=n)
    return matrix, pd.DataFrame({"time": np.minimum(died, left) + 0.01, "event": died <= left}, index=matrix.index)


def test_chance_ranks_nobody_and_gives_all_the_kaplan_meier_curve():
    matrix, patients = cohort()
    model = Chance().fit(matrix, patients["time"], patients["event"])
    assert np.ptp(model.risk(matrix)) == 0
    months = np.array([6.0, 24.0])
    curve = kaplan_meier(FollowUp.of(patients["time"], patients["event"])).at(months)
    np.testing.assert_array_equal(model.survival(matrix[:3], months), [curve] * 3)


def test_age_reads_age_only():
    matrix, patients = cohort()
    model = age().fit(matrix, patients["time"], patients["event"])
    changed = matrix.assign(is_female=9.0, G0_rnaseq=9.0)
    np.testing.assert_array_equal(model.risk(changed), model.risk(matrix))
    assert np.corrcoef(model.risk(matrix), matrix["age"])[0, 1] == pytest.approx(1)


def test_genes_alone_ignore_covariates_and_beat_chance_where_genes_matter():
    matrix, patients = cohort(300, 20)
    model = ridge().fit(matrix[:200], patients["time"][:200], patients["event"][:200])
    np.testing.assert_array_equal(model.risk(matrix.assign(age=99.0, is_female=99.0)), model.risk(matrix))
    held_out = FollowUp.of(patients["time"][200:], patients["event"][200:])
    assert harrell(held_out, model.risk(matrix[200:]))[0] > 0.6


def test_the_weight_of_age_relaxes_its_penalty():
    matrix, patients = cohort()
    outcome = patients["time"], patients["event"]
    per_unit = [
        LinearBaseline("b", ["age"], genes=True, covariate_weight=weight, penalty=3.0).fit(matrix, *outcome)
        for weight in (1.0, 5.0)
    ]
    of_age = [model.cox.coefficients[-1] * model.weights[-1] for model in per_unit]
    assert 0 < of_age[0] < of_age[1]


def test_a_missing_age_is_the_training_mean():
    matrix, patients = cohort()
    matrix.loc["P003", "age"] = np.nan
    model = age().fit(matrix, patients["time"], patients["event"])
    mean = matrix.assign(age=matrix["age"].mean())
    assert model.risk(matrix)[3] == pytest.approx(model.risk(mean)[3])
    nobody = age().fit(matrix.assign(age=np.nan), patients["time"], patients["event"])
    assert nobody.risk(matrix.assign(age=np.nan)).tolist() == [0.0] * len(matrix)


def test_an_all_female_cohort_breaks_nothing():
    matrix, patients = cohort()
    both = LinearBaseline("age + sex", ["age", "is_female"], penalty=1e-6).fit(
        matrix.assign(is_female=1.0), patients["time"], patients["event"]
    )
    alone = age().fit(matrix, patients["time"], patients["event"])
    np.testing.assert_allclose(both.risk(matrix.assign(is_female=1.0)), alone.risk(matrix), atol=1e-6)


def test_a_scored_fold_is_what_the_metrics_take():
    matrix, patients = cohort()
    train, test = matrix[:80], matrix[80:]
    arms = [Chance(), age(), ridge(), ridge_genes_and_age()]
    predictions, curves = score_fold(arms, train, test, patients, 0, months=[0.0, 6.0, 12.0, 24.0])
    training = patients[:80].assign(fold=0)
    table = evaluate(predictions, curves, training, draws=10)
    assert set(table["arm"]) == {"chance", "age", "ridge genes", "ridge genes + age"}
    pooled = table[table["fold"] == "pooled"].set_index(["arm", "metric"])["value"]
    assert pooled["chance", "c_index"] == 0.5
    assert pooled["chance", "ibs_skill"] == pytest.approx(0)
    assert pooled["age", "c_index"] > 0.55
    values = curves[["0", "6", "12", "24"]].to_numpy()
    assert (np.diff(values, axis=1) <= 0).all()
    assert (values[:, 0] == 1).all()


def test_held_out_outcomes_do_not_reach_the_fit():
    matrix, patients = cohort()
    train, test = matrix[:80], matrix[80:]
    before, _ = score_fold([ridge_genes_and_age()], train, test, patients, 0, [12.0])
    other = patients.copy()
    other.loc[test.index, "time"] = 1.0
    other.loc[test.index, "event"] = True
    after, _ = score_fold([ridge_genes_and_age()], train, test, other, 0, [12.0])
    np.testing.assert_array_equal(before["risk"], after["risk"])


def test_a_training_risk_does_not_know_its_own_outcome():
    matrix, patients = cohort(60, 30)
    train, test = matrix[:50], matrix[50:]
    time, event = patients["time"][:50], patients["event"][:50]

    def of(own_time: pd.Series) -> tuple[pd.Series, pd.Series]:
        return out_of_fold_risk(ridge, train, own_time, event, test)

    (before, test_before), changed = of(time), time.copy()
    changed.iloc[7] = 500.0
    after, test_after = of(changed)
    assert after.iloc[7] == before.iloc[7]
    assert (after != before).any()
    assert (test_after != test_before).any()
    assert before.index.equals(train.index)
    assert before.notna().all()


def test_test_patients_get_the_model_of_all_training_patients():
    matrix, patients = cohort(60, 30)
    train, test = matrix[:50], matrix[50:]
    _, risk = out_of_fold_risk(age, train, patients["time"][:50], patients["event"][:50], test)
    whole = age().fit(train, patients["time"][:50], patients["event"][:50])
    np.testing.assert_array_equal(risk, whole.risk(test))


def test_out_of_fold_risk_of_noise_is_worth_nothing_while_the_fitted_risk_pretends_to_be():
    rng = np.random.default_rng(0)
    matrix, patients = cohort(200, 300)
    noise = pd.DataFrame(rng.normal(size=(200, 300)), index=matrix.index).add_prefix("G")
    outcome = FollowUp.of(patients["time"], patients["event"])
    honest, _ = out_of_fold_risk(
        lambda: LinearBaseline("r", genes=True, penalty=0.1), noise, *_columns(patients), noise
    )
    fitted = LinearBaseline("r", genes=True, penalty=0.1).fit(noise, *_columns(patients)).risk(noise)
    assert harrell(outcome, fitted)[0] > 0.9
    assert harrell(outcome, honest.to_numpy())[0] < 0.6


def _columns(patients: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    return patients["time"], patients["event"]


def test_missing_columns_and_too_few_events_are_said():
    matrix, patients = cohort()
    time, event = _columns(patients)
    with pytest.raises(DataError, match="baseline age: the prepared matrix has no age; leave this baseline out"):
        age().fit(matrix.drop(columns="age"), time, event)
    with pytest.raises(DataError, match="baseline ridge genes: the prepared matrix has no gene columns"):
        ridge().fit(matrix[["age"]], time, event)
    with pytest.raises(ValueError, match="baseline empty has no columns"):
        LinearBaseline("empty")
    with pytest.raises(DataError, match="needs at least 2 events among the training patients and there are 0"):
        out_of_fold_risk(age, matrix, time, event & False, matrix)
