"""What a decoder remembers between steps: keys and values of the tokens read so far."""

from __future__ import annotations

import torch
from torch import Tensor


def _token_axis(tensor: Tensor) -> int:
    return 2 if tensor.ndim == 4 else 1


class Cache:
    """Named tensors that grow along their token axis, in storage that doubles when it is full.

    Tensors of four axes are `[b, h, s, d]` (keys, values), others `[b, s, ...]` (keep, places).
    Decoding is inference: stored tensors carry no gradient.

    Attributes:
        length: tokens stored
    """

    def __init__(self) -> None:
        self.length = 0
        self._room = 0
        self._store: dict[str, Tensor] = {}

    def extend(self, **new: Tensor) -> dict[str, Tensor]:
        """Append tokens; return views of everything stored, the new tokens last."""
        if self.length and new.keys() != self._store.keys():
            raise ValueError(
                f"Cache holds {sorted(self._store)} but was given {sorted(new)}; use one cache per operator"
            )
        added = {tensor.shape[_token_axis(tensor)] for tensor in new.values()}
        if len(added) != 1:
            raise ValueError(f"Cache: the tensors of one step hold {sorted(added)} tokens; expected one number")
        end = self.length + added.pop()
        for name, tensor in new.items():
            if name in self._store and self._store[name].shape[0] != tensor.shape[0]:
                raise ValueError(
                    f"Cache holds a batch of {self._store[name].shape[0]} but {name} has {tensor.shape[0]}; "
                    "start a new cache for a new batch"
                )
            axis = _token_axis(tensor)
            if end > self._room:
                grown = list(tensor.shape)
                grown[axis] = max(64, 2 * end)
                bigger = tensor.new_zeros(grown)
                if name in self._store:
                    bigger.narrow(axis, 0, self.length).copy_(self._store[name].narrow(axis, 0, self.length))
                self._store[name] = bigger
            self._store[name].narrow(axis, self.length, end - self.length).copy_(tensor.detach())
        if end > self._room:
            self._room = max(64, 2 * end)
        self.length = end
        return {name: tensor.narrow(_token_axis(tensor), 0, end) for name, tensor in self._store.items()}

    def reorder(self, rows: Tensor) -> None:
        """Keep, repeat or permute batch rows (beam search)."""
        self._store = {name: torch.index_select(tensor, 0, rows) for name, tensor in self._store.items()}
