"""Relative attention: limits of its tables, blocks, and the way around the kernel."""

from __future__ import annotations

import pytest
import torch

import fusion.operators.relative
from fusion.operators import Causal, Relative
from fusion.tokens import Place, Tokens

W, H = 16, 4


def same_weights(op: Relative, **options: object) -> Relative:
    """Another setting over the same parameters."""
    other = Relative(W, H, **options).double()
    other.load_state_dict(op.state_dict(), strict=False)
    return other


def melody(rng: torch.Generator, n: int) -> Tokens:
    keep = torch.ones(2, n, dtype=torch.bool)
    keep[1, : n // 4] = False
    place = Place(time=torch.rand(2, n, generator=rng).double().cumsum(1) * 3)
    return Tokens(torch.randn(2, n, W, generator=rng, dtype=torch.float64), keep, place)


@pytest.mark.parametrize("constant", [0.0, 1.3])
def test_equal_vectors_for_all_distances_change_no_weight(constant: float, rng: torch.Generator):
    op, plain, tokens = Relative(W, H, reach=6).double(), Causal(W, H).double(), melody(rng, 12)
    with torch.no_grad():
        op.distance.fill_(constant)
    plain.load_state_dict(op.state_dict(), strict=False)
    torch.testing.assert_close(op(tokens).y, plain(tokens).y)


def test_a_reach_beyond_the_sequence_clips_nothing(rng: torch.Generator):
    op, tokens = Relative(W, H, reach=12).double(), melody(rng, 12)
    longer = Relative(W, H, reach=40).double()
    longer.load_state_dict(op.state_dict() | {"distance": torch.cat([op.distance, torch.randn(H, 28, W // H)], 1)})
    torch.testing.assert_close(longer(tokens).y, op(tokens).y)


@pytest.mark.parametrize("block", [None, 7, 50, 200])
def test_rows_in_slabs_with_other_distances_match_the_kernel(block: int | None, rng: torch.Generator):
    """Zero tables for time send the same attention the other way."""
    op, tokens = Relative(W, H, reach=20, block=block).double(), melody(rng, 270)
    around = Relative(W, H, reach=20, block=block, relations={"time": 5}).double()
    around.load_state_dict(op.state_dict(), strict=False)
    with torch.no_grad():
        around.tables[0].zero_()
    torch.testing.assert_close(around(tokens).y[tokens.keep], op(tokens).y[tokens.keep])


def test_dropout_takes_the_way_around_and_vanishes_with_its_probability(rng: torch.Generator):
    op, tokens = Relative(W, H, reach=20, dropout=1e-12).double(), melody(rng, 40)
    still = op.eval()(tokens).y
    torch.testing.assert_close(op.train()(tokens).y, still)
    lively = same_weights(op, reach=20, dropout=0.5).train()
    assert not torch.allclose(lively(tokens).y, still)


@pytest.mark.parametrize(
    "options", [{"reach": 5}, {"reach": 50, "bias": True}, {"reach": None}, {"reach": 5, "block": 4, "head_width": 6}]
)
def test_one_more_token_without_padding_is_read_as_in_the_whole(options: dict[str, int | None], rng: torch.Generator):
    """The short way of a decode step, beyond the reach and across blocks."""
    op = Relative(W, H, **options).double()
    tokens = Tokens.full(torch.randn(2, 30, W, generator=rng, dtype=torch.float64))
    cache, rows = None, []
    for at in range(30):
        read, cache = op.step(Tokens.full(tokens.x[:, at : at + 1]), cache)
        rows.append(read.y)
    torch.testing.assert_close(torch.cat(rows, 1), op(tokens).y)


def test_a_padding_token_between_steps_is_read_by_none_of_them(rng: torch.Generator):
    op = Relative(W, H, reach=5).double()
    keep = torch.ones(2, 12, dtype=torch.bool)
    keep[1, 6] = False
    tokens = Tokens(torch.randn(2, 12, W, generator=rng, dtype=torch.float64), keep)
    cache, rows = None, []
    for at in range(12):
        read, cache = op.step(Tokens(tokens.x[:, at : at + 1], keep[:, at : at + 1]), cache)
        rows.append(read.y)
    assert not cache.complete
    torch.testing.assert_close(torch.cat(rows, 1)[keep], op(tokens).y[keep])


def test_shifting_all_coordinates_changes_nothing(rng: torch.Generator):
    op, tokens = Relative(W, H, reach=4, relations={"time": 6}).double(), melody(rng, 12)
    later = Tokens(tokens.x, tokens.keep, Place(time=tokens.place.time + 100))
    torch.testing.assert_close(op(later).y, op(tokens).y)


def test_no_map_is_kept_for_the_backward_pass(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fusion.operators.relative, "ROWS", 8)
    n = 64
    op, tokens = Relative(W, H, reach=4, relations={"time": 6}).double(), melody(rng, n)
    saved: list[int] = []

    def note(x: torch.Tensor) -> torch.Tensor:
        saved.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        y = op(tokens).y
    assert max(saved) < 2 * H * n * n
    y.sum().backward()
    assert op.tables[0].grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reach": 0}, r"reach=0 must be at least 1, or None for no reach at all"),
        ({"block": 0}, r"block=0 must be at least 1, or None"),
        ({"relations": {"pitch": 3}}, r"unknown relations \['pitch'\]; expected some of position, segment, time, grid"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        Relative(W, H, **options)


def test_a_missing_coordinate_is_named(rng: torch.Generator):
    tokens = Tokens.full(torch.randn(1, 3, W, generator=rng))
    with pytest.raises(ValueError, match=r"tokens have no place\.grid; give Tokens\(x, keep, Place\(grid=\.\.\.\)\)"):
        Relative(W, H, relations={"grid": 3})(tokens)
