"""Tokens: what every encoder returns and every reader reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Place:
    """What attention may need to know about where a token is. Every field is optional.

    Attributes:
        position: order along a sequence, `[b, n]`
        grid: coordinates in the plane (micrometres or grid cells), `[b, n, 2]`
        segment: which phrase, slide or session a token belongs to, `[b, n]`
        time: seconds, months or beats, `[b, n]`
    """

    position: Int[Tensor, "b n"] | None = None
    grid: Float[Tensor, "b n 2"] | None = None
    segment: Int[Tensor, "b n"] | None = None
    time: Float[Tensor, "b n"] | None = None

    def __getitem__(self, rows: slice | Tensor) -> Place:
        """Select along the token axis."""
        return Place(
            **{f.name: None if (value := getattr(self, f.name)) is None else value[:, rows] for f in fields(self)}
        )


@dataclass(frozen=True)
class Tokens:
    """A batch of token sequences of one modality.

    A patient without a slide is a row of `keep` that is all False: an absent modality is data, not a special case.

    Attributes:
        x: values, float `[b, n, w]`
        keep: True = a real token, bool `[b, n]`
        place: where each token is
    """

    x: Float[Tensor, "b n w"]
    keep: Bool[Tensor, "b n"]
    place: Place = Place()

    def __post_init__(self) -> None:
        if self.x.shape[:2] != self.keep.shape:
            raise ValueError(
                f"Tokens: x is {tuple(self.x.shape)} but keep is {tuple(self.keep.shape)}; expected keep [b, n]"
            )

    @classmethod
    def full(cls, x: Float[Tensor, "b n w"], place: Place = Place()) -> Tokens:
        """Tokens without padding."""
        return cls(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), place)

    @property
    def present(self) -> Bool[Tensor, " b"]:
        """Which items of the batch have this modality at all."""
        return self.keep.any(dim=1)

    @property
    def complete(self) -> bool:
        """Whether no token is padding; never said while compiling, where a look at the values would cut the graph."""
        return not torch.compiler.is_compiling() and bool(self.keep.all())

    @property
    def width(self) -> int:
        return self.x.shape[-1]

    def with_x(self, x: Float[Tensor, "b n v"]) -> Tokens:
        """The same tokens with other values."""
        return Tokens(x, self.keep, self.place)

    def zeroed(self) -> Tokens:
        """Padding set to zero, so that whatever stood there (even NaN) reaches nothing."""
        if self.complete:
            return self
        return self.with_x(self.x.masked_fill(~self.keep[..., None], 0.0))


def concatenate(parts: Sequence[Tokens]) -> Tokens:
    """One sequence after another, per item; a place field survives when every part has it."""
    place = {}
    for f in fields(Place):
        values = [getattr(part.place, f.name) for part in parts]
        if all(value is not None for value in values):
            place[f.name] = torch.cat(values, dim=1)
    return Tokens(
        torch.cat([part.x for part in parts], dim=1), torch.cat([part.keep for part in parts], dim=1), Place(**place)
    )
