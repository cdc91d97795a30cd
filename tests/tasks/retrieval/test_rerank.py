"""Re-ranking: only the first hits move, padding reaches nothing, negatives are the hardest, and it learns."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from fusion.tokens import Tokens
from tasks.experiment.trainer import TrainerOptions
from tasks.retrieval.fit_rerank import RerankOptions, fit_cross_encoder, rerank
from tasks.retrieval.fit_unit import FitOptions, fit_towers
from tasks.retrieval.objectives import GlobalContrast
from tasks.retrieval.rerank import CrossEncoder, hard_negatives, rerank_loss, reranked
from tasks.retrieval.two_towers import TwoTowers
from tests.tasks.retrieval.filip_cases import Vectors, toy_pairs


@pytest.fixture
def model() -> CrossEncoder:
    torch.manual_seed(2)
    return CrossEncoder(6, 8, width=16, heads=2).eval()


def tokens(b: int, n: int, w: int, rng: torch.Generator) -> Tokens:
    return Tokens.full(torch.randn(b, n, w, generator=rng))


def test_hits_are_put_in_the_order_of_the_logits(model: CrossEncoder, rng: torch.Generator):
    left, right = tokens(3, 4, 6, rng), tokens(7, 5, 8, rng)
    hits = torch.stack([torch.randperm(7, generator=rng)[:4] for _ in range(3)])
    logits, order = reranked(model, left, right, hits, chunk=2)
    assert (order.sort(dim=1).values == hits.sort(dim=1).values).all()
    assert (logits.diff(dim=1) <= 0).all()
    for query in range(3):
        for place, item in enumerate(order[query]):
            pair = Tokens(left.x[[query]], left.keep[[query]]), Tokens(right.x[[int(item)]], right.keep[[int(item)]])
            torch.testing.assert_close(model(*pair)[0], logits[query, place], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [1e9, float("nan")])
def test_padding_reaches_nothing(model: CrossEncoder, value: float, rng: torch.Generator):
    left, right = tokens(2, 4, 6, rng), tokens(2, 3, 8, rng)
    x = torch.cat([right.x, torch.full((2, 2, 8), value)], dim=1)
    keep = torch.cat([right.keep, torch.zeros(2, 2, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(model(left, Tokens(x, keep)), model(left, right), rtol=1e-5, atol=1e-6)


def test_negatives_are_the_best_scored_wrong_answers():
    scores = torch.tensor([[0.9, 0.8, 0.8, 0.1], [0.1, 0.2, 0.3, 0.4]])
    partner = torch.tensor([[True, False, False, False], [False, False, False, True]])
    assert hard_negatives(scores, partner, 2).tolist() == [[1, 2], [2, 1]]
    with pytest.raises(ValueError, match="number=4: query 0 has 3 wrong answers"):
        hard_negatives(scores, partner, 4)


def test_the_loss_is_a_choice_among_partner_and_negatives(model: CrossEncoder, rng: torch.Generator):
    left, right = tokens(2, 4, 6, rng), tokens(3, 5, 8, rng)
    loss = rerank_loss(model, left, right, torch.tensor([[1], [2]]), torch.tensor([0, 1]))
    chosen = [(0, 0, 1), (1, 1, 2)]
    expected = []
    for query, partner, wrong in chosen:
        pair = [
            model(Tokens(left.x[[query]], left.keep[[query]]), Tokens(right.x[[k]], right.keep[[k]]))
            for k in (partner, wrong)
        ]
        expected.append(-torch.cat(pair).log_softmax(dim=0)[0])
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)


def test_it_learns_from_the_towers_mistakes_and_keeps_its_best_epoch(tmp_path: Path):
    pairs = toy_pairs(160)
    torch.manual_seed(0)
    towers = TwoTowers(Vectors(6), Vectors(8), width=4, hidden=8, heads=2, blocks=0)
    adam = functools.partial(torch.optim.AdamW, lr=5e-3)
    fitted = fit_towers(
        towers,
        GlobalContrast(),
        pairs,
        adam,
        tmp_path / "unit",
        tmp_path / "features",
        0,
        FitOptions(batch_size=40, warmup=2),
        TrainerOptions(max_epochs=2, accelerator="cpu"),
    )
    before = {name: value.clone() for name, value in towers.state_dict().items()}
    model = CrossEncoder(6, 8, width=16, heads=2, dropout=0.0)
    options = RerankOptions(top=5, negatives=5, batch_size=20, epochs=3)
    epochs = fit_cross_encoder(model, fitted, pairs, adam, 0, options)
    assert epochs["epoch"].tolist() == [-1.0, 0.0, 1.0, 2.0]
    assert epochs["train_loss"].iloc[-1] < epochs["train_loss"].iloc[1]
    for name, value in towers.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    left, right = pairs.rows("test")
    scores = torch.randn(len(left), len(right))
    found = rerank(model, fitted, left, right, scores, 3)
    expected = scores.argsort(dim=1, descending=True)[:, :3].sort(dim=1).values
    assert (found.sort(dim=1).values == expected).all()


def test_options_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"rerank\.top: expected at least 1, found 0"):
        RerankOptions(top=0)
    with pytest.raises(ValueError, match=r"rerank\.batch_size: expected more than negatives=7, found 7"):
        RerankOptions(batch_size=7)
