"""Nystrom attention over landmarks (Xiong 2021, arXiv 2102.03902), with masked padding and a stable inverse.

`softmax(q k~') Z softmax(q~ k')`: queries read landmarks, landmarks read everything, and Z inverts how landmarks read
one another. Landmarks are means of runs of tokens.

# Paper: Z from 6 steps of an iteration that is scaled by a maximum over the batch, so that patients change one another.
# Here: a ridge inverse of each head alone, `(A'A + ridge I)^-1 A'`: one small solve, nothing shared.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fusion.attention import Ability, Read, known
from fusion.operators.co_attention import CoAttention
from fusion.tokens import Place, Tokens


class Nystrom(CoAttention):
    """Exact softmax attention for short sequences, landmarks for long ones; decided for each item alone.

    Runs follow `place.position` where there is one, else the order of the tokens. When a source is given, queries read
    it through the source's own landmarks; rows of a self read can so be asked for alone.

    Args:
        width: token width
        heads: attention heads
        landmarks: runs per sequence
        dense_up_to: an item is read exactly while queries * sources <= dense_up_to ** 2; at least `landmarks`
        ridge: added to the squared singular values of the landmark attention before inversion
        head_width: width of one head; default width / heads
        bias: whether the query, key and value projections have a bias
    """

    supports: ClassVar[frozenset[Ability]] = frozenset({"self", "cross", "padding"})
    cost: ClassVar[str] = "4 b h (n + s) l d + b h l^3"
    dense_when: ClassVar[str | None] = "n * s <= dense_up_to ** 2"

    def __init__(
        self,
        width: int,
        heads: int = 8,
        *,
        landmarks: int = 128,
        dense_up_to: int = 1024,
        ridge: float = 1e-3,
        head_width: int | None = None,
        bias: bool = False,
    ):
        super().__init__(width, heads, head_width=head_width, bias=bias)
        if dense_up_to < landmarks:
            raise ValueError(f"Nystrom: dense_up_to={dense_up_to} is below landmarks={landmarks}; raise it")
        self.landmarks, self.dense_up_to, self.ridge = landmarks, dense_up_to, ridge

    def forward(self, query: Tokens, source: Tokens | None = None) -> Read:
        source = query if source is None else source
        pairs = query.keep.sum(dim=1) * source.keep.sum(dim=1)
        long = pairs > self.dense_up_to**2
        if not bool(long.any()):
            return super().forward(query, source)
        if bool(long.all()):
            return Read(self._through_landmarks(query.zeroed(), source.zeroed()))
        y = query.x.new_zeros(*query.x.shape[:2], self.width)
        for rows, read in ((~long, super().forward), (long, self._read_long)):
            at = rows.nonzero()[:, 0]
            part = read(_items(query, at), _items(source, at)).y
            y = y.index_copy(0, at, F.pad(part, (0, 0, 0, y.shape[1] - part.shape[1])))
        return Read(y)

    def _read_long(self, query: Tokens, source: Tokens) -> Read:
        return Read(self._through_landmarks(query.zeroed(), source.zeroed()))

    def _through_landmarks(self, query: Tokens, source: Tokens) -> Float[Tensor, "b n w"]:
        means = run_means(source.x, run_of(source, self.landmarks), self.landmarks)
        q_mean = self.split_query(means)
        k_mean, _ = self.split_source(means)
        k, v = self.split_source(source.x)
        gathered = self.attend(q_mean, k, v, keep=known(source)).out
        spread = self._solve(q_mean, k_mean, gathered)
        return self.join(self.attend(self.split_query(query.x), k_mean, spread).out)

    def _solve(
        self, q: Float[Tensor, "b h l d"], k: Float[Tensor, "b h l d"], gathered: Float[Tensor, "b h l d"]
    ) -> Float[Tensor, "b h l d"]:
        """`(A'A + ridge I)^-1 A' gathered` with A how landmarks read landmarks.

        A itself is needed, so this softmax is written out: `attend` only gives products with it.
        """
        a = (q * self.head_width**-0.5 @ k.transpose(-1, -2)).softmax(dim=-1)
        across = a.transpose(-1, -2)
        gram = across @ a + self.ridge * torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        factor = torch.linalg.cholesky(gram)
        return torch.cholesky_solve(across @ gathered, factor).contiguous()


def run_of(tokens: Tokens, runs: int) -> Int[Tensor, "b n"]:
    """Which of `runs` equal runs each kept token falls into; `runs` for padding.

    Runs differ in length by at most one token. A sequence shorter than `runs` leaves some runs empty.
    """
    if tokens.place.position is None:
        rank = tokens.keep.cumsum(dim=1) - 1
    else:
        last = torch.iinfo(tokens.place.position.dtype).max
        order = torch.argsort(tokens.place.position.masked_fill(~tokens.keep, last), dim=1, stable=True)
        steps = torch.arange(order.shape[1], device=order.device).expand_as(order)
        rank = torch.empty_like(order).scatter_(1, order, steps)
    count = tokens.keep.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(tokens.keep, rank * runs // count, runs)


def run_means(x: Float[Tensor, "b n w"], run: Int[Tensor, "b n"], runs: int) -> Float[Tensor, "b l w"]:
    """Mean of the tokens of each run; zeros for an empty one.

    Args:
        x: values, zero where padded
        run: run of each token, `runs` for padding
        runs: how many
    """
    b, _, w = x.shape
    at = (run + torch.arange(b, device=x.device)[:, None] * (runs + 1)).flatten()
    total = x.new_zeros(b * (runs + 1), w).index_add(0, at, x.flatten(0, 1))
    count = x.new_zeros(b * (runs + 1)).index_add(0, at, x.new_ones(len(at)))
    return (total / count.clamp(min=1)[:, None]).view(b, runs + 1, w)[:, :runs]


def _items(tokens: Tokens, at: Int[Tensor, " b"]) -> Tokens:
    """Some items of a batch, cut to the longest of them where padding stands behind the tokens."""
    keep = tokens.keep[at]
    reach = _reach(keep)
    place = tokens.place
    return Tokens(
        tokens.x[at, :reach],
        keep[:, :reach],
        Place(
            position=None if place.position is None else place.position[at, :reach],
            grid=None if place.grid is None else place.grid[at, :reach],
            segment=None if place.segment is None else place.segment[at, :reach],
            time=None if place.time is None else place.time[at, :reach],
        ),
    )


def _reach(keep: Bool[Tensor, "b n"]) -> int:
    """One past the last column that any item keeps."""
    used = keep.any(dim=0).nonzero()
    return int(used[-1]) + 1 if len(used) else 0
