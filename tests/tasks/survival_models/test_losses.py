"""Survival losses against closed forms and against lifelines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from lifelines import CoxPHFitter

from tasks.survival.losses import CoxPartialLikelihood, DiscreteHazard
from tasks.survival.models.base import Prediction
from tests.tasks.survival_models.cohorts import patients


def by_hand(logits: torch.Tensor, y: int, event: bool, alpha: float) -> float:
    """One patient, in probabilities."""
    hazard = torch.sigmoid(logits)
    alive = torch.cat([torch.ones(1, dtype=hazard.dtype), torch.cumprod(1 - hazard, 0)])
    if event:
        return float(-(alive[y].log() + hazard[y].log()))
    return float(-(1 - alpha) * alive[y + 1].log())


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_batch_is_the_mean_of_its_patients_closed_forms(alpha: float, rng: torch.Generator):
    batch = patients(rng, *[1] * 9)
    logits = torch.randn(9, 4, dtype=torch.float64, generator=rng)
    loss = DiscreteHazard(4, alpha)(Prediction(logits), batch)
    each = [by_hand(logits[i], int(batch.bins[i]), bool(batch.event[i]), alpha) for i in range(9)]
    assert float(loss) == pytest.approx(np.mean(each), rel=1e-12)


def test_probabilities_are_clamped_and_gradients_stay_finite(rng: torch.Generator):
    batch = patients(rng, 1, 1, 1)
    logits = torch.tensor([[80.0] * 4, [-80.0] * 4, [80.0] * 4], requires_grad=True)
    loss = DiscreteHazard(4)(Prediction(logits), batch)
    loss.backward()
    assert 0 <= float(loss.detach()) <= -2 * np.log(1e-7) + 1e-3
    assert torch.isfinite(logits.grad).all()


def test_survival_never_rises_and_risk_is_bounded(rng: torch.Generator):
    loss, logits = DiscreteHazard(4), torch.randn(50, 4, generator=rng) * 5
    survival = loss.survival(logits)
    assert (survival.diff(dim=1) <= 0).all()
    assert ((loss.risk(logits) >= -4) & (loss.risk(logits) <= 0)).all()
    torch.testing.assert_close(survival, torch.cumprod(1 - torch.sigmoid(logits), 1), rtol=1e-4, atol=1e-6)
    worse = logits + torch.tensor([1.0, 0, 0, 0])
    assert (loss.risk(worse) > loss.risk(logits)).all()


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_cox_is_its_definition(ties: str, rng: torch.Generator):
    time = torch.tensor([3.0, 3.0, 3.0, 5.0, 5.0, 2.0, 9.0, 9.0], dtype=torch.float64)
    event = torch.tensor([True, True, False, True, True, False, True, False])
    risk = torch.randn(8, 1, dtype=torch.float64, generator=rng)
    total = 0.0
    for t in time[event].unique():
        dead = (time == t) & event
        there = risk[time >= t].exp().sum()
        tied = risk[dead].exp().sum()
        for turn in range(int(dead.sum())):
            share = turn / int(dead.sum()) if ties == "efron" else 0.0
            total += float((there - share * tied).log())
        total -= float(risk[dead].sum())
    batch = replace(patients(rng, *[1] * 8), time=time, event=event)
    loss = CoxPartialLikelihood(ties)(Prediction(risk), batch)  # type: ignore[arg-type]
    assert float(loss) == pytest.approx(total / int(event.sum()), rel=1e-12)


def test_cox_efron_agrees_with_lifelines_on_tied_times(rng: torch.Generator):
    x = torch.randn(60, 1, dtype=torch.float64, generator=rng)
    time = torch.randint(1, 12, (60,), generator=rng).double()
    event = torch.rand(60, generator=rng) < 0.7
    fitted = CoxPHFitter().fit(
        pd.DataFrame({"x": x[:, 0].numpy(), "time": time.numpy(), "event": event.numpy()}), "time", "event"
    )
    slope = torch.tensor(float(fitted.params_["x"]), dtype=torch.float64, requires_grad=True)
    batch = replace(patients(rng, *[1] * 60), time=time, event=event)
    loss = CoxPartialLikelihood("efron")(Prediction(x * slope), batch)
    assert float(loss.detach()) * int(event.sum()) == pytest.approx(-fitted.log_likelihood_, rel=1e-9)
    loss.backward()
    assert abs(float(slope.grad)) < 1e-6


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_cox_knows_only_differences_and_survives_extreme_risks(ties: str, rng: torch.Generator):
    batch = replace(patients(rng, *[1] * 12), time=torch.randint(1, 4, (12,), generator=rng).double())
    loss, risk = CoxPartialLikelihood(ties), torch.randn(12, 1, dtype=torch.float64, generator=rng)  # type: ignore[arg-type]
    torch.testing.assert_close(loss(Prediction(risk + 500), batch), loss(Prediction(risk), batch))
    wild = (risk * 300).requires_grad_()
    value = loss(Prediction(wild), batch)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(wild.grad).all()


def test_without_events_cox_costs_nothing_and_pulls_nowhere(rng: torch.Generator):
    batch = replace(patients(rng, 1, 1), event=torch.tensor([False, False]))
    risk = torch.randn(2, 1, generator=rng, requires_grad=True)
    loss = CoxPartialLikelihood()(Prediction(risk), batch)
    loss.backward()
    assert float(loss.detach()) == 0
    assert (risk.grad == 0).all()


def test_the_model_s_own_terms_are_added(rng: torch.Generator):
    batch, logits = patients(rng, 1, 1), torch.randn(2, 4, generator=rng)
    loss = DiscreteHazard()
    terms = {"a": torch.tensor(2.0), "b": torch.tensor(0.5)}
    torch.testing.assert_close(loss(Prediction(logits, terms), batch), loss(Prediction(logits), batch) + 2.5)


@pytest.mark.unchecked
def test_wrong_sizes_are_named(rng: torch.Generator):
    batch = patients(rng, 1, 1)
    with pytest.raises(ValueError, match=r"CoxPartialLikelihood expects 1 logits per patient, the model gave 4"):
        CoxPartialLikelihood()(Prediction(torch.zeros(2, 4)), batch)
    with pytest.raises(
        ValueError, match=r"time bins reach from 5 to 6; expected 0 to 3: prepare the cohort with bins=4"
    ):
        DiscreteHazard(4)(Prediction(torch.zeros(2, 4)), replace(batch, bins=torch.tensor([5, 6])))
    with pytest.raises(ValueError, match=r"alpha=2\.0; expected 0 to 1"):
        DiscreteHazard(alpha=2.0)
    with pytest.raises(ValueError, match="ties='exact'; expected 'efron' or 'breslow'"):
        CoxPartialLikelihood("exact")  # type: ignore[arg-type]
