"""Numbers of another width for batches of any shape: Lightning's own plugins cannot copy a frozen dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision, Precision
from torch import Tensor


def converted(data: Any, dtype: torch.dtype) -> Any:
    """The same data with every floating-point tensor in `dtype`; anything else as it was.

    Args:
        data: tensors in dataclasses (frozen ones too), mappings, lists and tuples, one in the other
        dtype: a floating-point type
    """
    if isinstance(data, Tensor):
        return data.to(dtype) if data.is_floating_point() else data
    if is_dataclass(data) and not isinstance(data, type):
        return replace(data, **{f.name: converted(getattr(data, f.name), dtype) for f in fields(data) if f.init})
    if isinstance(data, Mapping):
        return {key: converted(value, dtype) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(converted(value, dtype) for value in data))
    if isinstance(data, list | tuple):
        return type(data)(converted(value, dtype) for value in data)
    return data


class Double(DoublePrecision):
    """64-bit weights and inputs."""

    def convert_input(self, data: Any) -> Any:
        return converted(data, torch.double)


class BrainFloat(HalfPrecision):
    """16-bit weights and inputs with the range of 32-bit ones."""

    def __init__(self) -> None:
        super().__init__("bf16-true")

    def convert_input(self, data: Any) -> Any:
        return converted(data, torch.bfloat16)


TRUE: Mapping[str, type[Precision]] = {"64-true": Double, "bf16-true": BrainFloat}
"""Lightning's name of a precision in which weights and inputs are no longer float32 -> what is used in its place."""
