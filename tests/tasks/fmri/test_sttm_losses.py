"""Limits of the contrastive losses, and their schedule."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tasks.fmri.models.losses import Mixed, Schedule, contrastive, same_target, soft_contrastive


def unit(rng: torch.Generator, n: int, e: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, e, generator=rng), dim=1)


def info_nce(p: torch.Tensor, t: torch.Tensor, temperature: float) -> torch.Tensor:
    scores, right = F.normalize(p, dim=1) @ t.T / temperature, torch.arange(len(p))
    return (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2


@pytest.mark.parametrize("temperature", [0.006, 0.1])
def test_hard_targets_are_info_nce(temperature: float, rng: torch.Generator):
    p, t = torch.randn(9, 12, generator=rng), unit(rng, 9, 12)
    found = contrastive(p, t, same_target(torch.arange(9)), temperature)
    torch.testing.assert_close(found, info_nce(p, t, temperature))


def test_mixco_of_whole_samples_is_info_nce(rng: torch.Generator):
    p, t = torch.randn(9, 12, generator=rng), unit(rng, 9, 12)
    whole = Mixed(torch.ones(9), torch.randperm(9, generator=rng))
    torch.testing.assert_close(whole.apply(p), p, rtol=0, atol=0)
    found = contrastive(p, t, whole.weights(same_target(torch.arange(9))), 0.1)
    torch.testing.assert_close(found, info_nce(p, t, 0.1))


def test_mixco_weighs_both_parents(rng: torch.Generator):
    mixed = Mixed(torch.tensor([1.0, 0.7, 0.2]), torch.tensor([0, 2, 0]))
    x = torch.randn(3, 4, generator=rng)
    torch.testing.assert_close(mixed.apply(x)[1], 0.7 * x[1] + 0.3 * x[2])
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.7, 0.3], [0.8, 0.0, 0.2]])
    torch.testing.assert_close(mixed.weights(torch.eye(3)), expected)


def test_soft_targets_become_hard_ones(rng: torch.Generator):
    p, t = torch.randn(9, 12, generator=rng), unit(rng, 9, 12)
    torch.testing.assert_close(soft_contrastive(p, t, 0.1, 1e-3), info_nce(p, t, 0.1))
    apart = [float(soft_contrastive(p, t, tau) / info_nce(p, t, tau)) - 1 for tau in (0.3, 0.1, 0.01)]
    assert abs(apart[2]) < 1e-5 < abs(apart[1]) < abs(apart[0])


def test_soft_loss_is_least_at_the_targets_themselves(rng: torch.Generator):
    t = unit(rng, 9, 12)
    p = t.clone().requires_grad_()
    soft_contrastive(p, t, 0.1).backward()
    assert p.grad is not None
    assert p.grad.abs().max() < 1e-5


def test_samples_of_one_class_are_no_negatives_of_one_another(rng: torch.Generator):
    which = torch.tensor([0, 1, 0, 2])
    t = torch.eye(3)[which]
    wrong = contrastive(t, t, torch.eye(4), 0.01)
    right = contrastive(t, t, same_target(which), 0.01)
    assert same_target(which).sum(dim=1).tolist() == [1.0] * 4
    assert float(right) == pytest.approx(float(wrong), abs=1e-5)
    p = t.clone().requires_grad_()
    contrastive(p, t, same_target(which), 0.1).backward()
    assert p.grad is not None
    torch.testing.assert_close(p.grad[0], p.grad[2])


def test_drawn_shares_leave_about_half_alone():
    torch.manual_seed(0)
    drawn = Mixed.draw(4000)
    assert 0.47 < float((drawn.share == 1).float().mean()) < 0.56
    assert sorted(drawn.partner.tolist()) == list(range(4000))
    both = Mixed.nothing(2).joined(Mixed(torch.zeros(2), torch.tensor([1, 0])))
    assert both.partner.tolist() == [0, 1, 3, 2]


def test_the_schedule_goes_from_mixing_to_a_cosine_of_temperatures():
    paper = Schedule(temperature=0.006, soft_from=0.004, soft_to=0.006)
    assert paper.mixing(0.34)
    assert not paper.mixing(0.35)
    assert paper.soft_temperature(0.35) == pytest.approx(0.004)
    assert paper.soft_temperature(0.675) == pytest.approx(0.005)
    assert paper.soft_temperature(1.0) == pytest.approx(0.006)
    with pytest.raises(ValueError, match=r"schedule\.mix_share: expected 0 to 1, found 2"):
        Schedule(mix_share=2.0)
    with pytest.raises(ValueError, match=r"schedule\.temperature: expected above 0"):
        Schedule(temperature=0.0)
