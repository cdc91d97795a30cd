"""A network of chorales as a model of music: trained with transposition, chosen on validation, nats per token."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tasks.experiment.folder import RunError, write_whole
from tasks.experiment.saved import Damaged, read_saved
from tasks.experiment.trainer import TrainerOptions
from tasks.melody.batches import LengthBatches
from tasks.melody.chorale_tokens import ChoraleBatch, Piece, batch_of, in_batches, pieces_of, shifted
from tasks.melody.fit import FIT, FitOptions, fit_network
from tasks.melody.model import Measurement, MelodyModel
from tasks.melody.models.chorale_network import ChoraleNetwork, StepNetwork

WEIGHTS = "weights.pt"
TRAINER = TrainerOptions(max_epochs=30, gradient_clip_val=1.0)
TOGETHER = 8
"""Pieces that are measured at once."""


class ChoraleTransformer(MelodyModel):
    """A decoder over four-voice chorales, Music Transformer's task.

    Args:
        network: built once per unit, `StepNetwork` or `RasterNetwork`
        transpose: semitones up or down at most that a training piece is moved by, drawn anew every time
        fit: optimiser and stopping
        trainer: epochs, device, precision
    """

    parts: ClassVar[tuple[str, ...]] = ("token",)

    def __init__(
        self,
        network: Callable[[], ChoraleNetwork] = StepNetwork,
        transpose: int = 3,
        fit: FitOptions = FIT,
        trainer: TrainerOptions = TRAINER,
    ):
        if transpose < 0:
            raise ValueError(f"ChoraleTransformer: transpose={transpose}; expected at least 0")
        self.build, self.transpose = network, transpose
        self.fitting, self.trainer = fit, trainer

    def fit(self, music: Any, folder: Path, seed: int) -> dict[str, Any]:
        pieces, valid = pieces_of(music, "train"), pieces_of(music, "valid")
        torch.manual_seed(seed)
        self.network = self.build()
        dataset: Any = pieces
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=LengthBatches([len(piece) for piece in pieces], self.fitting.batch, seed),  # type: ignore[arg-type]
            collate_fn=batch_of,
        )
        fitted = fit_network(
            self.network, self._loss, lambda network: _mean(nats_of(network, valid)), loader, folder, seed,
            self.fitting, self.trainer,
        )  # fmt: skip
        self.network.to("cpu")
        write_whole(folder / "epochs.csv", fitted.epochs.to_csv(index=False))
        content = io.BytesIO()
        torch.save(self.network.state_dict(), content)
        write_whole(folder / WEIGHTS, content.getvalue())
        return {"best_epoch": fitted.best_epoch, "weights": sum(p.numel() for p in self.network.parameters())}

    def load(self, folder: Path) -> None:
        if not (folder / WEIGHTS).is_file():
            raise RunError(f"{folder}: no {WEIGHTS}; this unit is not finished, train it with --resume")
        network = self.build()
        try:
            network.load_state_dict(read_saved(folder / WEIGHTS))
        except Damaged as error:
            raise RunError(f"{folder / WEIGHTS}: cannot be loaded ({error}); train the run again") from None
        except RuntimeError as error:
            said = str(error).splitlines()[-1].strip()
            raise RunError(f"{folder}: weights do not fit this version ({said}); train the run again") from None
        self.network = network.eval()

    def measure(self, music: Any, split: str) -> list[Measurement]:
        pieces = pieces_of(music, split)
        return [
            Measurement(split, f"{split}-{row}", "token", piece.numel(), len(piece), float(nats.sum()))
            for row, (piece, nats) in enumerate(zip(pieces, nats_of(self.network, pieces), strict=True))
        ]

    def _loss(self, network: nn.Module, batch: ChoraleBatch) -> Tensor:
        batch = shifted(batch, self.transpose)
        logits = network(batch.symbols, batch.keep)[batch.keep]
        return F.cross_entropy(logits.flatten(0, 1), batch.symbols[batch.keep].flatten())


@torch.no_grad()
def nats_of(network: nn.Module, pieces: Sequence[Piece]) -> list[Float[Tensor, "_ 4"]]:
    """-log p of every symbol of every piece, on the CPU."""
    device = next(network.parameters()).device
    found: list[Tensor] = [torch.empty(0)] * len(pieces)
    for rows, batch in in_batches(pieces, TOGETHER):
        batch = batch.to(device)
        nats = F.cross_entropy(network(batch.symbols, batch.keep).permute(0, 3, 1, 2), batch.symbols, reduction="none")
        for row, own, keep in zip(rows, nats.cpu(), batch.keep.cpu(), strict=True):
            found[row] = own[keep]
    return found


def _mean(nats: Sequence[Tensor]) -> float:
    return float(sum(own.double().sum() for own in nats) / sum(own.numel() for own in nats))
