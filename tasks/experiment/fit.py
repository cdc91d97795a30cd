"""Fit one Lightning module, losing at most the current epoch when interrupted.

All randomness of a step (order of cases, dropout) is drawn from the unit's seed, the epoch and the batch number, so a
fit that was killed and resumed ends with the same weights, bit for bit on CPU, as one that was not.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy

from tasks.experiment.folder import RunError
from tasks.experiment.launch import in_rank
from tasks.experiment.precision import TRUE
from tasks.experiment.ranks import TellParts, shared
from tasks.experiment.saved import Damaged, read_saved
from tasks.experiment.signatures import ConfigError, named_class
from tasks.experiment.trainer import TrainerOptions

CHECKPOINT = "last.ckpt"
PREVIOUS = "previous.ckpt"
FIT_OF = "fit_of"


def disk_full(error: BaseException | None) -> bool:
    """Whether this is a full disk, or was raised over one: torch's writer ends with a remark on file positions."""
    while error is not None and getattr(error, "errno", None) != errno.ENOSPC:
        error = error.__cause__ or error.__context__
    return error is not None


class WholeCheckpoints(TorchCheckpointIO):
    """Write a checkpoint beside the last one, then rename: a full disk or a kill leaves the last one valid."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        temporary = path.with_suffix(".tmp")
        try:
            with open(temporary, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                os.replace(path, path.with_name(PREVIOUS))
            os.replace(temporary, path)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            full = disk_full(error)
            reason = (
                "the disk is full; free some space and repeat with --resume" if full else f"cannot be written ({error})"
            )
            raise RunError(f"{path}: {reason}") from None

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return dict(read_saved(Path(path)))


class StepSeed(Callback):
    """Draw every step's randomness (dropout, noise) from the seed, the epoch, the batch number and the rank alone."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        own = (trainer.global_rank * 1_000_003 + self.seed) * 1_000_003 + trainer.current_epoch
        torch.manual_seed((own * 1_000_003 + batch_idx) % 2**63)


class SaveEpochs(Callback):
    """Leave a checkpoint after every epoch, which says what it is a fit of."""

    def __init__(self, folder: Path, of: str = ""):
        self.folder, self.of = folder, of

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        trainer.save_checkpoint(self.folder / CHECKPOINT)

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[FIT_OF] = self.of


class Bar(RichProgressBar):
    """Lightning's bar without the name of the log folder, which it shows as `v_num og-0`."""

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}


class PlainProgress(Callback):
    """One line per epoch on the log, for everything that is not a terminal."""

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        values = " ".join(f"{name}={float(value):.4f}" for name, value in sorted(trainer.callback_metrics.items()))
        logging.getLogger("fusion").info("epoch %d/%s %s", trainer.current_epoch + 1, trainer.max_epochs, values)


def newest_checkpoint(folder: Path, of: str = "") -> Path | None:
    """The last readable checkpoint: the newest, or the one before it when the newest is damaged, which is said.

    Args:
        folder: of the fit
        of: what is fitted; a checkpoint of anything else, such as other data, is passed over, which is said
    """
    damaged = False
    for name in (CHECKPOINT, PREVIOUS):
        path = folder / name
        if not path.is_file():
            continue
        try:
            whole = read_saved(path)
            if not isinstance(whole, dict) or not {"epoch", "state_dict", "loops"} <= whole.keys():
                raise Damaged("not a checkpoint of a fit")
        except Damaged as error:
            damaged = True
            logging.getLogger("fusion").warning("%s is damaged or unsafe (%s); falling back", path, error)
        else:
            if whole.get(FIT_OF, "") == of:
                return path
            logging.getLogger("fusion").warning("%s is of other data or settings; the fit starts anew", path)
            return None
    if damaged:
        logging.getLogger("fusion").warning("%s: no checkpoint can be read; the fit starts anew", folder)
    return None


