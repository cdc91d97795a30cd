"""Contrastive cross entropy against its definition, several partners, and the learned temperature."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fusion.alignment import Temperature, partner_cross_entropy


def test_one_partner_each_is_the_clip_loss_bit_for_bit(rng: torch.Generator):
    logits = torch.randn(7, 7, generator=rng)
    ours = partner_cross_entropy(logits, torch.eye(7, dtype=torch.bool))
    torch.testing.assert_close(ours, F.cross_entropy(logits, torch.arange(7)), rtol=0, atol=0)


def test_several_partners_share_the_target(rng: torch.Generator):
    logits = torch.randn(3, 5, generator=rng)
    partner = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 1]], dtype=torch.bool)
    log = logits.log_softmax(dim=1)
    rows = [log[0, :2].mean(), log[1, 2], log[2, 2:].mean()]
    torch.testing.assert_close(partner_cross_entropy(logits, partner), -torch.stack(rows).mean())


def test_a_row_without_a_partner_is_named():
    with pytest.raises(ValueError, match="row 1 has no true partner among 2 columns"):
        partner_cross_entropy(torch.zeros(2, 2), torch.tensor([[True, False], [False, False]]))


def test_the_temperature_starts_where_it_is_told_and_stays_bounded():
    temperature = Temperature(start=0.07, largest=100.0)
    torch.testing.assert_close(temperature(torch.ones(1, 1)), torch.tensor([[1 / 0.07]]))
    temperature.log_scale.data.fill_(math.log(1000.0))
    assert float(temperature.scale.detach()) == 100.0


@pytest.mark.parametrize("start", [0.0, 0.005])
def test_a_temperature_beyond_its_bound_is_refused(start: float):
    with pytest.raises(ValueError, match=f"start={start} must be above 0 and at least"):
        Temperature(start=start)
