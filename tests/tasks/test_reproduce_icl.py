"""In-context linear regression: the attention's exact identities, and the pattern that training finds."""

import pytest
import torch

from tasks.reproduce import icl_linear_regression as icl
from tasks.reproduce.icl_linear_regression import InContextAttention, Prompts, gradient_step, pattern, prompts


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ideal(*heads: tuple[float, float]) -> InContextAttention:
    """Heads of the pure pattern: (omega, mu) each."""
    model = InContextAttention(len(heads), draw())
    with torch.no_grad():
        for weight in (model.key, model.query, model.value, model.out):
            weight.zero_()
        for head, (omega, mu) in enumerate(heads):
            model.key[head, : icl.WIDTH, : icl.WIDTH] = torch.eye(icl.WIDTH)
            model.query[head, : icl.WIDTH, : icl.WIDTH] = omega * torch.eye(icl.WIDTH)
            model.value[head, -1, -1] = 1.0
            model.out[head, -1, -1] = mu
    return model.double()


def doubled(given: Prompts) -> Prompts:
    return Prompts(*(part.double() for part in given))


def test_a_shift_of_every_x_in_the_prompt_changes_nothing():
    given = doubled(prompts(50, draw=draw()))
    shifted = given._replace(x=given.x + torch.randn(50, 1, icl.WIDTH, generator=draw(1)).double())
    model = ideal((0.5, 1.5), (-0.2, -1.0))
    torch.testing.assert_close(model(shifted), model(given), rtol=0, atol=1e-12)


def test_the_order_of_the_prompt_does_not_matter():
    given = doubled(prompts(50, draw=draw()))
    order = torch.randperm(icl.LENGTH, generator=draw(1))
    model = InContextAttention(3, draw(2)).double()
    torch.testing.assert_close(
        model(given._replace(x=given.x[:, order], y=given.y[:, order])), model(given), rtol=0, atol=1e-12
    )


def test_two_weak_opposite_heads_are_one_step_of_debiased_gradient_descent():
    given = doubled(prompts(200, draw=draw()))
    omega, rate = 1e-3, 0.88
    mu = rate / (2 * omega)
    centred = given.x - given.x.mean(dim=1, keepdim=True)
    step = rate * torch.einsum("bl,bld,bd->b", given.y, centred, given.query) / icl.LENGTH
    torch.testing.assert_close(ideal((omega, mu), (-omega, -mu))(given), step, rtol=0, atol=2e-5)


def test_a_head_that_reads_nothing_is_inert():
    given = doubled(prompts(50, draw=draw()))
    torch.testing.assert_close(ideal((0.3, 1.0), (0.7, 0.0))(given), ideal((0.3, 1.0))(given), rtol=0, atol=1e-12)


def test_the_pattern_of_ideal_heads_is_measured_as_ideal():
    given = doubled(prompts(2000, draw=draw()))
    found = pattern(ideal((0.01, 44.0), (-0.01, -44.0), (0.0, 0.0)), given)
    assert (found.active, found.off_diagonal) == (2, 0.0)
    assert found.cancels == pytest.approx(0.0, abs=1e-12)
    assert found.correlation > 0.9999


def test_centring_helps_where_x_has_a_mean_and_nothing_beats_bayes():
    given = prompts(4000, draw=draw(), mean=1.0)
    plain, debiased, best = (
        float((said - given.answer).square().mean())
        for said in (gradient_step(given, centred=False), gradient_step(given, centred=True), icl.bayes(given))
    )
    assert best < debiased < plain


def test_more_heads_than_one_find_the_pattern_and_one_cannot(monkeypatch: pytest.MonkeyPatch):
    """A tenth of the steps: enough to tell the two apart, not to meet the figures."""
    given = prompts(4000, draw=draw(9))
    one, four = (pattern(icl.train(heads, 0, steps=600), given) for heads in (1, 4))
    assert four.loss < 0.35 < one.loss
    assert four.cancels < 0.1 < one.cancels


@pytest.mark.slow
def test_the_small_form_is_reproduced():
    assert icl.run(small=True)["ok"]
