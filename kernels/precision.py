"""Operator bodies compute in the types they are given, whatever autocast says around the call."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def as_given(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Switch autocast off inside: torch leaves it on in custom operators, and a float32 sum would run in 16 bits."""

    @wraps(kernel)
    def run(first: Tensor, *arguments: Any) -> Any:
        with torch.autocast(first.device.type, enabled=False):
            return kernel(first, *arguments)

    return run