def forget(folder: Path) -> None:
    """Remove the checkpoints of a fit that is finished and whose weights are kept elsewhere: three times their size."""
    for name in (CHECKPOINT, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def fit(
    module: L.LightningModule,
    loader: Any,
    folder: Path,
    options: TrainerOptions,
    seed: int,
    callbacks: tuple[Callback, ...] = (),
    max_epochs: int | None = None,
    of: str = "",
) -> None:
    """Train to the last epoch, from the newest checkpoint in `folder` when there is one.

    Args:
        module: what to train; afterwards it holds the last epoch's weights
        loader: training batches; its order must come from torch's global generator
        folder: where checkpoints and the CSV log go
        options: the config's `trainer`
        seed: of this unit
        callbacks: the task's own
        max_epochs: instead of the one in `options`
        of: fingerprint of everything that is learnt from, where a caller cannot rule out that it has changed

    Raises:
        ConfigError: several devices, and the module cannot share a batch with other processes
    """
    folder.mkdir(parents=True, exist_ok=True)
    if options.devices > 1:
        loader, told = _shared_out(module, loader, options.devices)
        callbacks = (told, *callbacks)
    torch.set_num_threads(options.threads)
    for chatty in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    sitting = len(list(folder.glob("log-*")))
    epochs = options.max_epochs if max_epochs is None else max_epochs
    progress: list[Callback] = [Bar()] if options.progress and sys.stderr.isatty() else [PlainProgress()]
    with warnings.catch_warnings():
        # Advice on worker processes and log intervals: the data sets here are in memory and small. The last one is
        # between Lightning and torch.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*log_every_n_steps.*")
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
        trainer = L.Trainer(
            max_epochs=epochs,
            accelerator=options.accelerator,
            devices=options.devices,
            strategy=_strategy(options),
            precision=None if options.precision in TRUE else options.precision,
            accumulate_grad_batches=options.accumulate_grad_batches,
            gradient_clip_val=options.gradient_clip_val,
            deterministic=options.deterministic,
            # Never SLURM's: a unit inside a job has the devices of its own machine.
            plugins=[WholeCheckpoints(), LightningEnvironment(), *_true_precision(options)],
            use_distributed_sampler=False,
            logger=[CSVLogger(folder, name="", version=f"log-{sitting}"), *loggers(options.loggers)],
            callbacks=[StepSeed(seed), *callbacks, SaveEpochs(folder, of), *progress],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=isinstance(progress[0], RichProgressBar),
            num_sanity_val_steps=0,
        )
        trainer.fit(module, loader, ckpt_path=newest_checkpoint(folder, of), weights_only=True)


def _true_precision(options: TrainerOptions) -> list[Any]:
    return [TRUE[options.precision]()] if options.precision in TRUE else []


def _strategy(options: TrainerOptions) -> Any:
    """What the config names; `ddp` also where a step leaves parameters alone: no patient of it may have slides."""
    if options.devices > 1 and options.strategy in ("auto", "ddp"):
        return DDPStrategy(find_unused_parameters=True)
    return options.strategy


def _shared_out(module: L.LightningModule, loader: Any, devices: int) -> tuple[Any, Callback]:
    """A loader of this rank's part of every batch, and the callback that tells the module who has how much."""
    if not getattr(module, "joins_ranks", False) or not in_rank():
        raise ConfigError(
            f"trainer.devices={devices}: {type(module).__name__} learns on one device; leave it at 1 and run units "
            "beside one another with --jobs"
        )
    loader = shared(loader, int(os.environ["LOCAL_RANK"]), devices)
    return loader, TellParts(loader.batch_sampler)


def loggers(specifications: list[dict[str, Any]]) -> list[Any]:
    """Build the Lightning loggers a config asks for by class path."""
    built = []
    for i, specification in enumerate(specifications):
        cls = named_class(specification.get("class_path"), ("lightning.pytorch.loggers",), f"trainer.loggers[{i}]")
        built.append(cls(**specification.get("init_args", {})))
    return built
