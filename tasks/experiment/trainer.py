"""The config's `trainer`: Lightning's own names, without importing Lightning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

SEVERAL_DEVICES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")


@dataclass(frozen=True)
class TrainerOptions:
    """How long and on what to train.

    Attributes:
        max_epochs: passes over the training cases
        accelerator: where to compute
        devices: how many devices of one machine a unit uses; a batch is shared out among them, so its size and what is
            learnt from it stay the same
        strategy: Lightning's name of how devices work together: `auto`, `ddp` or one of its variants
        precision: of numbers; `mixed` keeps the weights in float32
        accumulate_grad_batches: batches per optimiser step
        gradient_clip_val: largest gradient norm, null = no clipping
        deterministic: refuse operations that are not repeatable
        threads: CPU threads of one unit; fixed, so that `--jobs` does not change any number
        progress: a progress bar when the output is a terminal
        loggers: further Lightning loggers, each `{class_path, init_args}`; a CSV log is always written
    """

    max_epochs: int = 20
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    strategy: str = "auto"
    precision: Literal["32-true", "64-true", "16-mixed", "bf16-mixed", "bf16-true"] = "32-true"
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    deterministic: bool = True
    threads: int = 1
    progress: bool = True
    loggers: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("max_epochs", "devices", "accumulate_grad_batches", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"trainer.{name}: expected at least 1, found {getattr(self, name)}")
        if self.devices > 1 and self.strategy not in SEVERAL_DEVICES:
            raise ValueError(
                f"trainer.strategy: for {self.devices} devices expected one of {', '.join(SEVERAL_DEVICES)}, "
                f"found '{self.strategy}'"
            )
