"""docs/attention.md tells the truth: its table is the classes', its example is an operator, its names exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import fusion.operators
from fusion.attention import AttentionOp, MultiHead
from fusion.observe import QUANTITIES, Ask, observe
from fusion.operators import Dense
from fusion.tokens import Tokens

PAGE = Path(__file__).resolve().parents[2] / "docs" / "attention.md"


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text()


@pytest.fixture(scope="module")
def nearby(page: str) -> Any:
    """The example, executed."""
    (block,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.S) if "class Nearby" in code)
    assert len(block.splitlines()) <= 40
    names: dict[str, Any] = {}
    exec(compile(block, str(PAGE), "exec"), names)
    return names["Nearby"]


def rows_after(page: str, header: str) -> list[list[str]]:
    """The body of the table that starts with `header`."""
    body = page.split(header, 1)[1].split("\n\n", 1)[0].strip().splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in body]


def test_the_table_is_what_the_classes_declare(page: str):
    offered = {
        name: op
        for name in fusion.operators.__all__
        if isinstance(op := getattr(fusion.operators, name), type) and issubclass(op, AttentionOp)
    }
    table = {row[0].strip("` "): row[1:] for row in rows_after(page, "| operator | abilities | cost | dense when |")}
    declared = {n: [", ".join(sorted(op.supports)), op.cost, op.dense_when or "never"] for n, op in offered.items()}
    assert {name: table.get(name) for name in declared} == declared


def test_the_table_of_quantities_is_complete(page: str):
    named = {row[0].strip("` ") for row in rows_after(page, "| quantity | meaning | shape |")}
    assert named == QUANTITIES.keys()


def test_the_example_is_dense_attention_where_it_says(nearby: type[MultiHead], rng: torch.Generator):
    tokens = Tokens(torch.randn(2, 6, 16, generator=rng), torch.arange(6) < torch.tensor([[6], [4]]))
    op, dense = nearby(16, 4, reach=5), Dense(16, 4)
    dense.load_state_dict(op.state_dict())
    torch.testing.assert_close(op(tokens).y, dense(tokens).y)


def test_the_example_reads_its_window_and_can_be_observed(nearby: type[MultiHead], rng: torch.Generator):
    tokens = Tokens.full(torch.randn(2, 9, 16, generator=rng))
    op = nearby(16, 4, reach=2)
    with observe(op, {"Nearby": Ask("mass", rows=range(9))}) as seen:
        op(tokens)
    weights = seen["Nearby"][0]["rows"]
    away = (torch.arange(9)[:, None] - torch.arange(9)).abs()
    assert torch.equal(weights > 0, (away <= 2).expand_as(weights))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 9))


def test_the_example_refuses_what_it_cannot_do(nearby: type[MultiHead], rng: torch.Generator):
    with pytest.raises(ValueError, match=r"reach=-1 must be 0"):
        nearby(16, 4, reach=-1)
    tokens, other = (Tokens.full(torch.randn(2, n, 16, generator=rng)) for n in (5, 3))
    with pytest.raises(ValueError, match="leave source out"):
        nearby(16, 4)(tokens, other)
