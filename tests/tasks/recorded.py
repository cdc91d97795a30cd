"""An optimiser that writes down the gradients it is given and the mean over ranks of the loss that gave them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tasks.experiment.ranks import ranks


class RecordedSGD(torch.optim.SGD):
    """SGD with momentum; rank 0 keeps every step's loss and gradients in a file.

    Args:
        params: what to train
        record: the file
        lr: learning rate
    """

    def __init__(self, params: Any, record: str, lr: float = 1e-3):
        super().__init__(params, lr=lr, momentum=0.9)
        self.record, self.steps = Path(record), []

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        trained = [p for group in self.param_groups for p in group["params"]]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trained]
        everyone = loss.detach().clone()
        if ranks() > 1:
            dist.all_reduce(everyone)
        self.steps.append((float(everyone) / ranks(), gradients))
        if os.environ.get("LOCAL_RANK", "0") == "0":
            torch.save(self.steps, self.record)
        return loss
