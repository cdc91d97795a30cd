"""Additive score terms: one class per form, with its dense definition, its gradient and the numbers a kernel reads.

A bias is added to `scale q.k` before the softmax. Each class states its formula for query i and key j. Gradients of the
dense form come from `accumulate`; the kernels sum score gradients along walks of tiles (`attention.bias_gradient`).
Leading sizes 1 broadcast over batch and heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Bias(ABC):
    """A score term that needs no `[b, h, n, s]` table of its own.

    Attributes:
        kind: the branch a kernel takes
    """

    kind: ClassVar[int]

    @property
    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """The one or two learnt tensors."""

    @property
    def numbers(self) -> list[int]:
        """Integers that complete the definition."""
        return []

    @abstractmethod
    def rows(self, start: int, stop: int, keys: int) -> Float[Tensor, "_ _ #rows keys"]:
        """The term for queries `start..stop-1` and all keys, broadcastable to `[b, h, rows, keys]`; differentiable."""

    @abstractmethod
    def accumulate(self, totals: list[Tensor], ds: Float[Tensor, "b h rows keys"], start: int) -> None:
        """Add to `totals`, shaped like `tensors`, what score gradients of the queries from `start` on send there."""

    @abstractmethod
    def check(self, b: int, h: int, n: int, s: int) -> None:
        """Raise ValueError unless the term fits `b` batches, `h` heads, `n` queries and `s` keys."""

    def dense(self, queries: int, keys: int) -> Float[Tensor, "_ _ queries keys"]:
        """The whole term as a table."""
        return self.rows(0, queries, keys)


def _check_sizes(name: str, tensor: Tensor, letters: str, *sizes: int) -> None:
    fits = tensor.ndim == len(sizes) and all(have in (1, want) for have, want in zip(tensor.shape, sizes, strict=True))
    if not fits:
        raise ValueError(
            f"attend: bias {name} has shape {list(tensor.shape)}; expected {letters} = {list(sizes)}, any size may be 1"
        )


def _positions(like: Tensor, start: int, stop: int, keys: int) -> tuple[Tensor, Tensor]:
    return (
        torch.arange(start, stop, device=like.device)[:, None],
        torch.arange(keys, device=like.device)[None, :],
    )


@dataclass(frozen=True)
class Dense(Bias):
    """`table[b, h, i, j]`; sizes of 1 broadcast without being expanded in memory."""

    table: Float[Tensor, "_ _ _ _"]
    kind: ClassVar[int] = 1

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.table,)

    def rows(self, start: int, stop: int, keys: int) -> Tensor:
        rows = self.table if self.table.shape[2] == 1 else self.table[:, :, start:stop]
        return rows.expand(-1, -1, -1, keys)

    def accumulate(self, totals: list[Tensor], ds: Tensor, start: int) -> None:
        stop = start + ds.shape[2]
        rows = totals[0] if self.table.shape[2] == 1 else totals[0][:, :, start:stop]
        rows += ds.sum_to_size(rows.shape)

    def check(self, b: int, h: int, n: int, s: int) -> None:
        _check_sizes("table", self.table, "[b, h, n, s]", b, h, n, s)


@dataclass(frozen=True)
class PerKey(Bias):
    """`term[b, h, j]`: the same for every query, e.g. a log-weight of each key."""

    term: Float[Tensor, "_ _ s"]
    kind: ClassVar[int] = 2

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.term,)

    def rows(self, start: int, stop: int, keys: int) -> Tensor:
        return self.term[:, :, None, :].expand(-1, -1, -1, keys)

    def accumulate(self, totals: list[Tensor], ds: Tensor, start: int) -> None:
        totals[0] += ds.sum(dim=2).sum_to_size(totals[0].shape)

    def check(self, b: int, h: int, n: int, s: int) -> None:
        _check_sizes("term", self.term, "[b, h, s]", b, h, s)


@dataclass(frozen=True)
class AxisFactored(Bias):
    """`by_x[b, h, i, x] + by_y[b, h, i, y]` for key j = y * width + x: box-relative terms over a grid of keys."""

    by_x: Float[Tensor, "_ _ n width"]
    by_y: Float[Tensor, "_ _ n height"]
    kind: ClassVar[int] = 3

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.by_x, self.by_y)

    @property
    def numbers(self) -> list[int]:
        return [self.by_x.shape[-1], self.by_y.shape[-1]]

    def rows(self, start: int, stop: int, keys: int) -> Tensor:
        x, y = self.by_x[:, :, start:stop, None, :], self.by_y[:, :, start:stop, :, None]
        return (x + y).flatten(-2)

    def accumulate(self, totals: list[Tensor], ds: Tensor, start: int) -> None:
        grid = ds.unflatten(-1, (self.by_y.shape[-1], self.by_x.shape[-1]))
        for total, part in zip(totals, (grid.sum(dim=-2), grid.sum(dim=-1)), strict=True):
            rows = total[:, :, start : start + ds.shape[2]]
            rows += part.sum_to_size(rows.shape)

    def check(self, b: int, h: int, n: int, s: int) -> None:
        width, height = self.numbers
        if width * height != s:
            raise ValueError(
                f"attend: bias by_x and by_y span a {height} x {width} grid = {width * height} keys, but k has {s}"
            )
        for name, tensor, size in (("by_x", self.by_x, width), ("by_y", self.by_y, height)):
            if (
                tensor.ndim != 4
                or tensor.shape[0] not in (1, b)
                or tensor.shape[1] not in (1, h)
                or tensor.shape[2] != n
            ):
                raise ValueError(
                    f"attend: bias {name} has shape {list(tensor.shape)}; expected [b or 1, h or 1, n, {size}] "
                    f"with b={b}, h={h}, n={n}"
                )


@dataclass(frozen=True)
class Relative1D(Bias):
    """`table[h, clamp(i - j + offset)]`: a learnt term per distance; distances beyond the table use its ends."""

    table: Float[Tensor, "_ distances"]
    offset: int
    kind: ClassVar[int] = 4

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.table,)

    @property
    def numbers(self) -> list[int]:
        return [self.offset, self.table.shape[-1]]

    def _entry(self, start: int, stop: int, keys: int) -> Int[Tensor, "rows keys"]:
        i, j = _positions(self.table, start, stop, keys)
        return (i - j + self.offset).clamp(0, self.table.shape[-1] - 1)

    def rows(self, start: int, stop: int, keys: int) -> Tensor:
        return self.table[:, self._entry(start, stop, keys)][None]

    def accumulate(self, totals: list[Tensor], ds: Tensor, start: int) -> None:
        entry = self._entry(start, start + ds.shape[2], ds.shape[3])
        per_head = ds.sum(dim=0).flatten(1).sum_to_size(self.table.shape[0], entry.numel())
        totals[0].view(self.table.shape[0], -1).index_add_(1, entry.flatten(), per_head.to(totals[0].dtype))

    def check(self, b: int, h: int, n: int, s: int) -> None:
        if self.table.ndim != 2 or self.table.shape[0] not in (1, h) or self.table.shape[1] == 0:
            raise ValueError(
                f"attend: bias table has shape {list(self.table.shape)}; expected [h or 1, distances] with h={h}"
            )


@dataclass(frozen=True)
class Relative2D(Bias):
    """`table[h, clamp(yi - yj + dy), clamp(xi - xj + dx)]` for queries and keys on row-major grids of given widths."""

    table: Float[Tensor, "_ rows columns"]
    offset: tuple[int, int]
    query_width: int
    key_width: int
    kind: ClassVar[int] = 5

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.table,)

    @property
    def numbers(self) -> list[int]:
        return [self.query_width, self.key_width, *self.offset, *self.table.shape[-2:]]

    def _entry(self, start: int, stop: int, keys: int) -> Int[Tensor, "rows keys"]:
        i, j = _positions(self.table, start, stop, keys)
        rows, columns = self.table.shape[-2:]
        y = (i // self.query_width - j // self.key_width + self.offset[0]).clamp(0, rows - 1)
        x = (i % self.query_width - j % self.key_width + self.offset[1]).clamp(0, columns - 1)
        return y * columns + x

    def rows(self, start: int, stop: int, keys: int) -> Tensor:
        return self.table.flatten(1)[:, self._entry(start, stop, keys)][None]

    def accumulate(self, totals: list[Tensor], ds: Tensor, start: int) -> None:
        entry = self._entry(start, start + ds.shape[2], ds.shape[3])
        per_head = ds.sum(dim=0).flatten(1).sum_to_size(self.table.shape[0], entry.numel())
        totals[0].view(self.table.shape[0], -1).index_add_(1, entry.flatten(), per_head.to(totals[0].dtype))

    def check(self, b: int, h: int, n: int, s: int) -> None:
        if self.table.ndim != 3 or self.table.shape[0] not in (1, h) or 0 in self.table.shape:
            raise ValueError(
                f"attend: bias table has shape {list(self.table.shape)}; expected [h or 1, rows, columns] with h={h}"
            )
        for name, length, width in (("query_width", n, self.query_width), ("key_width", s, self.key_width)):
            if width < 1 or length % width:
                raise ValueError(f"attend: bias {name}={width} must divide the {length} tokens of its grid")


@dataclass(frozen=True)
class ALiBi(Bias):
    """`-slopes[h] * |i - j + offset|` (Press et al. 2022); pass offset = s - n when the last query is the last key."""

    slopes: Float[Tensor, " h"]
    offset: int = 0
    kind: ClassVar[int] = 6

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.slopes,)

    @property
    def numbers(self) -> list[int]:
        return [self.offset]

    def _distance(self, start: int, stop: int, keys: int) -> Int[Tensor, "rows keys"]:
        i, j = _positions(self.slopes, start, stop, keys)
        return (i - j + self.offset).abs()

    def rows(self, start: int, stop: int, keys: int) -> Tensor:
        return (-self.slopes[:, None, None] * self._distance(start, stop, keys))[None]

    def accumulate(self, totals: list[Tensor], ds: Tensor, start: int) -> None:
        distance = self._distance(start, start + ds.shape[2], ds.shape[3])
        totals[0] -= (ds * distance).sum(dim=(0, 2, 3)).sum_to_size(totals[0].shape)

    def check(self, b: int, h: int, n: int, s: int) -> None:
        if self.slopes.ndim != 1 or self.slopes.shape[0] not in (1, h):
            raise ValueError(f"attend: bias slopes has shape {list(self.slopes.shape)}; expected [h] = [{h}] or [1]")


def rebuild(kind: int, tensors: list[Tensor], numbers: list[int]) -> Bias | None:
    """The bias from what crosses an operator's boundary: its kind, tensors and numbers."""
    match kind:
        case Dense.kind:
            return Dense(tensors[0])
        case PerKey.kind:
            return PerKey(tensors[0])
        case AxisFactored.kind:
            return AxisFactored(tensors[0], tensors[1])
        case Relative1D.kind:
            return Relative1D(tensors[0], numbers[0])
        case Relative2D.kind:
            return Relative2D(tensors[0], (numbers[2], numbers[3]), numbers[0], numbers[1])
        case ALiBi.kind:
            return ALiBi(tensors[0], numbers[0])
    return None
