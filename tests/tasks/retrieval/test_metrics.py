"""Laws of the retrieval metrics: against sorting by hand, against scikit-learn, under ties, and of a random order."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from data.errors import DataError
from tasks.experiment.compare import resample
from tasks.retrieval.metrics import MAP, MEDIAN_RANK, MRR, NDCG, chance, draws_of, metric_names, per_query, summarise


def shuffled(q: int, g: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores without ties and one to three relevant items per query."""
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.permuted(np.tile(np.arange(g, dtype=np.float64), (q, 1)), axis=1))
    relevant = torch.zeros(q, g, dtype=torch.bool)
    for row in range(q):
        relevant[row, rng.permutation(g)[: 1 + row % 3]] = True
    return scores, relevant


def test_every_metric_equals_its_definition():
    scores, relevant = shuffled(12, 40)
    found = per_query(scores, relevant)
    for query in range(12):
        order = scores[query].argsort(descending=True)
        ranks = relevant[query][order].nonzero().flatten().numpy() + 1
        row = found.loc[query]
        assert row["rank"] == ranks[0]
        assert row["reciprocal_rank"] == pytest.approx(1 / ranks[0])
        truth, score = relevant[query].numpy(), scores[query].numpy()
        assert row["average_precision"] == pytest.approx(average_precision_score(truth, score))
        assert row["ndcg"] == pytest.approx(ndcg_score(truth[None].astype(int), score[None]))
        assert (row["relevant"], row["gallery"]) == (relevant[query].sum(), 40)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_the_order_of_the_gallery_changes_nothing_even_with_ties(seed: int, g: int):
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.integers(0, 3, (4, g)).astype(np.float64))
    relevant = torch.from_numpy(rng.random((4, g)) < 0.3)
    relevant[:, 0] = True
    order = torch.from_numpy(rng.permutation(g))
    pd.testing.assert_frame_equal(per_query(scores, relevant), per_query(scores[:, order], relevant[:, order]))


def test_a_model_that_scores_everything_alike_is_last():
    relevant = torch.eye(5, dtype=torch.bool)
    assert (per_query(torch.zeros(5, 5), relevant)["rank"] == 5).all()
    assert (per_query(torch.eye(5), relevant)["rank"] == 1).all()


def test_what_is_excluded_is_not_in_the_gallery():
    scores = torch.tensor([[9.0, 3.0, 2.0]])
    relevant = torch.tensor([[True, False, True]])
    row = per_query(scores, relevant, excluded=torch.tensor([[True, False, False]])).loc[0]
    assert (row["rank"], row["relevant"], row["gallery"]) == (2, 1, 2)


def test_a_query_without_a_right_answer_is_not_asked():
    relevant = torch.tensor([[False, False], [False, True]])
    assert list(per_query(torch.eye(2), relevant).index) == [1]
    with pytest.raises(DataError, match="no query has a relevant item"):
        per_query(torch.eye(2), torch.zeros(2, 2, dtype=torch.bool))


def test_a_score_that_is_no_number_is_named():
    scores = torch.eye(3)
    scores[1, 2] = torch.nan
    with pytest.raises(DataError, match="query 1 and item 2 score NaN"):
        per_query(scores, torch.eye(3, dtype=torch.bool))


def test_draws_of_the_sample_itself_are_plain_means():
    found = per_query(*shuffled(30, 20))
    for name, values in draws_of(found, resample(30, 50, 3)).items():
        one = {MEDIAN_RANK: found["rank"].median(), MRR: found["reciprocal_rank"].mean(), NDCG: found["ndcg"].mean()}
        one |= {MAP: found["average_precision"].mean()}
        one |= {f"R@{k}": (found["rank"] <= k).mean() for k in (1, 5, 10)}
        assert values[0] == pytest.approx(one[name])
        assert len(values) == 51


def test_the_median_of_a_resample_is_the_median_of_what_was_drawn():
    found = per_query(*shuffled(7, 15))
    counts = resample(7, 20, 5)
    drawn = [np.median(np.repeat(found["rank"].to_numpy(), row.astype(int))) for row in counts]
    assert draws_of(found, counts)[MEDIAN_RANK] == pytest.approx(drawn)


@pytest.mark.parametrize(("m", "g"), [(1, 7), (3, 12), (5, 5)])
def test_chance_is_what_random_orders_reach(m: int, g: int):
    relevant = torch.zeros(40_000, g, dtype=torch.bool)
    relevant[:, :m] = True
    scores = torch.from_numpy(np.random.default_rng(0).random((40_000, g)))
    found = per_query(scores, relevant)
    expected = chance(found["relevant"].to_numpy(), found["gallery"].to_numpy())
    for name, values in draws_of(found, np.ones((1, len(found)))).items():
        assert expected[name] == pytest.approx(values[0], abs=0.5 if name == MEDIAN_RANK else 0.008)


def test_chance_in_a_gallery_of_277_is_what_the_readme_says():
    one = np.ones(1, int)
    assert chance(one, 277 * one)["R@1"] == pytest.approx(0.0036, abs=5e-5)
    assert chance(one, 400 * one)["R@1"] == pytest.approx(0.0025)


def test_a_summary_names_gallery_chance_and_an_interval_that_holds_the_value():
    rows = summarise(per_query(*shuffled(60, 25)), draws=200)
    assert [row.metric for row in rows] == metric_names()
    for row in rows:
        assert row.low <= row.value <= row.high
        assert (row.n, row.gallery) == (60, 25)
        assert math.isfinite(row.chance)
