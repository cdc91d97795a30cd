"""Music Transformer's laws: distances as defined, no look ahead, blocks, no relative term, a cache that is exact."""

from __future__ import annotations

import pytest
import torch

from fusion.operators import Relative
from fusion.tokens import Place, Tokens
from tasks.melody.models.decoder import Decoder, DecoderOptions, sinusoids
from tasks.melody.models.music_transformer import MusicTransformer
from tasks.reproduce.length_generalisation import BACK, SHARE, SYMBOLS, floor, nats, sequences, trained

SMALL = {"width": 16, "layers": 2, "heads": 2, "feed_forward": 32, "dropout": 0.0}
KINDS = {
    "relative": DecoderOptions(**SMALL, reach=9),
    "local": DecoderOptions(**SMALL, reach=9, block=5),
    "no relative term": DecoderOptions(**SMALL, reach=None),
    "no relative term, local": DecoderOptions(**SMALL, reach=None, block=5),
    "sinusoids added": DecoderOptions(**SMALL, reach=None, sinusoids="added"),
    "sinusoids beside": DecoderOptions(**SMALL, reach=9, sinusoids="beside"),
    "time": DecoderOptions(**SMALL, reach=9, relations={"time": 4}),
    "pitch and time": DecoderOptions(**SMALL, reach=None, relations={"time": 4, "grid": 6}),
}
kinds = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())


def symbols_and_place(rng: torch.Generator, n: int) -> tuple[torch.Tensor, Place]:
    symbols = torch.randint(0, 11, (2, n), generator=rng)
    grid = torch.randint(0, 9, (2, n, 2), generator=rng).float()
    return symbols, Place(time=torch.arange(n).div(4, rounding_mode="floor").expand(2, n).float(), grid=grid)


