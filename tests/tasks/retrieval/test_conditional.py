"""Conditional embedding: the sheet's exact identities, the triplet loss, what a space tells, and learning on a toy."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from data.errors import DataError
from data.pairs.items import Pairs, Side, galleries_of_splits
from fusion.tokens import Tokens
from tasks.experiment.trainer import TrainerOptions
from tasks.retrieval.attributes import asked, entanglement, mean_average_precision, precision_per_query, separation
from tasks.retrieval.conditional import (
    AttributeEmbedder,
    ConditionalEmbedder,
    MaskedEmbedder,
    SeparateHeads,
    SharedEmbedder,
)
from tasks.retrieval.fit_conditional import TripletOptions, all_spaces, fit_embedder
from tasks.retrieval.triplets import Values, triplet_loss
from tests.tasks.retrieval.filip_cases import Vectors

NAMES = ("style", "tone", "gender")
KINDS = [ConditionalEmbedder, SharedEmbedder, SeparateHeads, MaskedEmbedder]


def made(cls: type[AttributeEmbedder], names: tuple[str, ...] = NAMES) -> AttributeEmbedder:
    torch.manual_seed(3)
    return cls(Vectors(6), names, width=8, hidden=16, heads=2).eval()


@pytest.fixture
def tokens(rng: torch.Generator) -> Tokens:
    keep = torch.tensor([[True] * 4, [True, True, False, False], [False, True, True, True]])
    return Tokens(torch.randn(3, 4, 6, generator=rng), keep)


@pytest.mark.parametrize("cls", KINDS)
def test_all_spaces_at_once_are_the_spaces_one_by_one(cls: type[AttributeEmbedder], tokens: Tokens):
    model = made(cls)
    every = model.spaces(model.backbone(tokens))
    for k, name in enumerate(NAMES):
        one = model.embed_tokens(tokens, name)
        torch.testing.assert_close(every[:, k], one)
        torch.testing.assert_close(model.embed_tokens(tokens, torch.full((3,), k)), one)
        torch.testing.assert_close(one.norm(dim=1), torch.ones(3))
    mixed = model.embed_tokens(tokens, torch.tensor([2, 0, 1]))
    torch.testing.assert_close(mixed, every[torch.arange(3), torch.tensor([2, 0, 1])])


@pytest.mark.parametrize("cls", KINDS)
def test_the_backbone_runs_once_for_all_spaces(cls: type[AttributeEmbedder], rng: torch.Generator):
    model, calls = made(cls), []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    model.embed_all(torch.randn(5, 24, generator=rng).numpy())
    assert len(calls) == 1


def test_one_condition_is_a_learned_query_that_pools(tokens: Tokens):
    model = made(ConditionalEmbedder, ("style",))
    assert isinstance(model, ConditionalEmbedder)
    item, read = model.backbone(tokens), model.last.read
    h, d = read.heads, read.head_width
    q = read.to_query(read.table[0]).view(h, d)
    k, v = (part.view(3, 4, h, d) for part in read.to_source(item.zeroed().x).chunk(2, dim=-1))
    weight = torch.einsum("hd,bnhd->bhn", q, k).div(d**0.5).masked_fill(~item.keep[:, None], -torch.inf).softmax(dim=2)
    assert read.gate is None
    pooled = read.out(torch.einsum("bhn,bnhd->bhd", weight, v).reshape(3, h * d))
    head = model.last
    x = pooled + head.feed_forward(head.norm(pooled))
    expected = F.normalize(head.out(head.last_norm(x)), dim=-1)
    torch.testing.assert_close(model.embed_tokens(tokens, "style"), expected)


@pytest.mark.parametrize("zero", ["to_query", "table"])
def test_without_a_question_every_condition_reads_the_mean_of_the_values(zero: str, tokens: Tokens):
    """What a condition looks at is in the query projection; how it weighs channels is in the table alone."""
    model = made(ConditionalEmbedder)
    assert isinstance(model, ConditionalEmbedder)
    read, item = model.last.read, model.backbone(tokens)
    with torch.no_grad():
        (read.table if zero == "table" else read.to_query.weight).zero_()
    values = read.to_source(item.zeroed().x).chunk(2, dim=-1)[1].masked_fill(~item.keep[..., None], 0.0)
    assert read.gate is not None
    gate = read.gate(read.table)
    mean = values.sum(dim=1) / item.keep.sum(dim=1, keepdim=True)
    torch.testing.assert_close(read.every(item).y, read.out(mean[:, None] * gate))
    every = model.spaces(item)
    same = torch.allclose(every[:, 0], every[:, 1], atol=1e-6) and torch.allclose(every[:, 0], every[:, 2], atol=1e-6)
    assert same == (zero == "table")  # the gates still know which condition asks


def test_a_loss_under_one_condition_leaves_the_other_queries_alone(tokens: Tokens):
    model = made(ConditionalEmbedder)
    assert isinstance(model, ConditionalEmbedder)
    model.embed_tokens(tokens, "tone").sum().backward()
    gradient = model.last.read.table.grad
    assert gradient is not None
    assert (gradient[[0, 2]] == 0).all()
    assert (gradient[1] != 0).any()


def test_renumbering_conditions_with_their_queries_changes_nothing(tokens: Tokens):
    model = made(ConditionalEmbedder)
    assert isinstance(model, ConditionalEmbedder)
    before = model.spaces(model.backbone(tokens))
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        model.last.read.table.copy_(model.last.read.table[order])
    torch.testing.assert_close(model.spaces(model.backbone(tokens)), before[:, order])


@pytest.mark.parametrize("cls", KINDS)
def test_a_condition_the_model_lacks_is_named(cls: type[AttributeEmbedder], tokens: Tokens):
    model = made(cls)
    with pytest.raises(ValueError, match="condition 'heel': this model knows style, tone, gender"):
        model.embed_tokens(tokens, "heel")
    for wrong in (3, -1):
        with pytest.raises(ValueError, match=f"condition {wrong}: this model knows 0 to 2"):
            model.embed_tokens(tokens, torch.tensor([0, wrong, 1]))


def test_the_shared_baseline_has_one_space_and_the_masks_scale_it(tokens: Tokens):
    shared, masked = made(SharedEmbedder), made(MaskedEmbedder)
    every = shared.spaces(shared.backbone(tokens))
    torch.testing.assert_close(every[:, 0], every[:, 2])
    assert isinstance(masked, MaskedEmbedder)
    with torch.no_grad():
        masked.mask.fill_(1.0)
    same = masked.spaces(masked.backbone(tokens))
    torch.testing.assert_close(same[:, 0], same[:, 1])


def test_the_triplet_loss_is_its_definition_where_negatives_leave_no_choice():
    angle = torch.tensor([0.0, 0.4, 2.0])
    unit = torch.stack([angle.cos(), angle.sin()], dim=1)[:, None]
    loss = triplet_loss(unit, torch.tensor([[0], [0], [1]]), margin=0.9)
    cosine = (angle[:, None] - angle).cos()
    expected = [(0.9 - cosine[a, p] + cosine[a, 2]).clamp(min=0) for a, p in ((0, 1), (1, 0))]
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_items_that_lack_the_attribute_are_in_no_triplet(rng: torch.Generator):
    spaces = F.normalize(torch.randn(6, 1, 4, generator=rng), dim=-1).requires_grad_()
    triplet_loss(spaces, torch.tensor([[0], [0], [1], [1], [-1], [-1]]), margin=2.0).backward()
    assert spaces.grad is not None
    assert (spaces.grad[4:] == 0).all()
    nobody = triplet_loss(spaces, torch.full((6, 1), -1))
    assert nobody == 0


def test_values_are_numbered_and_missing_ones_are_marked():
    values = Values.of(pd.DataFrame({"a": ["x", None, "y", "x"]}), ["a"])
    assert values.classes == (("x", "y"),)
    assert values.codes[:, 0].tolist() == [0, -1, 1, 0]
    with pytest.raises(DataError, match="attribute 'b' is no column"):
        Values.of(pd.DataFrame({"a": ["x", "y"]}), ["b"])
    with pytest.raises(DataError, match="attribute 'a' takes 1 value"):
        Values.of(pd.DataFrame({"a": ["x", "x"]}), ["a"])


def test_a_space_that_sorts_by_value_has_precision_one():
    codes = np.array([0, 1, 0, 1, -1, 0, 1])
    space = torch.nn.functional.one_hot(torch.tensor([0, 1, 0, 1, 0, 0, 1]), 2).float()
    queries = np.array([True, True, False, False, True, False, False])
    found = precision_per_query(space, codes, queries)
    assert found["average_precision"].tolist() == [1.0, 1.0]
    assert found["gallery"].tolist() == [4, 4]
    with pytest.raises(DataError, match="0 queries and 6 candidates"):
        precision_per_query(space, codes, np.zeros(7, bool))


def test_a_fifth_asks_and_who_does_depends_on_the_name_alone():
    ids = [f"item{k}" for k in range(2000)]
    share = asked(ids)
    assert 0.17 < share.mean() < 0.23
    assert (asked(ids[::-1])[::-1] == share).all()


def test_a_probe_finds_what_is_there_and_not_what_is_not(rng: torch.Generator):
    codes = np.random.default_rng(0).integers(0, 2, (400, 2))
    own = F.one_hot(torch.from_numpy(codes), 2).float() + 0.05 * torch.randn(400, 2, 2, generator=rng)
    matrix = entanglement(own[:300], own[300:], codes[:300], codes[300:], ("a", "b")).set_index(["space", "attribute"])
    for name, other in (("a", "b"), ("b", "a")):
        assert matrix.loc[(name, name), "accuracy"] == 1.0
        assert abs(matrix.loc[(name, other), "accuracy"] - matrix.loc[(name, other), "majority"]) < 0.15


def test_separation_is_zero_for_equal_spaces_and_one_for_orthogonal_ones():
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    found = separation(torch.stack([x, x, y]).expand(4, 3, 2))
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]))


def marked_pairs(items: int = 200) -> Pairs:
    """Two tokens an item, in random order: one shows its sign, the other its size, each marked as which it is."""
    draw = np.random.default_rng(0)
    codes = draw.integers(0, 2, (items, 2))
    tokens = np.zeros((items, 2, 6), np.float32)
    for k in range(2):
        tokens[:, k, k] = 1
        tokens[np.arange(items), k, 2 + codes[:, k]] = 1
    tokens[..., 4:] = 0.3 * draw.standard_normal((items, 2, 2))
    ids = [f"item{k}" for k in range(items)]
    split = np.repeat(["train", "val", "test"], [items // 2, items // 4, items // 4])
    table = pd.DataFrame({"split": split, "sign": codes[:, 0], "size": codes[:, 1]}, index=ids)
    side = Side("vectors", ids, lambda rows: tokens[list(rows)].reshape(len(rows), -1))
    return Pairs("marked", side, side, [(k,) for k in range(items)], table, table, galleries_of_splits(table, table))


def test_a_query_per_condition_learns_two_attributes_that_one_space_confuses(tmp_path: Path):
    pairs, found = marked_pairs(), {}
    rows = pairs.rows("test")[0]
    ids = [pairs.left.ids[row] for row in rows]
    for cls in (ConditionalEmbedder, SharedEmbedder):
        torch.manual_seed(0)
        model = cls(Vectors(6), ("sign", "size"), width=8, hidden=16, heads=2, dropout=0.0)
        feed, epochs = fit_embedder(
            model,
            pairs,
            functools.partial(torch.optim.AdamW, lr=2e-2),
            tmp_path / cls.__name__,
            tmp_path / "features",
            seed=0,
            options=TripletOptions(batch_size=25, warmup=2),
            trainer=TrainerOptions(max_epochs=8, accelerator="cpu"),
        )
        assert len(epochs) == 8
        spaces = all_spaces(model, feed, rows)
        table = mean_average_precision(spaces, Values.of(pairs.table, model.conditions), rows, ids)
        found[cls] = np.mean([queries["average_precision"].mean() for queries in table.values()])
    assert found[ConditionalEmbedder] > 0.95
    assert found[SharedEmbedder] < found[ConditionalEmbedder] - 0.05
