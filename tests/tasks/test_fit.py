"""Fitting one module: repeatable steps, checkpoints that survive a full disk, and none that could run code."""

from __future__ import annotations

import errno
import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tasks.experiment import fit as fit_module
from tasks.experiment.fit import CHECKPOINT, PREVIOUS, fit, loggers, newest_checkpoint
from tasks.experiment.folder import RunError
from tasks.experiment.order import EpochOrder
from tasks.experiment.signatures import ConfigError
from tasks.experiment.trainer import TrainerOptions


class Wobbly(L.LightningModule):
    """One linear layer behind a heavy dropout, so that every random number matters."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.dropout = torch.nn.Linear(4, 1), torch.nn.Dropout(0.5)

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        loss = self.layer(self.dropout(batch[0])).square().mean()
        self.log("train_loss", loss, on_epoch=True, on_step=False)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.1)


def fitted(folder: Path, epochs: int, seed: int = 1) -> Wobbly:
    torch.manual_seed(0)
    module = Wobbly()
    cases = TensorDataset(torch.randn(20, 4, generator=torch.Generator().manual_seed(5)))
    loader = DataLoader(cases, 5, sampler=EpochOrder(20, seed))
    fit(module, loader, folder, TrainerOptions(progress=False, accelerator="cpu"), seed, max_epochs=epochs)
    return module


def test_a_fit_in_two_sittings_is_bitwise_the_fit_in_one(tmp_path: Path):
    whole = fitted(tmp_path / "one", 4)
    fitted(tmp_path / "two", 2)
    torch.manual_seed(999)
    resumed = fitted(tmp_path / "two", 4)
    assert torch.equal(whole.layer.weight, resumed.layer.weight)
    assert not torch.equal(whole.layer.weight, fitted(tmp_path / "other", 4, seed=2).layer.weight)


class Unrepeatable(Wobbly):
    """Writes with an operation whose order of writes, and so its result, torch does not promise."""

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        self.seen = torch.are_deterministic_algorithms_enabled()
        torch.zeros(4).put_(torch.tensor([1, 1]), torch.tensor([2.0, 3.0]))
        return super().training_step(batch, _)


@pytest.fixture
def torch_as_it_was() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.usefixtures("torch_as_it_was")
def test_deterministic_reaches_torch_which_refuses_what_is_not_repeatable(tmp_path: Path):
    cases = DataLoader(TensorDataset(torch.ones(4, 4)), 2)
    module = Unrepeatable()
    with pytest.raises(RuntimeError, match="put_ does not have a deterministic implementation"):
        fit(module, cases, tmp_path / "on", TrainerOptions(progress=False, accelerator="cpu"), 1, max_epochs=1)
    assert module.seen, "on unless it is switched off"
    off = TrainerOptions(progress=False, accelerator="cpu", deterministic=False)
    fit(module, cases, tmp_path / "off", off, 1, max_epochs=1)
    assert not module.seen


def test_the_same_seed_is_the_same_fit(tmp_path: Path):
    one, two = (fitted(tmp_path / name, 3) for name in ("one", "two"))
    assert torch.equal(one.layer.weight, two.layer.weight)
    assert torch.equal(one.layer.bias, two.layer.bias)


class FullDisk(io.FileIO):
    """Takes what it is given until there are a few hundred bytes, as a real disk does in the middle of a checkpoint."""

    def write(self, content: Any) -> int:
        if self.tell() > 300:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content)


@pytest.mark.parametrize("at", ["the end", "a write"])
def test_a_full_disk_keeps_the_last_good_checkpoint(at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fitted(tmp_path, 2)
    before = (tmp_path / CHECKPOINT).read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        if at == "the end":
            patched.setattr(fit_module.os, "fsync", full)
        else:
            patched.setattr(fit_module, "open", FullDisk, raising=False)
        with pytest.raises(RunError, match=r"last\.ckpt: the disk is full; free some space and repeat with --resume"):
            fitted(tmp_path, 4)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))
    assert torch.equal(fitted(tmp_path, 4).layer.weight, fitted(tmp_path / "whole", 4).layer.weight)


class Payload:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path):
    (tmp_path / CHECKPOINT).write_bytes(pickle.dumps(Payload(tmp_path / "owned"), protocol=2))
    assert newest_checkpoint(tmp_path) is None
    torch.save(Payload(tmp_path / "owned"), tmp_path / CHECKPOINT)
    assert newest_checkpoint(tmp_path) is None
    assert not (tmp_path / "owned").exists()


def test_the_checkpoint_before_steps_in_for_a_damaged_one(tmp_path: Path):
    fitted(tmp_path, 2)
    assert newest_checkpoint(tmp_path) == tmp_path / CHECKPOINT
    (tmp_path / CHECKPOINT).write_bytes(b"cut")
    assert newest_checkpoint(tmp_path) == tmp_path / PREVIOUS


def test_the_bar_shows_what_was_measured_and_no_folder(monkeypatch: pytest.MonkeyPatch):
    shown = {"v_num": "og-0", "train_loss": 1.0}
    monkeypatch.setattr(fit_module.RichProgressBar, "get_metrics", lambda *_: dict(shown))
    assert fit_module.Bar().get_metrics(L.Trainer(logger=False, enable_progress_bar=False), Wobbly()) == {
        "train_loss": 1.0
    }


def test_loggers_come_from_the_config_by_class_path(tmp_path: Path):
    built = loggers([{"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path)}}])
    assert type(built[0]).__name__ == "CSVLogger"
    with pytest.raises(ConfigError, match=r"trainer\.loggers\[0\]: no class 'CSVLoger' in .*did you mean 'CSVLogger'"):
        loggers([{"class_path": "CSVLoger"}])
