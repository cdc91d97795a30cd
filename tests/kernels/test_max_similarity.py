"""K8: token-wise maximum similarity of all pairs, and retrieval by it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from kernels.dispatch import explain
from kernels.max_similarity import best_matches, max_similarity
from kernels.max_similarity.op import _op, _weights
from kernels.max_similarity.reference import max_similarity_reference
from kernels.timing import usage
from tests.kernels.laws import assert_exact_enough


def _items(a: int, n: int, b: int, s: int, d: int, rng: torch.Generator) -> list[Tensor]:
    shapes = (a, n, d), (b, s, d)
    return [normalize(torch.randn(shape, generator=rng, dtype=torch.float64), dim=-1) for shape in shapes]


def _keeps(a: int, n: int, b: int, s: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    x, y = (torch.rand(shape, generator=rng) > 0.4 for shape in ((a, n), (b, s)))
    x[:, n // 2], y[:, s // 2] = True, True
    return x, y


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
@pytest.mark.parametrize(("a", "n", "b", "s", "d"), [(3, 20, 5, 7, 24), (2, 70, 3, 100, 40), (5, 1, 4, 1, 8)])
def test_definition(
    a: int, n: int, b: int, s: int, d: int, reduce: str, dtype: torch.dtype, rng: torch.Generator
) -> None:
    x_keep, y_keep = _keeps(a, n, b, s, rng)

    def definition(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return max_similarity_reference(x, y, _weights(x, x_keep, reduce), _weights(y, y_keep, reduce))[:2]

    assert_exact_enough(
        lambda x, y: max_similarity(x, y, x_keep=x_keep, y_keep=y_keep, reduce=reduce),
        definition,
        _items(a, n, b, s, d, rng),
        dtype,
    )


@pytest.mark.parametrize("n", [1, 15, 16, 17, 63, 64, 65, 127, 333])
def test_definition_at_any_number_of_tokens(n: int, rng: torch.Generator) -> None:
    def definition(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return max_similarity_reference(x, y, _weights(x, None, "mean"), _weights(y, None, "mean"))[:2]

    assert_exact_enough(max_similarity, definition, _items(2, n, 3, 9, 16, rng), torch.float32)


@pytest.mark.parametrize("d", [8, 32, 64, 80, 96, 128, 192, 256, 300])
def test_definition_at_any_width(d: int, rng: torch.Generator) -> None:
    def definition(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return max_similarity_reference(x, y, _weights(x, None, "mean"), _weights(y, None, "mean"))[:2]

    assert_exact_enough(max_similarity, definition, _items(2, 10, 2, 5, d, rng), torch.float32)


def test_one_token_a_side_is_a_dot_product(rng: torch.Generator) -> None:
    x, y = _items(4, 1, 6, 1, 8, rng)
    found = max_similarity(x, y)
    torch.testing.assert_close(found.x_to_y, x[:, 0] @ y[:, 0].T)
    torch.testing.assert_close(found.y_to_x, found.x_to_y)


def test_an_item_meets_itself_with_score_one(rng: torch.Generator) -> None:
    x, _ = _items(5, 6, 1, 1, 16, rng)
    found = max_similarity(x, x)
    torch.testing.assert_close(found.x_to_y.diagonal(), torch.ones(5, dtype=torch.float64))
    assert bool((found.x_to_y <= 1 + 1e-12).all())
    torch.testing.assert_close(found.x_to_y, found.y_to_x.T)


def test_order_and_copies_of_tokens_do_not_matter(rng: torch.Generator) -> None:
    x, y = _items(3, 6, 4, 5, 16, rng)
    before = max_similarity(x, y)
    for other in (y[:, [3, 1, 4, 0, 2]], torch.cat([y, y], dim=1)):
        for a, b in zip(before, max_similarity(x, other), strict=True):
            torch.testing.assert_close(a, b)


def test_padding_may_hold_anything(rng: torch.Generator) -> None:
    x, y = (z.float() for z in _items(3, 6, 4, 5, 16, rng))
    x_keep, y_keep = _keeps(3, 6, 4, 5, rng)
    results = []
    for garbage in (0.0, torch.nan, torch.inf, -1e9):
        left, right = (
            z.masked_fill(~keep[..., None], garbage).requires_grad_() for z, keep in ((x, x_keep), (y, y_keep))
        )
        found = max_similarity(left, right, x_keep=x_keep, y_keep=y_keep)
        results.append([*found, *torch.autograd.grad(found.x_to_y.sum() + found.y_to_x.sum(), (left, right))])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert bool((results[0][2][~x_keep] == 0).all())


def test_of_equal_tokens_the_first_gets_the_gradient() -> None:
    x = torch.eye(4)[None, :2].clone().requires_grad_()
    y = torch.ones(1, 3, 4, requires_grad=True)
    found = max_similarity(x, y)
    (gradient,) = torch.autograd.grad(found.x_to_y.sum(), y, retain_graph=True)
    assert torch.equal(gradient[0].abs().sum(-1) > 0, torch.tensor([True, False, False]))
    (gradient,) = torch.autograd.grad(found.y_to_x.sum(), x)
    assert torch.equal(gradient[0].abs().sum(-1) > 0, torch.tensor([True, False]))


def test_two_runs_give_the_same_bits(rng: torch.Generator) -> None:
    x, y = (z.float().requires_grad_() for z in _items(9, 20, 7, 33, 16, rng))

    def run() -> list[Tensor]:
        found = max_similarity(x, y)
        return [*found, *torch.autograd.grad(found.x_to_y.square().sum() + found.y_to_x.sum(), (x, y))]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_a_pair_does_not_depend_on_its_neighbours(rng: torch.Generator) -> None:
    x, y = _items(9, 20, 7, 33, 16, rng)
    whole, part = max_similarity(x, y), max_similarity(x[4:5], y[2:4])
    torch.testing.assert_close(whole.x_to_y[4:5, 2:4], part.x_to_y, rtol=0, atol=1e-14)


def test_the_operator_keeps_torchs_contract(rng: torch.Generator) -> None:
    x, y = (z.float().requires_grad_() for z in _items(3, 4, 5, 6, 8, rng))
    torch.library.opcheck(_op, (x, y, torch.ones(3, 4), torch.ones(5, 6), True))
    torch.library.opcheck(_op, (x.detach(), y.detach(), torch.ones(3, 4), torch.ones(5, 6), False))


@pytest.mark.parametrize("dynamic", [False, True])
def test_it_compiles_whole(dynamic: bool, rng: torch.Generator) -> None:
    x, y = (z.float().requires_grad_() for z in _items(3, 4, 5, 6, 8, rng))
    compiled = torch.compile(max_similarity, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    grads = [torch.autograd.grad(call(x, y).x_to_y.sum(), (x, y)) for call in (compiled, max_similarity)]
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_autocast_casts_the_tokens(rng: torch.Generator) -> None:
    x, y = (z.float() for z in _items(3, 4, 5, 6, 8, rng))
    with torch.autocast("cpu", torch.bfloat16):
        found = max_similarity(x, y).x_to_y
    assert found.dtype == torch.float32
    assert torch.equal(found, max_similarity(x.bfloat16(), y.bfloat16()).x_to_y)


def test_bad_input_is_named() -> None:
    x, y = torch.ones(2, 3, 4), torch.ones(5, 6, 4)
    with pytest.raises(ValueError, match=r"y_keep\[1\] keeps no token, so its score is undefined"):
        max_similarity(x, y, y_keep=torch.arange(5)[:, None].expand(5, 6) != 1)
    with pytest.raises(ValueError, match=r"y has shape \[5, 6, 3\]; expected \[b, s, d\] = \[any, any, 4\]"):
        max_similarity(x, y[..., :3])
    with pytest.raises(ValueError, match="x has 0 tokens an item; 1 to 32767 can be scored"):
        max_similarity(x[:, :0], y)
    with pytest.raises(ValueError, match="reduce='max' is unknown; use 'mean' or 'sum'"):
        max_similarity(x, y, reduce="max")
    with pytest.raises(ValueError, match=r"y is torch\.float64 but x is torch\.float32"):
        max_similarity(x, y.double())
    with pytest.raises(ValueError, match=r"x is torch\.int64; expected float16"):
        max_similarity(x.long(), y.long())


def test_long_items_are_explained() -> None:
    x = torch.ones(1, 2000, 4)
    assert any(
        "2000 tokens in an item, the kernel holds at most 1024" in why for why in explain(max_similarity, x, x).reasons
    )


@pytest.mark.parametrize("direction", ["query", "item", "both"])
@pytest.mark.parametrize("memory_mb", [2.5, 64.0])
def test_retrieval_equals_sorting_all_scores(direction: str, memory_mb: float, rng: torch.Generator) -> None:
    x, y = (z.float() for z in _items(4, 5, 300, 6, 16, rng))
    x_keep, y_keep = _keeps(4, 5, 300, 6, rng)
    y[200], y_keep[200] = y[100], y_keep[100]
    scores = max_similarity(x, y, x_keep=x_keep, y_keep=y_keep)
    table = {"query": scores[0], "item": scores[1], "both": (scores[0] + scores[1]) / 2}[direction]
    seen = []
    found = best_matches(
        x, y, 250, query_keep=x_keep, items_keep=y_keep, direction=direction, memory_mb=memory_mb,
        progress=lambda done, of: seen.append((done, of)),
    )  # fmt: skip
    values = table.sort(dim=1, descending=True, stable=True).values
    torch.testing.assert_close(found.score, values[:, :250])
    torch.testing.assert_close(table.gather(1, found.item), values[:, :250])
    for row in found.item.tolist():
        assert 200 not in row or row.index(100) < row.index(200)
    assert seen[-1] == (300, 300)


def test_retrieval_names_what_it_cannot_do() -> None:
    x = torch.ones(3, 4, 8)
    with pytest.raises(ValueError, match=r"k=4 with 3 items in the collection; k must be 1 to 3"):
        best_matches(x, x, 4)
    with pytest.raises(
        ValueError, match=r"memory_mb=0.1 is too little for 3 queries and k=1; one item at a time needs"
    ):
        best_matches(x, x, 1, memory_mb=0.1)


def _scored(a: int):  # type: ignore[no-untyped-def]
    x, y = torch.randn(a, 64, 128), torch.randn(a, 32, 128)
    max_similarity(x[:2], y[:2])
    return lambda: max_similarity(x, y)


def _trained(a: int):  # type: ignore[no-untyped-def]
    x, y = torch.randn(a, 64, 128, requires_grad=True), torch.randn(a, 32, 128, requires_grad=True)

    def step() -> object:
        found = max_similarity(x, y)
        return torch.autograd.grad(found.x_to_y.sum() + found.y_to_x.sum(), (x, y))

    if a > 2:
        _trained(2)()  # loads libraries
    return step


def test_no_table_of_pairs_is_ever_in_memory() -> None:
    table_mb = 200 * 200 * 64 * 32 * 4 / 2**20
    assert table_mb > 300
    assert usage(_scored, 200, threads=1).peak_mb < 64
    assert usage(_trained, 200, threads=1).peak_mb < 64
