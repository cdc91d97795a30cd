"""The grid convolution against three separate convolutions, and its laws on scattered tokens."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fusion.dropout import Dropout
from fusion.grid_convolution import Depthwise, GridConvolution, depthwise
from fusion.tokens import Place, Tokens

W = 8


def on_square(x: torch.Tensor, side: int) -> Tokens:
    at = torch.arange(side * side)
    grid = torch.stack([at % side, at // side], 1).to(x.dtype).expand(len(x), -1, -1)
    return Tokens.full(x, Place(grid=grid))


def test_on_a_full_grid_it_is_the_sum_of_three_convolutions(rng: torch.Generator):
    module = GridConvolution(W)
    x = torch.randn(2, 25, W, generator=rng)
    image = x.transpose(1, 2).view(2, W, 5, 5)
    expected = image + sum(conv(image) for conv in module.convolutions)
    torch.testing.assert_close(module(on_square(x, 5)).x, expected.flatten(2).transpose(1, 2), rtol=1e-5, atol=1e-5)


def test_the_faster_gradient_is_the_gradient(rng: torch.Generator):
    image = torch.randn(2, W, 9, 6, dtype=torch.float64, generator=rng, requires_grad=True)
    kernel = torch.randn(W, 1, 7, 7, dtype=torch.float64, generator=rng, requires_grad=True)
    found = [torch.autograd.grad(f(image, kernel).sin().sum(), (image, kernel)) for f in (Depthwise.apply, depthwise)]
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)


def test_the_order_of_tokens_and_their_padding_do_not_matter(rng: torch.Generator):
    module = GridConvolution(W)
    x, cells = torch.randn(1, 10, W, generator=rng), torch.randperm(64, generator=rng)[:10]
    grid = torch.stack([cells % 8, cells // 8], 1).float()[None]
    keep = torch.ones(1, 10, dtype=torch.bool)
    keep[0, 7:] = False
    base = module(Tokens(x, keep, Place(grid=grid))).x
    order = torch.randperm(10, generator=rng)
    spoilt = x.masked_fill(~keep[..., None], float("nan"))
    other = module(Tokens(spoilt[:, order], keep[:, order], Place(grid=grid[:, order]))).x
    torch.testing.assert_close(other[:, order.argsort()][keep], base[keep], rtol=1e-5, atol=1e-6)


def test_tokens_of_one_cell_enter_as_their_mean(rng: torch.Generator):
    module = GridConvolution(W)
    x = torch.randn(1, 2, W, generator=rng)
    shared = module(Tokens.full(x, Place(grid=torch.zeros(1, 2, 2)))).x - x
    alone = module(Tokens.full(x.mean(1, keepdim=True), Place(grid=torch.zeros(1, 1, 2)))).x - x.mean(1, keepdim=True)
    torch.testing.assert_close(shared, alone.expand(-1, 2, -1), rtol=1e-5, atol=1e-6)


def test_without_a_grid_tokens_pass_and_a_negative_cell_is_named(rng: torch.Generator):
    x = torch.randn(1, 2, W, generator=rng)
    assert GridConvolution(W)(Tokens.full(x)).x is x
    with pytest.raises(ValueError, match="grid cells start at -1; expected 0 or more"):
        GridConvolution(W)(Tokens.full(x, Place(grid=-torch.ones(1, 2, 2))))


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5])
def test_dropout_keeps_the_mean_and_the_share(p: float):
    torch.manual_seed(0)
    ones = torch.ones(1000, 1001)
    y = Dropout(p)(ones)
    assert abs(float((y == 0).float().mean()) - p) < 2e-3
    assert abs(float(y.mean()) - 1) < 3e-3
    assert Dropout(p).eval()(ones) is ones
    torch.testing.assert_close(y[y > 0].unique(), torch.tensor([1 / (1 - p)]), rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match=r"p=1\.0; expected at least 0 and below 1"):
        Dropout(1.0)


def test_dropped_values_get_no_gradient():
    x = torch.ones(64, 64, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())
    assert F.dropout(x, 0.5).shape == y.shape
