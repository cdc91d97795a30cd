"""Nystrom: where it is exact, where it is close, what it must not depend on; the zero-padded form by its definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from fusion.operators import CoAttention, Dense, Nystrom, ZeroPaddedNystrom
from fusion.tokens import Place, Tokens

W, H = 32, 4


def ragged(rng: torch.Generator, *lengths: int) -> Tokens:
    n = max(lengths)
    return Tokens(torch.randn(len(lengths), n, W, generator=rng), torch.arange(n) < torch.tensor(lengths)[:, None])


def plain(op: ZeroPaddedNystrom, x: torch.Tensor) -> torch.Tensor:
    """The definition, matrix by matrix, on the physically padded sequence."""
    n, m, d = x.shape[1], op.landmarks, op.head_width
    x = F.pad(x, (0, 0, -n % m, 0))
    heads = [rearrange(t, "b n (h d) -> b h n d", h=H) for t in (op.to_query(x), *op.to_source(x).chunk(2, -1))]
    q, k, v = heads[0] * d**-0.5, heads[1], heads[2]
    q_mean, k_mean = (t.unflatten(2, (m, -1)).mean(3) for t in (q, k))
    f1, f2, f3 = ((a @ b.transpose(-1, -2)).softmax(-1) for a, b in ((q, k_mean), (q_mean, k_mean), (q_mean, k)))
    z = f2.transpose(-1, -2) / (f2.sum(-1).amax((1, 2)) * f2.sum(-2).amax((1, 2)))[:, None, None, None]
    one = torch.eye(m, dtype=x.dtype)
    for _ in range(op.steps):
        fz = f2 @ z
        z = z / 4 @ (13 * one - fz @ (15 * one - fz @ (7 * one - fz)))
    out = f1 @ z @ f3 @ v
    out = out + F.conv2d(v, op.filter[:, None, :, None], padding=(op.kernel // 2, 0), groups=H)
    return op.out(rearrange(out, "b h n d -> b n (h d)"))[:, -n:]


@pytest.mark.parametrize("n", [1, 7, 15, 16, 17, 31, 33, 47, 64, 100])
def test_zero_padded_is_its_definition_with_gradients(n: int, rng: torch.Generator):
    torch.manual_seed(0)
    op = ZeroPaddedNystrom(W, H, landmarks=16, kernel=5).double()
    x = torch.randn(2, n, W, dtype=torch.float64, generator=rng, requires_grad=True)
    wanted = [x, *op.parameters()]
    ours, definition = op(Tokens.full(x)).y, plain(op, x)
    torch.testing.assert_close(ours, definition)
    for a, b in zip(
        torch.autograd.grad(ours.sin().sum(), wanted), torch.autograd.grad(definition.sin().sum(), wanted), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("n", [5, 40])
def test_the_first_rows_can_be_asked_for_alone(n: int, rng: torch.Generator):
    torch.manual_seed(0)
    op = ZeroPaddedNystrom(W, H, landmarks=16)
    x = torch.randn(1, n, W, generator=rng)
    torch.testing.assert_close(op(Tokens.full(x[:, :2]), Tokens.full(x)).y, op(Tokens.full(x)).y[:, :2])


def test_zero_padded_refuses_padding(rng: torch.Generator):
    with pytest.raises(ValueError, match="has no mask; found padded tokens"):
        ZeroPaddedNystrom(W, H)(ragged(rng, 3, 5))
    with pytest.raises(ValueError, match="kernel=4; expected an odd length"):
        ZeroPaddedNystrom(W, H, kernel=4)


def test_items_are_decided_and_read_alone(rng: torch.Generator):
    torch.manual_seed(0)
    op = Nystrom(W, H, landmarks=8, dense_up_to=16)
    held = ragged(rng, 40, 9, 0, 25)
    together = op(held).y
    for i, n in enumerate((40, 9, 0, 25)):
        if n:
            alone = op(Tokens.full(held.x[i : i + 1, :n])).y
            torch.testing.assert_close(together[i : i + 1, :n], alone, rtol=1e-4, atol=1e-5)


def test_a_short_item_is_exact_and_a_long_one_close(rng: torch.Generator):
    torch.manual_seed(0)
    op, dense = Nystrom(W, H, landmarks=16, dense_up_to=32), Dense(W, H)
    dense.load_state_dict(op.state_dict())
    centres = torch.randn(1, 8, W, generator=rng).repeat_interleave(16, 1)
    held = Tokens.full(centres + 0.05 * torch.randn(1, 128, W, generator=rng))
    torch.testing.assert_close(op(Tokens.full(held.x[:, :32])).y, dense(Tokens.full(held.x[:, :32])).y)
    error = (op(held).y - dense(held).y).norm() / dense(held).y.norm()
    assert 0 < error < 0.05


def test_runs_follow_the_position_and_not_the_file(rng: torch.Generator):
    torch.manual_seed(0)
    op = Nystrom(W, H, landmarks=8, dense_up_to=16)
    x, order = torch.randn(1, 50, W, generator=rng), torch.randperm(50, generator=rng)
    position = torch.arange(50)[None]
    base = op(Tokens.full(x, Place(position=position))).y
    shuffled = op(Tokens.full(x[:, order], Place(position=position[:, order]))).y
    torch.testing.assert_close(shuffled, base[:, order], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(op(Tokens.full(x[:, order])).y, base[:, order], atol=1e-3)


def test_landmarks_need_room():
    with pytest.raises(ValueError, match="dense_up_to=64 is below landmarks=128; raise it"):
        Nystrom(W, H, dense_up_to=64)


@pytest.mark.parametrize(("n", "s"), [(2, 50), (50, 2), (20, 20)])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_moved_projections_change_nothing(n: int, s: int, heads: int, bias: bool, rng: torch.Generator):
    torch.manual_seed(0)
    op = CoAttention(W, heads, bias=bias).double()
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.add_(0.1)
    dense = Dense(W, heads, bias=bias).double()
    dense.load_state_dict(op.state_dict())
    query = Tokens.full(torch.randn(3, n, W, dtype=torch.float64, generator=rng))
    source = ragged(rng, s, 1, 0)
    source = source.with_x(source.x.double().masked_fill(~source.keep[..., None], float("nan")))
    found = []
    for reader in (op, dense):
        y = reader(query, source).y
        found.append([y, *torch.autograd.grad(y.sin().sum(), list(reader.parameters()))])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
