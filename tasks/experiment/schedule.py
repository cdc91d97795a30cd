"""What trained networks share: which parameters decay, and how the learning rate rises and falls."""

from __future__ import annotations

from typing import Any

import torch


def without_decay(module: torch.nn.Module) -> list[dict[str, Any]]:
    """Parameters to train in two groups: matrices, and everything of one dimension or none without weight decay."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1]},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def risen_and_fallen(step: int, warmup: int, steps: int) -> float:
    """Factor on the learning rate: up a line, then down a half cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, steps - warmup))
    return float(0.5 * (1 + torch.cos(torch.tensor(torch.pi * share))))
