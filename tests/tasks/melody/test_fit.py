"""The one fit of networks of music: an average is an average, the best epoch is kept, a resumed fit is the same fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

import tasks.melody.fit
from tasks.experiment.order import EpochOrder
from tasks.experiment.trainer import TrainerOptions
from tasks.melody.fit import AverageAndKeepBest, FitOptions, Fitted, fit_network

FAST = FitOptions(rate=0.1, warmup=2, average=0.8)


def loader() -> DataLoader[Any]:
    dataset: Any = torch.linspace(-1, 1, 24)
    return DataLoader(dataset, 6, sampler=EpochOrder(24, 1))


def loss(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return (network(x[:, None])[:, 0] - 3 * x - 1).square().mean()


def fitted(folder: Path, epochs: int, options: FitOptions = FAST, score: Any = None) -> tuple[nn.Module, Fitted]:
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.1), nn.Linear(4, 1))
    measure = score or (lambda trained: float(loss(trained, torch.linspace(-1, 1, 9))))
    trainer = TrainerOptions(max_epochs=epochs, accelerator="cpu")
    return network, fit_network(network, loss, measure, loader(), folder, 1, options, trainer)


def test_it_learns_and_says_what_it_did(tmp_path: Path):
    network, found = fitted(tmp_path, 8)
    assert list(found.epochs.columns) == ["epoch", "train_loss", "valid"]
    assert found.epochs["epoch"].tolist() == list(range(8))
    assert found.epochs["valid"].min() < 0.2 * found.epochs["valid"].iloc[0]
    assert found.epochs["valid"].idxmin() == found.best_epoch
    assert not network.training
    assert not list(tmp_path.glob("*.ckpt"))


def test_the_kept_weights_are_those_of_the_best_epoch(tmp_path: Path):
    figures = iter([3.0, 1.0, 2.0, 1.0])
    seen = []

    def score(trained: nn.Module) -> float:
        seen.append({name: x.clone() for name, x in trained.state_dict().items()})
        return next(figures)

    network, found = fitted(tmp_path, 4, score=score)
    assert found.best_epoch == 1
    assert all(torch.equal(x, seen[1][name]) for name, x in network.state_dict().items())


@pytest.mark.parametrize("share", [0.0, 0.8])
def test_the_average_moves_by_its_share_and_faster_while_young(share: float):
    network = nn.Linear(1, 1, bias=False)
    kept = AverageAndKeepBest(network, lambda _: 0.0, FitOptions(average=share))
    expected = float(network.weight.detach())
    for step in range(1, 60):
        nn.init.constant_(network.weight, float(step % 7))
        kept.on_train_batch_end()
        old = min(share, step / (step + 9)) if share else 0.0
        expected = old * expected + (1 - old) * (step % 7)
        assert abs(float(kept.averaged.weight) - expected) < 1e-5


def test_patience_ends_a_fit(tmp_path: Path):
    rising = iter(range(100))
    _, found = fitted(tmp_path, 20, FitOptions(warmup=2, patience=3), lambda _: float(next(rising)))
    assert len(found.epochs) == 4
    assert found.best_epoch == 0


def test_a_fit_that_was_killed_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole, said = fitted(tmp_path / "whole", 6)

    class Dies(Callback):
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            if trainer.current_epoch == 3:
                raise KeyboardInterrupt

    real = tasks.melody.fit.fit
    with monkeypatch.context() as patched:
        patched.setattr(tasks.melody.fit, "fit", lambda *a: real(*a[:5], (*a[5], Dies())))
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            fitted(tmp_path / "killed", 6)
    resumed, found = fitted(tmp_path / "killed", 6)
    assert found.epochs.equals(said.epochs)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, r"fit: rate=0\.0, decay=0\.05; expected a rate above 0"),
        ({"average": 1.0}, r"fit\.average: expected at least 0 and below 1, found 1\.0"),
        ({"batch": 0}, r"fit\.batch: expected at least 1, found 0"),
        ({"patience": 0}, r"fit\.patience: expected at least 1, found 0"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        FitOptions(**options)
