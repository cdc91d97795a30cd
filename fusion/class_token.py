"""A stream with a class token: it reads the stream twice and becomes its summary (TransMIL, arXiv 2106.00908)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusion.block import Block
from fusion.core import Stream
from fusion.grid_convolution import GridConvolution
from fusion.tokens import Place, Tokens, concatenate


class ClassTokenStream(Stream):
    """Class token in front, block, position from the grid (not for the class token), block, layer norm.

    When nobody reads the tokens afterwards, the second block computes the row of the class token alone.

    Args:
        width: token width
        first: block before the position
        second: block after it
        position: convolution over the grid; None = tokens have no place
        arrange: what happens to the tokens before the class token joins them
    """

    def __init__(
        self,
        width: int,
        first: Block,
        second: Block,
        position: GridConvolution | None = None,
        arrange: nn.Module | None = None,
    ):
        super().__init__()
        self.class_token = nn.Parameter(torch.empty(width))
        nn.init.normal_(self.class_token, std=1e-6)
        self.first, self.second, self.position, self.arrange = first, second, position, arrange
        self.norm = nn.LayerNorm(width)

    @property
    def summarises(self) -> bool:
        return True

    def forward(self, tokens: Tokens, read_later: bool = True) -> tuple[Tokens, Float[Tensor, "b w"]]:
        if self.arrange is not None:
            tokens = self.arrange(tokens)
        joined = self.first(concatenate([self._class_tokens(tokens), tokens]))
        if self.position is not None:
            front, rest = _split(joined)
            joined = concatenate([front, self.position(rest)])
        joined = self.second(joined) if read_later else self.second.first_rows(joined, 1)
        front, rest = _split(joined.with_x(self.norm(joined.x)))
        return (tokens.with_x(rest.x) if read_later else tokens), front.x[:, 0]

    def _class_tokens(self, tokens: Tokens) -> Tokens:
        """One per item, ahead of everything in order, at the origin of the grid."""
        one, place = tokens.keep.new_ones(len(tokens.keep), 1), tokens.place
        return Tokens(
            self.class_token.expand(len(tokens.keep), 1, -1),
            one,
            Place(
                position=None if place.position is None else place.position.new_full((len(one), 1), -1),
                grid=None if place.grid is None else place.grid.new_zeros(len(one), 1, 2),
                segment=None if place.segment is None else place.segment.new_zeros(len(one), 1),
                time=None if place.time is None else place.time.new_zeros(len(one), 1),
            ),
        )


class RepeatToSquare(nn.Module):
    """Repeat the first tokens until their number is a square, and lay them on that square row by row.

    # Paper: the order of the file decides who is a neighbour, and repeated patches count twice. Kept for `published`.
    """

    def forward(self, tokens: Tokens) -> Tokens:
        if not bool(tokens.keep.all()):
            raise ValueError("RepeatToSquare has no mask; found padded tokens: read items one at a time")
        b, n, _ = tokens.x.shape
        side = int(n**0.5)
        side += side * side < n
        x = torch.cat([tokens.x, tokens.x[:, : side * side - n]], dim=1)
        at = torch.arange(side * side, device=x.device)
        grid = torch.stack([at % side, at // side], dim=1).to(x.dtype)
        return Tokens.full(x, Place(grid=grid.expand(b, -1, -1)))


def _split(tokens: Tokens) -> tuple[Tokens, Tokens]:
    """The class token and the others."""
    front, rest = tokens.x.split([1, tokens.x.shape[1] - 1], dim=1)
    return (
        Tokens(front, tokens.keep[:, :1], tokens.place[slice(1)]),
        Tokens(rest, tokens.keep[:, 1:], tokens.place[slice(1, None)]),
    )
