"""Drawing among legal values: never an illegal one, the nucleus alone, and the model's own shares inside it."""

from __future__ import annotations

import pytest
import torch

from tasks.melody.rules import Sampling
from tasks.melody.sampling import Draws, bound_by, choose

LOGITS = torch.log(torch.tensor([0.5, 0.25, 0.15, 0.1]))


def drawn(legal: list[bool], sampling: Sampling, count: int = 4000) -> torch.Tensor:
    uniform = (torch.arange(count) + 0.5) / count
    found = choose(LOGITS.expand(count, 4), torch.tensor(legal).expand(count, 4), uniform, sampling)
    return torch.bincount(found, minlength=4) / count


def test_shares_are_the_models_own_among_the_legal():
    torch.testing.assert_close(drawn([True] * 4, Sampling(top_p=1.0)), LOGITS.exp(), atol=1e-3, rtol=0)
    expected = torch.tensor([0, 0.25, 0.15, 0.1]) / 0.5
    torch.testing.assert_close(drawn([False, True, True, True], Sampling(top_p=1.0)), expected, atol=1e-3, rtol=0)


def test_the_nucleus_holds_its_share_and_no_more():
    shares = drawn([True] * 4, Sampling(top_p=0.75))
    torch.testing.assert_close(shares, torch.tensor([2 / 3, 1 / 3, 0, 0]), atol=1e-3, rtol=0)
    assert drawn([True] * 4, Sampling(top_p=0.01))[0] == 1


def test_a_low_temperature_takes_the_likeliest():
    assert drawn([False, True, True, True], Sampling(temperature=0.01))[1] == 1


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_the_ends_of_the_unit_interval_choose_legal_values(uniform: float):
    legal = torch.tensor([[False, True, False, True]])
    assert choose(LOGITS[None], legal, torch.tensor([uniform]), Sampling(top_p=1.0)).item() in (1, 3)


def test_how_a_rule_bound_is_counted():
    overruled, removed = bound_by(LOGITS[None], torch.tensor([[False, True, True, True]]))
    assert overruled.item()
    assert removed.item() == pytest.approx(0.5)


def test_a_songs_draws_do_not_depend_on_its_batch():
    alone, together = Draws(3, 1), Draws(3, 5)
    for _ in range(600):
        assert alone.next()[0] == together.next()[0]


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_a_sampling_that_is_none_is_refused(wrong: dict):
    with pytest.raises(ValueError, match="expected a temperature above 0 and a share above 0 and at most 1"):
        Sampling(**wrong)
