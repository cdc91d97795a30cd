"""Chorales as symbols, the table that backs off, and networks that never see the symbol they predict."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data.errors import DataError
from data.music.chorales import Chorales
from tasks.experiment.folder import RunError
from tasks.experiment.trainer import TrainerOptions
from tasks.melody.chorale_repeats import continued
from tasks.melody.chorale_table import ChoraleTable
from tasks.melody.chorale_tokens import (
    SILENCE,
    SYMBOLS,
    batch_of,
    chorale_of,
    in_batches,
    pieces_of,
    shifted,
    symbols_of,
)
from tasks.melody.fit import FitOptions
from tasks.melody.models.chorale_network import ChoraleNetwork, RasterNetwork, StepNetwork
from tasks.melody.models.chorale_transformer import ChoraleTransformer, nats_of
from tasks.melody.models.decoder import DecoderOptions

SMALL = DecoderOptions(width=16, layers=2, heads=2, feed_forward=32, reach=9, dropout=0.0)
RELATED = DecoderOptions(width=16, layers=1, heads=2, feed_forward=32, reach=9, relations={"time": 5, "grid": 5})
NETWORKS = {
    "raster": lambda: RasterNetwork(SMALL),
    "raster, pitch and time": lambda: RasterNetwork(RELATED),
    "steps": lambda: StepNetwork(SMALL, 1, 8),
    "eighths": lambda: StepNetwork(SMALL, 2, 8),
    "eighths without metre": lambda: StepNetwork(SMALL, 2, 8, metre=False),
    "quarters, pitch and time": lambda: StepNetwork(RELATED, 4, 8),
}
networks = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


def chorale(rng: torch.Generator, n: int) -> np.ndarray:
    voices = torch.randint(48, 70, (n, 4), generator=rng).numpy().astype(np.int8)
    voices[0, 1] = -1
    return voices


def made(rng: torch.Generator) -> dict[str, list[np.ndarray]]:
    return {
        part: [chorale(rng, 9 + at) for at in range(count)] for part, count in (("train", 6), ("valid", 3), ("test", 2))
    }


def test_symbols_go_there_and_back(rng: torch.Generator):
    voices = chorale(rng, 7)
    piece = symbols_of(voices)
    assert piece[0, 1] == SILENCE
    assert piece.max() < SYMBOLS
    assert piece.min() >= 0
    np.testing.assert_array_equal(chorale_of(piece), voices)


def test_what_has_no_symbol_is_named(rng: torch.Generator):
    voices = chorale(rng, 7)
    voices[3, 0] = 90
    with pytest.raises(DataError, match=r"pitches \d+ to 90; the symbols are pitches 36 to 81 and silence: transpose"):
        symbols_of(voices)
    with pytest.raises(DataError, match="no sounding 16th"):
        symbols_of(voices[:0])
    with pytest.raises(DataError, match=r"this music has none; take music: \{class_path: Chorales\}"):
        pieces_of(["a song"], "train")
    with pytest.raises(DataError, match="none in the part valid"):
        pieces_of({"train": [voices]}, "valid")


def test_transposed_pieces_keep_their_intervals_and_stay_within_the_symbols(rng: torch.Generator):
    low, high = (symbols_of(np.full((5, 4), pitch, np.int8)) for pitch in (36, 81))
    batch = batch_of([symbols_of(chorale(rng, 12)), low, high, symbols_of(chorale(rng, 5))])
    moves = set()
    for _ in range(60):
        moved = shifted(batch, 3)
        change = moved.symbols - batch.symbols
        still = (batch.symbols == SILENCE) | ~batch.keep[..., None]
        assert (change[still] == 0).all()
        moved_by = [set(own[~quiet].tolist()) for own, quiet in zip(change, still, strict=True)]
        assert all(len(by) == 1 for by in moved_by)
        moves |= moved_by[0]
        assert moved_by[1] <= {0, 1, 2, 3}
        assert moved_by[2] <= {0, -1, -2, -3}
        assert moved.symbols[~still].max() < SILENCE
    assert moves == set(range(-3, 4))


def test_pieces_in_batches_are_all_there_once(rng: torch.Generator):
    pieces = [symbols_of(chorale(rng, n)) for n in (5, 9, 3, 7, 7)]
    found = {
        row: batch.symbols[at][batch.keep[at]] for rows, batch in in_batches(pieces, 2) for at, row in enumerate(rows)
    }
    assert sorted(found) == list(range(5))
    assert all(torch.equal(found[row], piece) for row, piece in enumerate(pieces))


def test_a_place_continues_a_repeat_when_its_past_stood_before(rng: torch.Generator):
    theme, bridge = torch.randint(0, 46, (12, 4), generator=rng), torch.randint(0, 46, (5, 4), generator=rng)
    piece = torch.cat([theme, bridge, theme, bridge[:1]])
    found = continued(piece, 4)
    assert found.tolist() == [False] * 21 + [True] * 9
    assert not continued(piece, 20).any()
    held = theme[:1].expand(9, 4)
    assert continued(held, 3).tolist() == [False] * 4 + [True] * 5


@networks
def test_a_symbol_is_predicted_from_those_before_it_alone(network, rng: torch.Generator):
    """In the order S A T B of every 16th, bit for bit."""
    model: ChoraleNetwork = network().eval()
    batch = batch_of([symbols_of(chorale(rng, 11))])
    before = model(batch.symbols, batch.keep)
    assert before.shape == (1, 11, 4, SYMBOLS)
    for at, voice in ((0, 0), (4, 2), (5, 3), (10, 1)):
        other = batch.symbols.clone()
        other[0, at, voice] = (other[0, at, voice] + 1) % SILENCE
        after = model(other, batch.keep)
        place = 4 * at + voice
        same = (before == after).flatten(1, 2).all(dim=-1)[0]
        assert same[: place + 1].all()
        assert place == 43 or not same[place + 1 :].all()


@networks
def test_padding_changes_no_figure(network, rng: torch.Generator):
    model: ChoraleNetwork = network().double().eval()
    pieces = [symbols_of(chorale(rng, n)) for n in (11, 6, 8)]
    together = nats_of(model, pieces)
    for piece, nats in zip(pieces, together, strict=True):
        torch.testing.assert_close(nats_of(model, [piece])[0], nats)


def test_shares_of_the_table_sum_to_one(rng: torch.Generator, tmp_path: Path):
    table = ChoraleTable()
    music = made(rng)
    table.fit(music, tmp_path, 0)
    piece = pieces_of(music, "test")[0].tolist()
    for _, contexts in list(table._read(piece))[::7]:
        assert math.isclose(sum(table._share(symbol, contexts) for symbol in range(SYMBOLS)), 1, rel_tol=1e-9)


def test_a_table_is_what_was_counted(tmp_path: Path):
    """One chord held for ever: the second 16th is nearly certain, and a symbol never seen costs log 47 and more."""
    held = np.tile(np.array([[60, 55, 52, 48]], np.int8), (40, 1))
    table = ChoraleTable()
    table.fit({"train": [held]}, tmp_path, 0)
    usual, strange = (table.nats(symbols_of(x)) / x.size for x in (held, held + 5))
    assert usual < 0.3
    assert strange > math.log(SYMBOLS)
    again = ChoraleTable()
    again.load(tmp_path)
    assert again.nats(symbols_of(held)) == table.nats(symbols_of(held))
    with pytest.raises(RunError, match=r"no chorales\.json; this unit is not finished"):
        again.load(tmp_path / "elsewhere")


def test_the_table_on_the_real_chorales(shared_data: Path, tmp_path: Path):
    music = Chorales(str(shared_data / "music" / "jsb16_separated.json.xz")).load()
    table = ChoraleTable()
    table.fit(music, tmp_path, 0)
    for split, published, tokens in (("valid", 0.578, 73_632), ("test", 0.598, 75_600)):
        rows = table.measure(music, split)
        assert sum(row.n for row in rows) == tokens == 4 * sum(row.sixteenths for row in rows)
        assert abs(sum(row.nats for row in rows) / tokens - published) < 1e-3


def transformer(epochs: int) -> ChoraleTransformer:
    return ChoraleTransformer(
        functools.partial(StepNetwork, SMALL, 2, 16),
        fit=FitOptions(rate=1e-2, warmup=2, batch=2, average=0.9),
        trainer=TrainerOptions(max_epochs=epochs, accelerator="cpu", gradient_clip_val=1.0),
    )


def test_a_network_learns_and_is_found_again(rng: torch.Generator, tmp_path: Path):
    music, model = made(rng), transformer(4)
    facts = model.fit(music, tmp_path, 1)
    valid = model.measure(music, "valid")
    assert [row.case for row in valid] == ["valid-0", "valid-1", "valid-2"]
    assert all(row.n == 4 * row.sixteenths and row.part == "token" for row in valid)
    assert sum(row.nats for row in valid) / sum(row.n for row in valid) < math.log(SYMBOLS)
    epochs = (tmp_path / "epochs.csv").read_text().splitlines()
    assert epochs[0] == "epoch,train_loss,valid"
    assert len(epochs) == 5
    assert 0 <= facts["best_epoch"] < 4
    other = transformer(4)
    other.load(tmp_path)
    assert other.measure(music, "test") == model.measure(music, "test")


def test_the_best_epoch_on_valid_is_what_is_kept(rng: torch.Generator, tmp_path: Path):
    music, model = made(rng), transformer(5)
    best = model.fit(music, tmp_path, 1)["best_epoch"]
    valid = [float(line.split(",")[2]) for line in (tmp_path / "epochs.csv").read_text().splitlines()[1:]]
    rows = model.measure(music, "valid")
    assert valid[best] == min(valid)
    assert math.isclose(sum(row.nats for row in rows) / sum(row.n for row in rows), min(valid), rel_tol=1e-5)


def test_weights_of_another_size_are_refused(rng: torch.Generator, tmp_path: Path):
    transformer(1).fit(made(rng), tmp_path, 1)
    other = ChoraleTransformer(functools.partial(StepNetwork, SMALL, 1, 16))
    with pytest.raises(RunError, match="weights do not fit this version"):
        other.load(tmp_path)
    with pytest.raises(RunError, match=r"no weights\.pt"):
        other.load(tmp_path / "elsewhere")


@pytest.mark.parametrize("options", [{"patch": 0}, {"hidden": 0}])
def test_wrong_sizes_are_named(options: dict):
    with pytest.raises(ValueError, match="expected at least 1"):
        StepNetwork(SMALL, **options)


def test_a_relation_without_coordinates_is_named():
    network = StepNetwork(DecoderOptions(width=16, layers=1, heads=2, feed_forward=16, relations={"segment": 3}))
    with pytest.raises(ValueError, match=r"relations \['segment'\]; expected some of grid, time"):
        network(torch.zeros(1, 4, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.bool))


@networks
@pytest.mark.parametrize("steps", [1, 7, 12])
def test_likeliest_symbols_with_a_cache_are_those_of_the_whole_forward(
    network: Callable[[], ChoraleNetwork], steps: int
):
    model = network().eval()
    symbols = model.sample(steps, lambda logits: logits.argmax(dim=1), pieces=2)
    assert symbols.shape == (2, steps, 4)
    with torch.no_grad():
        logits = model(symbols, torch.ones(2, steps, dtype=torch.bool))
    torch.testing.assert_close(logits.gather(-1, symbols[..., None])[..., 0], logits.amax(dim=-1))
