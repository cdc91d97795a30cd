"""Which query-key pairs may meet: one definition, read by the reference, the chunked path and the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Alignment = Literal["top-left", "bottom-right"]
CAUSAL: dict[Alignment | None, int] = {None: 0, "top-left": 1, "bottom-right": 2}


@dataclass(frozen=True)
class Masks:
    """All masks of one call; a pair meets when every mask that is given allows it.

    A query `i` stands at key position `i + shift`: shift is 0 for "top-left" and without causal; for "bottom-right" the
    last query stands on the last valid key, shift = lengths[b] - n (or s - n without lengths).

    Attributes:
        keep: keys that exist
        lengths: only the first `lengths[b]` keys exist
        query_segment: a query reads only keys of its own segment
        key_segment: segment of each key
        query_ends: cumulative query counts of sequences laid end to end; their segments then are sequence numbers, and
            positions count from each sequence's start. Read by the kernels; elsewhere sequences are read one by one
        key_ends: cumulative key counts of the same sequences
        causal: keys at or before the query's position
        window: keys at most this many positions away from the query's position, on either side
    """

    keep: Bool[Tensor, "b s"] | None = None
    lengths: Int[Tensor, " b"] | None = None
    query_segment: Int[Tensor, "b n"] | None = None
    key_segment: Int[Tensor, "b s"] | None = None
    causal: Alignment | None = None
    window: int | None = None
    query_ends: Int[Tensor, " b_1"] | None = None
    key_ends: Int[Tensor, " b_1"] | None = None

    @property
    def trivial(self) -> bool:
        """Whether every pair meets."""
        return all(
            part is None
            for part in (self.keep, self.lengths, self.query_segment, self.key_segment, self.causal, self.window)
        )

    def rows(
        self, start: int, stop: int, queries: int, keys: int, device: torch.device
    ) -> Bool[Tensor, "_ _ s"] | None:
        """The pairs of queries `start..stop-1` with all keys, broadcastable to `[b, rows, s]`; None when all meet."""
        if self.trivial:
            return None
        i = torch.arange(start, stop, device=device)[None, :, None]
        j = torch.arange(keys, device=device)[None, None, :]
        allowed = torch.ones(1, 1, keys, dtype=torch.bool, device=device)
        if self.keep is not None:
            allowed = allowed & self.keep[:, None, :]
        if self.lengths is not None:
            allowed = allowed & (j < self.lengths[:, None, None])
        if self.query_segment is not None and self.key_segment is not None:
            allowed = allowed & (self.query_segment[:, start:stop, None] == self.key_segment[:, None, :])
        shift: int | Tensor = 0
        if self.causal == "bottom-right":
            shift = keys - queries if self.lengths is None else (self.lengths - queries)[:, None, None]
        if self.causal is not None:
            allowed = allowed & (j <= i + shift)
        if self.window is not None:
            allowed = allowed & ((i + shift - j).abs() <= self.window)
        return allowed
