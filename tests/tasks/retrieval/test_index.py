"""Laws of the index: exact search is brute force, a dictionary is its oracle, FAISS finds what exact search finds."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DataError
from encoders.encoder import padded
from fusion.tokens import Tokens
from tasks.retrieval.exact_search import nearest
from tasks.retrieval.faiss_backends import FaissOptions
from tasks.retrieval.index import Backend, Index, Settings
from tasks.retrieval.late_interaction import Query, nearest_items, score_rows
from tasks.retrieval.scores import Score, scores_of
from tasks.retrieval.stored_items import StoredItems
from tasks.retrieval.two_towers import Encoded

WIDTH = 8
needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="extra faiss is not installed")


def units(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.standard_normal((*shape, WIDTH)).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def queries(rng: np.random.Generator, n: int, tokens: int = 3) -> list[Query]:
    return [Query(torch.from_numpy(units(rng)), torch.from_numpy(units(rng, tokens))) for _ in range(n)]


def made(n: int, score: Score = "global", backend: Backend = "exact", seed: int = 0, **more: object) -> Index:
    rng = np.random.default_rng(seed)
    index = Index(Settings("towers", WIDTH, score, backend=backend, **more))  # type: ignore[arg-type]
    tokens = [units(rng, 1 + at % 4) for at in range(n)]
    index.add([f"i{at}" for at in range(n)], units(rng, n), tokens if score != "global" else None)
    return index


@pytest.mark.parametrize("memory_mb", [0.02, 0.1, 64.0])
@pytest.mark.parametrize("k", [1, 7, 500])
def test_exact_search_is_brute_force_whatever_the_memory(k: int, memory_mb: float):
    rng = np.random.default_rng(1)
    stored = rng.integers(-2, 3, (300, 4)).astype(np.float32)
    asking = torch.from_numpy(rng.integers(-2, 3, (3, 4)).astype(np.float32))
    found = nearest(asking, stored, k, memory_mb=memory_mb + 32 * 3 * k / 2**20)
    scores = asking.numpy() @ stored.T
    for row in range(3):
        order = np.lexsort((np.arange(300), -scores[row]))[: min(k, 300)]
        assert found.row[row].tolist() == order.tolist(), "equal scores stand in the order of the rows"
        assert found.score[row].numpy() == pytest.approx(scores[row, order])


def test_the_bound_on_memory_is_kept_or_named():
    with pytest.raises(DataError, match=r"memory_mb=0.0001 is too little for 3 queries and k=2; give at least"):
        nearest(torch.zeros(3, 4), np.zeros((9, 4), np.float32), 2, memory_mb=1e-4)
    with pytest.raises(DataError, match=r"memory_mb=0.0001 is too little for 1 queries and items of 4 tokens"):
        nearest_items(queries(np.random.default_rng(0), 1), made(9, "tokens").items, 2, "tokens", memory_mb=1e-4)


@pytest.mark.parametrize("score", ["global", "tokens", "both"])
def test_scores_of_stored_items_are_the_scores_that_are_evaluated(score: Score):
    rng = np.random.default_rng(2)
    index, asking = made(20, score), queries(rng, 4)
    items = index.items
    own = [
        torch.from_numpy(items.tokens_of(np.array([row]))[0] if score != "global" else items.vectors[row : row + 1])
        for row in range(20)
    ]
    gallery = Encoded(padded(own, WIDTH, torch.device("cpu")), torch.from_numpy(items.vectors))
    asked = Encoded(
        Tokens.full(torch.stack([q.tokens for q in asking])), torch.stack([query.vector for query in asking])
    )
    table = scores_of(asked, gallery, score)
    for row, query in enumerate(asking):
        torch.testing.assert_close(score_rows([query], items, np.arange(20), score)[0], table[row], atol=1e-6, rtol=0)
    hits = index.search(asking, 20, "towers")
    for row, one in enumerate(hits):
        assert [hit.score for hit in one] == pytest.approx(table[row].sort(descending=True).values.tolist(), abs=1e-6)


def test_one_query_with_one_token_scores_as_a_vector():
    rng = np.random.default_rng(3)
    vectors = units(rng, 30)
    index = Index(Settings("towers", WIDTH, "tokens"))
    index.add([str(at) for at in range(30)], vectors, [one[None] for one in vectors])
    plain = Index(Settings("towers", WIDTH))
    plain.add([str(at) for at in range(30)], vectors)
    query = [Query(vector := torch.from_numpy(units(rng)), vector[None])]
    assert [h.id for h in index.search(query, 9, "towers")[0]] == [h.id for h in plain.search(query, 9, "towers")[0]]


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "update", "build"]), st.integers(0, 12), st.integers(0, 99)),
    min_size=1,
    max_size=25,
)


def against_a_dictionary(operations: list[tuple[str, int, int]], score: Score, backend: Backend) -> None:
    """Add, remove and update in any order; then the index answers as the dictionary does."""
    index = Index(Settings("towers", WIDTH, score, backend=backend, faiss=FaissOptions(search_width=64)))
    oracle: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for what, number, seed in operations:
        item, rng = f"i{number}", np.random.default_rng(seed)
        vector, tokens = units(rng, 1), units(rng, 1 + seed % 3)
        own = [tokens] if score != "global" else None
        refused = ""
        try:
            if what == "add":
                index.add([item], vector, own)
                assert item not in oracle
                oracle[item] = (vector[0], tokens)
            elif what == "update":
                index.update([item], vector, own)
                del oracle[item]
                oracle[item] = (vector[0], tokens)
            elif what == "remove":
                index.remove([item])
                del oracle[item]
            else:
                index.build()
        except DataError as error:
            refused = str(error)
        assert not refused or ("already in" in refused) == (item in oracle)
    assert index.items.ids == list(oracle)
    assert len(index) == len(oracle)
    if not oracle:
        return
    [query] = queries(np.random.default_rng(7), 1)
    expected = {}
    for item, (vector, tokens) in oracle.items():
        whole, picks = float(vector @ query.vector.numpy()), (query.tokens.numpy() @ tokens.T).max(axis=1).mean()
        expected[item] = {"global": whole, "tokens": picks, "both": 0.5 * whole + 0.5 * picks}[score]
    best = sorted(expected, key=lambda item: -expected[item])
    hits = index.search([query], 5, "towers")[0]
    assert [hit.id for hit in hits] == best[:5]
    assert [hit.score for hit in hits] == pytest.approx([expected[item] for item in best[:5]], abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(OPERATIONS, st.sampled_from(["global", "tokens", "both"]))
def test_exact_index_against_a_dictionary(operations: list[tuple[str, int, int]], score: Score):
    against_a_dictionary(operations, score, "exact")


@pytest.mark.parametrize("score", ["global", "tokens", "both"])
def test_wordings_asked_together_score_what_they_score_on_average(score: Score):
    index, rng = made(20, score), np.random.default_rng(4)
    wordings = [*queries(rng, 2, tokens=3), *queries(rng, 1, tokens=5)]
    rows = np.arange(20)
    each = score_rows(wordings, index.items, rows, score, 0.3)
    together = score_rows([Query.ensemble(wordings)], index.items, rows, score, 0.3)
    torch.testing.assert_close(together[0], each.mean(dim=0))


@needs_faiss
@settings(max_examples=40, deadline=None)
@given(OPERATIONS, st.sampled_from(["global", "tokens", "both"]), st.sampled_from(["flat", "hnsw"]))
def test_faiss_index_against_a_dictionary(operations: list[tuple[str, int, int]], score: Score, backend: Backend):
    against_a_dictionary(operations, score, backend)


def test_whatever_is_refused_changes_nothing():
    index = made(5, "tokens")
    rng = np.random.default_rng(0)
    good, holed = units(rng, 2), units(rng, 2)
    holed[1, 3] = np.nan
    tokens = [units(rng, 2), units(rng, 3)]
    for ids, vectors, own, message in [
        (["a", "i3"], good, tokens, "i3: already in the index"),
        (["a", "a"], good, tokens, "a: stands twice among the new items"),
        (["a", "b"], holed, tokens, "b: its vector is zero or holds NaN"),
        (["a", "b"], good, [tokens[0], tokens[1] * 0], "b: its vector is zero or holds NaN"),
        (["a", "b"], good, [tokens[0], tokens[1][:0]], r"b: tokens of shape \(0, 8\)"),
        (["a", "b"], good, None, "2 ids with tokens of 0 items"),
    ]:
        with pytest.raises(DataError, match=message):
            index.add(ids, vectors, own)
    with pytest.raises(DataError, match="nobody: not in the index, which holds 5 items"):
        index.remove(["i1", "nobody"])
    with pytest.raises(DataError, match="b: not in the index"):
        index.update(["i1", "b"], good, tokens)
    with pytest.raises(DataError, match="i1: stands twice among the items to update"):
        index.update(["i1", "i1"], good, tokens)
    assert index.items.ids == [f"i{at}" for at in range(5)]


def test_a_query_of_another_encoder_or_of_nothing_is_refused():
    index, rng = made(5, "tokens"), np.random.default_rng(0)
    [query] = queries(rng, 1)
    with pytest.raises(DataError, match="made by encoder towers, the query comes from others; search with the run"):
        index.search([query], 1, "others")
    with pytest.raises(DataError, match="k=0: expected at least 1"):
        index.search([query], 0, "towers")
    with pytest.raises(DataError, match="query 0: it keeps no token"):
        index.search([Query(query.vector, query.tokens[:0])], 1, "towers")
    with pytest.raises(DataError, match="query 0: its vector holds NaN"):
        index.search([Query(query.vector * torch.nan, query.tokens)], 1, "towers")
    with pytest.raises(DataError, match="the index is empty"):
        made(0).search([query], 1, "towers")
    assert len(index.search([query], 99, "towers")[0]) == 5, "k above the number of items gives all of them"


def test_half_precision_is_kept_as_it_is_searched():
    index = made(50, precision="float16")
    assert index.items.vectors.dtype == np.float16
    query = Query(torch.from_numpy(index.items.vectors[7].astype(np.float32)), torch.empty(0, WIDTH))
    assert index.search([query], 1, "towers")[0][0].id == "i7"


@needs_faiss
@pytest.mark.parametrize("backend", ["flat", "ivfpq", "hnsw"])
@pytest.mark.parametrize("score", ["global", "tokens", "both"])
def test_faiss_finds_what_exact_search_finds(score: Score, backend: Backend):
    asking = queries(np.random.default_rng(9), 20)
    exact = made(400, score).search(asking, 10, "towers")
    options = FaissOptions(code_bytes=8, probes=16)
    index = made(400, score, backend, faiss=options, token_candidates=64)
    found = index.search(asking, 10, "towers")
    recalls = [len({h.id for h in a} & {h.id for h in b}) / 10 for a, b in zip(exact, found, strict=True)]
    assert np.mean(recalls) >= 0.97
    best = {hit.id: hit.score for hit in exact[0]}
    assert all(best[hit.id] == pytest.approx(hit.score, abs=1e-6) for hit in found[0] if hit.id in best)


@needs_faiss
def test_ivfpq_names_what_it_needs():
    with pytest.raises(DataError, match="ivfpq needs at least 256 vectors to train on, found 40"):
        made(40, backend="ivfpq").build()
    with pytest.raises(DataError, match="code_bytes=3 does not divide the width 8"):
        made(300, backend="ivfpq", faiss=FaissOptions(code_bytes=3)).build()


def test_tokens_of_rows_stand_one_after_another():
    items = StoredItems(WIDTH, True)
    rng = np.random.default_rng(0)
    own = [units(rng, 2), units(rng, 1), units(rng, 2)]
    items.add(["a", "b", "c"], units(rng, 3), own)
    for rows in ([2, 1], [0, 1], [0, 2], [1, 1]):
        tokens, begins = items.tokens_of(np.array(rows))
        assert tokens == pytest.approx(np.concatenate([own[row] for row in rows]))
        assert begins.tolist() == [0, len(own[rows[0]])]