def naive(op: Relative, x: torch.Tensor) -> torch.Tensor:
    """The definition: every pair of places fetches its own vector."""
    n = x.shape[1]
    q, k, v = (
        part.unflatten(-1, (op.heads, -1)).transpose(1, 2) for part in (op.to_query(x), *op.to_source(x).chunk(2, -1))
    )
    away = torch.arange(n)[:, None] - torch.arange(n)
    vectors = op.distance[:, away.clamp(0, op.reach - 1)]
    scores = (torch.einsum("bhid,bhjd->bhij", q, k) + torch.einsum("bhid,hijd->bhij", q, vectors)) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(away < 0, -torch.inf).softmax(-1)
    return op.out((weights @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("heads", [1, 2, 3, 4])
def test_scores_are_the_definition_at_every_length_and_so_are_gradients(heads: int, rng: torch.Generator):
    """Law 1, float64: lengths 1 to 64."""
    op = Relative(4 * heads, heads, reach=64).double()
    for n in range(1, 65):
        x = torch.randn(1, n, 4 * heads, generator=rng, dtype=torch.float64, requires_grad=True)
        ours, theirs = op(Tokens.full(x)).y, naive(op, x)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
        pull = torch.randn(ours.shape, generator=rng, dtype=torch.float64)
        leaves = [x, op.distance, op.to_query.weight, op.to_source.weight]
        for a, b in zip(
            torch.autograd.grad(ours, leaves, pull), torch.autograd.grad(theirs, leaves, pull), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@kinds
def test_a_changed_symbol_changes_no_logit_before_it(options: DecoderOptions, rng: torch.Generator):
    """Law 2, bit for bit."""
    model = MusicTransformer(11, options).eval()
    symbols, place = symbols_and_place(rng, 24)
    before = model(symbols, place=place)
    other = symbols.clone()
    other[:, 13] = (other[:, 13] + 1) % 11
    after = model(other, place=place)
    assert torch.equal(before[:, :13], after[:, :13])
    assert not torch.equal(before[:, 13], after[:, 13])


@pytest.mark.parametrize("block", [20, 33])
def test_a_block_as_long_as_the_sequence_is_global(block: int, rng: torch.Generator):
    """Law 3."""
    model, local = (MusicTransformer(11, DecoderOptions(**SMALL, reach=9, block=b)).double() for b in (None, block))
    local.load_state_dict(model.state_dict())
    symbols, _ = symbols_and_place(rng, 20)
    torch.testing.assert_close(local(symbols), model(symbols))


@pytest.mark.parametrize("constant", [0.0, 0.7])
def test_equal_vectors_for_all_distances_are_no_relative_term(constant: float, rng: torch.Generator):
    """Law 3: tables of zeros are a plain transformer, tables of equal rows change no weight."""
    model = MusicTransformer(11, KINDS["relative"]).double()
    plain = MusicTransformer(11, KINDS["no relative term"]).double()
    for block in model.decoder.blocks:
        torch.nn.init.constant_(block.op.distance, constant)
    plain.load_state_dict({name: x for name, x in model.state_dict().items() if "distance" not in name})
    symbols, _ = symbols_and_place(rng, 20)
    torch.testing.assert_close(model(symbols), plain(symbols))


@kinds
@pytest.mark.parametrize("pieces", [[1] * 40, [17, 1, 1, 20, 1]])
def test_decoding_with_a_cache_is_the_whole_forward(options: DecoderOptions, pieces: list[int], rng: torch.Generator):
    """Law 5, at lengths beyond the reach of the tables."""
    model = MusicTransformer(11, options, voices=4).eval()
    symbols, place = symbols_and_place(rng, 40)
    rows, memory, start = [], None, 0
    for size in pieces:
        part = slice(start, start + size)
        logits, memory = model.step(symbols[:, part], memory, place[part])
        rows.append(logits)
        start += size
    assert memory is not None
    assert memory.length == 40
    torch.testing.assert_close(torch.cat(rows, 1), model(symbols, place=place), rtol=1e-5, atol=1e-5)


def test_sampling_with_a_cache_draws_what_the_whole_forward_draws():
    model = MusicTransformer(11, KINDS["relative"]).double().eval()
    symbols = torch.zeros(2, 1, dtype=torch.long)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _ in range(30):
            share = model(symbols)[:, -1].softmax(-1)
            symbols = torch.cat([symbols, torch.multinomial(share, 1, generator=random)], 1)
    drawn = model.sample(torch.zeros(2, 1, dtype=torch.long), 30, generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn, symbols)


def test_padding_reaches_nothing(rng: torch.Generator):
    model = MusicTransformer(11, KINDS["relative"]).eval()
    symbols, _ = symbols_and_place(rng, 20)
    keep = torch.arange(20) < torch.tensor([[20], [12]])
    other = torch.where(keep, symbols, 3)
    assert torch.equal(model(symbols, keep)[keep], model(other, keep)[keep])


def test_waves_are_those_of_the_paper():
    wave = sinusoids(5, 3, 8)
    assert wave.shape == (3, 8)
    for row, at in enumerate((5, 6, 7)):
        for pair in range(4):
            angle = torch.tensor(at / 10_000 ** (2 * pair / 8))
            torch.testing.assert_close(wave[row, [pair, 4 + pair]], torch.stack([angle.sin(), angle.cos()]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 6, "heads": 4}, r"decoder: width=6, layers=5, heads=4, .*an even width that heads divide"),
        ({"layers": 0}, r"layers=0"),
    ],
)
def test_wrong_sizes_are_named(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Decoder(DecoderOptions(**options))


def test_the_copying_task_is_what_it_says(rng: torch.Generator):
    drawn = sequences(400, 60, rng)
    same = (drawn[:, BACK:] == drawn[:, :-BACK]).float().mean()
    assert abs(float(same) - (SHARE + (1 - SHARE) / SYMBOLS)) < 0.01
    assert abs(floor() - 0.565) < 5e-4


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_relative_attention_holds_beyond_the_trained_length(seed: int):
    """Law 6: within .05 of its own figure at four times the length; sinusoids lose more than 1.0."""
    relative, waves = ([nats(trained(kind, seed), n, seed) for n in (96, 384)] for kind in (True, False))
    assert relative[1] - relative[0] < 0.05
    assert relative[0] < 0.65
    assert waves[1] - waves[0] > 1.0
