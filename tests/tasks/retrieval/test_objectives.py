"""FILIP's exact identities, token selection, prompt ensembles, and the losses against their definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fusion.tokens import Tokens
from tasks.retrieval.objectives import (
    GlobalContrast,
    HybridContrast,
    Objective,
    TokenContrast,
    keep_best,
    token_similarity,
)
from tasks.retrieval.scores import prompt_ensemble
from tasks.retrieval.two_towers import Encoded, Projection, joined
from tests.tasks.retrieval.filip_cases import encoded, leaves, same_rows

OBJECTIVES = [GlobalContrast, TokenContrast, HybridContrast]


def loss_of(objective: Objective, left: Encoded, right: Encoded) -> torch.Tensor:
    return objective(left, right, torch.arange(len(left)), torch.arange(len(right)), same_rows)


def test_one_token_on_each_side_is_clip_loss_and_gradients_included(rng: torch.Generator):
    x, y = (F.normalize(torch.randn(6, 8, generator=rng, dtype=torch.float64), dim=-1) for _ in range(2))
    ends = []
    for objective in (TokenContrast(), GlobalContrast()):
        a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
        left, right = (Encoded(Tokens.full(side[:, None]), side) for side in (a, b))
        loss = loss_of(objective.double(), left, right)
        loss.backward()
        ends.append((loss.detach(), a.grad, b.grad))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-14)
    logits = x @ y.T / 0.07
    target = torch.arange(6)
    clip = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(ends[1][0], clip, rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [0.0, 1e9, float("nan")])
@pytest.mark.parametrize("cls", OBJECTIVES)
def test_padding_changes_nothing_whatever_stands_there(cls: type[Objective], value: float, rng: torch.Generator):
    left, right = encoded(4, 5, 8, rng), encoded(4, 3, 8, rng)
    x = torch.cat([left.x, torch.full((4, 2, 8), value)], dim=1)
    keep = torch.cat([left.keep, torch.zeros(4, 2, dtype=torch.bool)], dim=1)
    padded = Encoded(Tokens(x, keep), left.global_vector)
    objective = cls()
    torch.testing.assert_close(loss_of(objective, padded, right), loss_of(objective, left, right), rtol=1e-6, atol=1e-6)


def test_the_order_of_tokens_and_their_copies_change_no_score(rng: torch.Generator):
    left, right = encoded(4, 5, 8, rng), encoded(3, 6, 8, rng)
    before = token_similarity(left, right)
    for x in (left.x[:, torch.randperm(5, generator=rng)], left.x.repeat(1, 2, 1)):
        torch.testing.assert_close(token_similarity(Encoded(Tokens.full(x), left.global_vector), right), before)


def test_an_item_scores_one_with_itself_and_nobody_beyond(rng: torch.Generator):
    items = encoded(5, 4, 8, rng)
    for scores in token_similarity(items, items):
        torch.testing.assert_close(scores.diagonal(), torch.ones(5))
        assert scores.abs().max() <= 1 + 1e-6


def test_the_token_loss_is_its_definition(rng: torch.Generator):
    left, right = encoded(3, 4, 8, rng), encoded(3, 5, 8, rng)
    table = torch.einsum("ipd,jtd->ijpt", left.x, right.x) / 0.07
    one, other = table.amax(dim=3).mean(dim=2), table.amax(dim=2).mean(dim=2)
    target = torch.arange(3)
    expected = (F.cross_entropy(one, target) + F.cross_entropy(other.T, target)) / 2
    torch.testing.assert_close(loss_of(TokenContrast(), left, right), expected)


def test_the_hybrid_at_its_ends_is_one_of_the_two(rng: torch.Generator):
    left, right = encoded(4, 3, 8, rng), encoded(4, 5, 8, rng)
    for weight, cls in ((0.0, GlobalContrast), (1.0, TokenContrast)):
        expected = loss_of(cls(), left, right)
        torch.testing.assert_close(loss_of(HybridContrast(token_weight=weight), left, right), expected)
    assert HybridContrast(mix=0.0).global_share == 1.0
    assert HybridContrast(mix=1.0).global_share == 0.0


def test_an_item_that_stands_twice_in_a_batch_is_a_partner_both_times(rng: torch.Generator):
    left, right = encoded(3, 2, 8, rng), encoded(3, 2, 8, rng)
    rows = torch.tensor([4, 4, 7])
    loss = GlobalContrast()(left, right, rows, rows, same_rows)
    log = (left.global_vector @ right.global_vector.T / 0.07).log_softmax(dim=1)
    other = (right.global_vector @ left.global_vector.T / 0.07).log_softmax(dim=1)
    expected = -torch.stack([(t[0, :2].mean() + t[1, :2].mean() + t[2, 2]) / 3 for t in (log, other)]).mean()
    torch.testing.assert_close(loss, expected)


def test_keeping_every_token_is_keeping_the_items(rng: torch.Generator):
    keep = torch.tensor([[True] * 4, [True, False, True, True]])
    own, other = encoded(2, 4, 8, rng, keep), encoded(3, 5, 8, rng)
    kept = keep_best(own, other, 1.0)
    for row in range(2):
        torch.testing.assert_close(kept.x[row][kept.keep[row]], own.x[row][own.keep[row]], rtol=0, atol=0)


def test_dropping_left_tokens_only_lowers_what_right_tokens_find(rng: torch.Generator):
    left, right = encoded(4, 8, 8, rng), encoded(4, 5, 8, rng)
    whole, before = token_similarity(left, right).right_to_left, None
    for share in (0.25, 0.5, 0.75):
        found = token_similarity(keep_best(left, right, share), right).right_to_left
        assert (found <= whole + 1e-6).all()
        assert before is None or (found >= before - 1e-6).all()
        before = found


def test_the_kept_tokens_are_those_that_match_the_batch_best(rng: torch.Generator):
    own, other = encoded(3, 8, 8, rng), encoded(4, 5, 8, rng)
    best = torch.einsum("ipd,jtd->ipjt", own.x, other.x).amax(dim=(2, 3))
    kept = keep_best(own, other, 0.25)
    assert kept.keep.sum(dim=1).tolist() == [2, 2, 2]
    for row in range(3):
        expected = own.x[row][best[row].topk(2).indices.sort().values]
        torch.testing.assert_close(kept.x[row], expected, rtol=0, atol=0)


def test_prompts_are_averaged_as_scores(rng: torch.Generator):
    prompts = [token_similarity(encoded(2, 3, 8, rng), encoded(4, n, 8, rng)).left_to_right for n in (2, 5)]
    torch.testing.assert_close(prompt_ensemble(prompts), (prompts[0] + prompts[1]) / 2)
    with pytest.raises(ValueError, match="no prompts were given"):
        prompt_ensemble([])


@pytest.mark.parametrize(("blocks", "residual"), [(0, False), (1, False), (0, True), (1, True)])
def test_projected_tokens_are_unit_padding_is_zero_and_an_empty_item_is_refused(
    blocks: int, residual: bool, rng: torch.Generator
):
    keep = torch.tensor([[True, True, False], [True, True, True]])
    project = Projection(6, 6 if residual else 4, hidden=8, blocks=blocks, heads=2, residual=residual).eval()
    for parameter in project.out.parameters():
        torch.nn.init.normal_(parameter, generator=rng)
    tokens = Tokens(torch.randn(2, 3, 6, generator=rng).masked_fill(~keep[..., None], float("nan")), keep)
    found = project(tokens)
    torch.testing.assert_close(found.x.norm(dim=-1), keep.float())
    torch.testing.assert_close(found.global_vector.norm(dim=-1), torch.ones(2))
    alone = project(Tokens.full(tokens.x[:1, :2]))
    torch.testing.assert_close(found.x[:1, :2], alone.x)
    torch.testing.assert_close(found.global_vector[:1], alone.global_vector)
    with pytest.raises(ValueError, match="item 1 of the batch keeps no token"):
        project(Tokens(tokens.x, torch.tensor([[True, True, False], [False, False, False]])))


@pytest.mark.parametrize("blocks", [0, 1])
def test_a_residual_projection_begins_as_the_encoder_and_learns(blocks: int, rng: torch.Generator):
    tokens = Tokens.full(torch.randn(2, 3, 6, generator=rng))
    project = Projection(6, 6, hidden=8, blocks=blocks, heads=2, residual=True)
    found = project(tokens)
    torch.testing.assert_close(found.x, torch.nn.functional.normalize(tokens.x, dim=-1))
    torch.testing.assert_close(found.global_vector, torch.nn.functional.normalize(tokens.x.mean(dim=1), dim=-1))
    (found.global_vector @ torch.randn(6, generator=rng)).sum().backward()
    last = project.out[1].weight.grad
    assert last is not None
    assert last.norm() > 0


def test_joined_batches_score_as_before(rng: torch.Generator):
    parts, right = [encoded(2, 3, 8, rng), encoded(3, 6, 8, rng)], encoded(4, 5, 8, rng)
    whole = token_similarity(joined(parts), right)
    apart = [token_similarity(part, right) for part in parts]
    torch.testing.assert_close(whole.left_to_right, torch.cat([scores.left_to_right for scores in apart]))


@pytest.mark.parametrize("cls", [TokenContrast, HybridContrast])
def test_a_share_of_tokens_outside_its_range_is_refused(cls: type[Objective]):
    with pytest.raises(ValueError, match="token_keep=0"):
        cls(token_keep=0.0)


def test_gradients_reach_the_picks_alone(rng: torch.Generator):
    left, right = leaves(encoded(1, 3, 8, rng)), leaves(encoded(1, 1, 8, rng))
    token_similarity(left, right).right_to_left.sum().backward()
    winner = int((left.x[0] @ right.x[0, 0]).argmax())
    assert left.x.grad is not None
    assert (left.x.grad[0].abs().sum(dim=1) > 0).nonzero().flatten().tolist() == [winner]


def test_an_open_mixture_is_settled_and_travels_with_the_weights():
    open_mix, copy = HybridContrast(), HybridContrast()
    shares = open_mix.shares()
    assert shares[0] == 1.0
    assert shares[-1] == 0.0
    assert shares == sorted(shares, reverse=True)
    open_mix.settle(3)
    copy.load_state_dict(open_mix.state_dict())
    assert copy.global_share == open_mix.global_share == shares[3]
    assert HybridContrast(mix=0.3).shares() == pytest.approx([0.7])
