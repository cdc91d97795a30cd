"""Fitting two towers: it learns, chooses on validation alone, and resumes to the same weights."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.errors import DataError
from data.pairs.items import Side
from fusion.tokens import Tokens
from tasks.experiment.schedule import risen_and_fallen
from tasks.experiment.trainer import TrainerOptions
from tasks.retrieval.feed import Feed
from tasks.retrieval.fit_unit import FitOptions, Fitted, fit_towers, training_pairs
from tasks.retrieval.objectives import GlobalContrast, HybridContrast, Objective, TokenContrast
from tasks.retrieval.task import KeepBest
from tasks.retrieval.two_towers import Standardize, TwoTowers
from tests.tasks.retrieval.filip_cases import Vectors, toy_pairs

PAIRS = toy_pairs()


def fitted(
    folder: Path,
    objective: Objective | None = None,
    epochs: int = 4,
    frozen: bool = True,
    options: FitOptions = FitOptions(batch_size=30, warmup=3),  # noqa: B008
) -> Fitted:
    torch.manual_seed(0)
    towers = TwoTowers(Vectors(6, frozen), Vectors(8, frozen), width=8, hidden=16, heads=2, dropout=0.1)
    optimizer = functools.partial(torch.optim.AdamW, lr=5e-3)
    trainer = TrainerOptions(max_epochs=epochs, accelerator="cpu")
    return fit_towers(
        towers,
        objective or GlobalContrast(),
        PAIRS,
        optimizer,
        folder / "unit",
        folder / "features",
        1,
        options,
        trainer,
    )


@pytest.mark.parametrize("objective", [GlobalContrast, TokenContrast, HybridContrast])
def test_every_objective_learns_to_match(objective: Callable[[], Objective], tmp_path: Path):
    found = fitted(tmp_path, objective(), epochs=6)
    scores = found.epochs["validation_mrr"]
    assert scores.max() > scores.iloc[0]
    assert scores.max() > 0.25
    assert not found.towers.training
    assert not (tmp_path / "unit" / "last.ckpt").exists()


def test_the_kept_weights_are_those_of_the_best_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    states, scores = [], iter([0.2, 0.5, 0.4, 0.5])

    def scored(task, galleries):  # type: ignore[no-untyped-def]
        assert {gallery.split for gallery in galleries} == {"val"}
        states.append(task.trained_state())
        return next(scores)

    monkeypatch.setattr("tasks.retrieval.task.validation_score", scored)
    found = fitted(tmp_path)
    assert found.best_epoch == 1
    for name, value in found.towers.state_dict().items():
        torch.testing.assert_close(value, states[1][f"towers.{name}"], rtol=0, atol=0)


def test_no_test_item_is_read(tmp_path: Path):
    seen: set[int] = set()
    side = PAIRS.left

    def noted(rows):  # type: ignore[no-untyped-def]
        seen.update(rows)
        return side.load(rows)

    pairs = dataclasses.replace(PAIRS, left=dataclasses.replace(side, loader=noted))
    towers = TwoTowers(Vectors(6, frozen=False), Vectors(8), width=8, hidden=16, heads=2)
    fit_towers(
        towers,
        GlobalContrast(),
        pairs,
        functools.partial(torch.optim.AdamW, lr=1e-3),
        tmp_path / "unit",
        tmp_path / "features",
        1,
        FitOptions(batch_size=30, warmup=1),
        TrainerOptions(max_epochs=1, accelerator="cpu"),
    )
    assert seen == set(pairs.rows("train")[0]) | set(pairs.rows("val")[0])


def test_features_are_read_in_units_of_their_spread_over_training_items(tmp_path: Path):
    test = set(PAIRS.rows("test")[0])

    def far(rows: Sequence[int]) -> np.ndarray:
        given = np.array(PAIRS.left.load(rows))
        given[[at for at, row in enumerate(rows) if row in test]] += 1e3
        return given

    raw = torch.from_numpy(np.asarray(PAIRS.left.load(PAIRS.rows("train")[0]))).reshape(-1, 6)
    scores = []
    for name, side in (("as is", PAIRS.left), ("far tests", dataclasses.replace(PAIRS.left, loader=far))):
        torch.manual_seed(0)
        towers = TwoTowers(Vectors(6), Vectors(8), width=8, hidden=16, heads=2, standardize=["left"])
        found = fit_towers(
            towers,
            GlobalContrast(),
            dataclasses.replace(PAIRS, left=side),
            functools.partial(torch.optim.AdamW, lr=1e-3),
            tmp_path / name,
            tmp_path / f"{name} features",
            1,
            FitOptions(batch_size=30, warmup=1),
            TrainerOptions(max_epochs=1, accelerator="cpu"),
        )
        read = found.towers.left_projection.standardize
        assert read is not None
        torch.testing.assert_close(read.mean, raw.mean(dim=0), rtol=1e-3, atol=1e-3)
        spread = raw.std(dim=0, correction=0)
        torch.testing.assert_close(1 / read.scale, spread + spread.mean() / 10, rtol=1e-3, atol=1e-3)
        scores.append(found.epochs["validation_mrr"].tolist())
    assert scores[0] == scores[1], "test items teach nothing"


def test_what_is_learnt_of_features_counts_real_tokens_and_keeps_constants():
    x = torch.randn(5, 3, 4, dtype=torch.float64).float() * torch.tensor([1.0, 2.0, 4.0, 0.0])
    keep = torch.tensor([[True, True, False]]).expand(5, -1)
    part = Standardize(4)
    padded = Tokens(x.masked_fill(~keep[..., None], float("nan")), keep)
    part.learn([Tokens(padded.x[:2], keep[:2]), Tokens(padded.x[2:], keep[2:])])
    read = part(x[keep][None])[0]
    torch.testing.assert_close(read.mean(dim=0), torch.zeros(4), rtol=0, atol=1e-5)
    assert (read.std(dim=0) < 1.2).all()
    same = Standardize(4)
    same.learn([Tokens.full(torch.ones(2, 3, 4))])
    torch.testing.assert_close(same(x), x, rtol=0, atol=0)


def test_features_that_move_cannot_be_read_in_units_of_their_spread():
    with pytest.raises(ValueError, match=r"towers.standardize: left, but the features of Vectors move, because"):
        TwoTowers(Vectors(6, frozen=False), Vectors(8), standardize=["left"])


def test_a_residual_side_gives_the_space_its_width():
    expected = (
        r"towers.residual: right, but tokens of Vectors are 8 wide and towers.width=4; set towers.width=8 or leave"
    )
    with pytest.raises(ValueError, match=expected):
        TwoTowers(Vectors(6), Vectors(8), width=4, residual=["right"])


def test_an_interrupted_fit_ends_where_an_uninterrupted_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = fitted(tmp_path / "a")
    ended = KeepBest.on_train_epoch_end

    def stopped(self, trainer, module):  # type: ignore[no-untyped-def]
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt
        ended(self, trainer, module)

    with monkeypatch.context() as patch:
        patch.setattr(KeepBest, "on_train_epoch_end", stopped)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            fitted(tmp_path / "b")
    resumed = fitted(tmp_path / "b")
    assert resumed.epochs.equals(whole.epochs)
    for name, value in whole.towers.state_dict().items():
        torch.testing.assert_close(resumed.towers.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("separate", [False, True])
def test_chunks_of_a_batch_train_like_the_batch(separate: bool, tmp_path: Path):
    plain = FitOptions(batch_size=30, warmup=3)
    ends = []
    for name, chunk in (("whole", None), ("chunks", 8)):
        torch.manual_seed(0)
        towers = TwoTowers(Vectors(6), Vectors(8), 8, 16, heads=2, dropout=0.0, separate_pooled=separate)
        found = fit_towers(
            towers,
            HybridContrast(),
            PAIRS,
            functools.partial(torch.optim.SGD, lr=0.1),
            tmp_path / name,
            tmp_path / "features",
            1,
            dataclasses.replace(plain, chunk=chunk),
            TrainerOptions(max_epochs=2, accelerator="cpu"),
        )
        ends.append(found.epochs)
    torch.testing.assert_close(
        torch.from_numpy(ends[0]["train_loss"].to_numpy()), torch.from_numpy(ends[1]["train_loss"].to_numpy()),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip


def test_patience_stops_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tasks.retrieval.task.validation_score", lambda task, galleries: 0.5)
    found = fitted(tmp_path, epochs=9, options=FitOptions(batch_size=30, warmup=3, patience=2))
    assert found.epochs["epoch"].tolist() == [0.0, 1.0, 2.0]


def test_a_collection_without_validation_or_training_items_is_refused(tmp_path: Path):
    galleries = [gallery for gallery in PAIRS.galleries if gallery.split != "val"]
    towers = TwoTowers(Vectors(6), Vectors(8), width=8, hidden=16, heads=2)
    with pytest.raises(DataError, match="no validation items"):
        fit_towers(
            towers,
            GlobalContrast(),
            dataclasses.replace(PAIRS, galleries=galleries),
            functools.partial(torch.optim.AdamW, lr=1e-3),
            tmp_path,
            tmp_path,
            1,
            FitOptions(),
            TrainerOptions(),
        )
    table = PAIRS.table.assign(split="val")
    with pytest.raises(DataError, match="0 training pairs; at least 2"):
        training_pairs(dataclasses.replace(PAIRS, table=table))


class Emptied(Vectors):
    """Keeps no token of an item that begins with 7."""

    def forward(self, raw: Any) -> Tokens:
        tokens = super().forward(raw)
        return Tokens(tokens.x, tokens.keep & (torch.as_tensor(np.asarray(raw)).flatten(1)[:, :1] != 7))


@pytest.mark.parametrize("frozen", [True, False])
def test_an_item_without_any_kept_token_is_named(frozen: bool, tmp_path: Path):
    raw = np.ones((3, 6), np.float32)
    raw[1, 0] = 7
    feed = Feed(Emptied(6, frozen), Side("vectors", ["a", "b", "c"], lambda rows: raw[list(rows)]), tmp_path)
    assert feed([2, 0]).present.all()
    with pytest.raises(DataError, match=r"^vectors b: Emptied keeps no token of it; leave it out of the collection$"):
        feed([0, 1])


def test_the_learning_rate_rises_then_falls_to_zero():
    found = [risen_and_fallen(step, 4, 20) for step in range(21)]
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert all(a >= b for a, b in itertools.pairwise(found[3:]))
    assert found[-1] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 1}, "fit.batch_size: expected at least 2"),
        ({"chunk": 0}, "fit.chunk: expected at least 1 or null, found 0"),
        ({"warmup": -1}, "fit.warmup: expected at least 0"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        FitOptions(**options)
