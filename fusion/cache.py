"""What a decoder remembers between steps: keys and values of the tokens read so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def _token_axis(tensor: Tensor) -> int:
    return 2 if tensor.ndim == 4 else 1


class Cache:
    """Named tensors that grow along their token axis, in storage that doubles when it is full.

    Tensors of four axes are `[b, h, s, d]` (keys, values), others `[b, s, ...]` (keep, places).
    Decoding is inference: stored tensors carry no gradient, and weights stay as they are while a cache is in use.

    Attributes:
        length: tokens stored
        complete: whether none of them is padding, as far as the operator said; spares a look at all of `keep`
    """

    def __init__(self) -> None:
        self.length = 0
        self.complete = True
        self._room = 0
        self._store: dict[str, Tensor] = {}
        self._prepared: dict[str, Tensor] = {}

    def extend(self, **new: Tensor) -> dict[str, Tensor]:
        """Append tokens; return views of everything stored, the new tokens last."""
        start, added = self.length, self._checked(new)
        end = start + added
        if end > self._room:
            self._grow(new, max(64, 2 * end))
        self.length, held = end, {}
        for name, tensor in new.items():
            store, axis = self._store[name], _token_axis(tensor)
            store.narrow(axis, start, added).copy_(tensor.detach())
            held[name] = store.narrow(axis, 0, end)
        return held

    def prepared(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """A form of the weights that every step reads, made at the first one."""
        if name not in self._prepared:
            self._prepared[name] = make().detach()
        return self._prepared[name]

    def reorder(self, rows: Tensor) -> None:
        """Keep, repeat or permute batch rows (beam search)."""
        self._store = {name: torch.index_select(tensor, 0, rows) for name, tensor in self._store.items()}

    def _checked(self, new: Mapping[str, Tensor]) -> int:
        """How many tokens are new."""
        if self.length and new.keys() != self._store.keys():
            raise ValueError(
                f"Cache holds {sorted(self._store)} but was given {sorted(new)}; use one cache per operator"
            )
        added = {tensor.shape[_token_axis(tensor)] for tensor in new.values()}
        if len(added) != 1:
            raise ValueError(f"Cache: the tensors of one step hold {sorted(added)} tokens; expected one number")
        for name, tensor in new.items():
            if name in self._store and self._store[name].shape[0] != tensor.shape[0]:
                raise ValueError(
                    f"Cache holds a batch of {self._store[name].shape[0]} but {name} has {tensor.shape[0]}; "
                    "start a new cache for a new batch"
                )
        return added.pop()

    def _grow(self, new: Mapping[str, Tensor], room: int) -> None:
        for name, tensor in new.items():
            axis, shape = _token_axis(tensor), list(tensor.shape)
            shape[axis] = room
            bigger = tensor.new_zeros(shape)
            if name in self._store:
                bigger.narrow(axis, 0, self.length).copy_(self._store[name].narrow(axis, 0, self.length))
            self._store[name] = bigger
        self._room = room
