"""Nystrom attention as TransMIL and CMTA run it: zero tokens in front that are read, and a convolution over order.

Three properties that published numbers depend on (papers: Xiong 2021, arXiv 2102.03902; CMTA, arXiv 2309.12855):
the sequence is filled up in FRONT with zero tokens to a multiple of the landmarks, and they act as keys with score 0;
the inverse is 6 steps of an iteration whose start is scaled over the whole batch and all heads; a filter of length 33
runs over the tokens in the order in which they came. `Nystrom` is the operator without these.

Less work than the usual code, at the same result to rounding:
- queries are multiplied with (inverse x gathered values), never with the inverse;
- zero tokens that fill whole landmarks are one landmark with a weight: short sequences invert small matrices;
- the last step of the iteration is applied to the values instead of being formed;
- the rows of a few tokens can be asked for alone.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from fusion.attention import Ability, MultiHead, Read
from fusion.tokens import Tokens


class ZeroPaddedNystrom(MultiHead):
    """Landmark attention over one sequence without padding of its own.

    Args:
        width: token width
        heads: attention heads
        landmarks: runs per sequence
        steps: of the iteration for the inverse
        kernel: length of the filter over the sequence, odd
        head_width: width of one head; default width / heads
    """

    supports: ClassVar[frozenset[Ability]] = frozenset({"self"})
    cost: ClassVar[str] = "8 b h n l d + 8 steps b h l^3 + 2 b n w kernel"
    dense_when: ClassVar[str | None] = None

    def __init__(
        self,
        width: int,
        heads: int = 8,
        *,
        landmarks: int = 128,
        steps: int = 6,
        kernel: int = 33,
        head_width: int | None = None,
    ):
        super().__init__(width, heads, head_width=head_width)
        if kernel % 2 == 0:
            raise ValueError(f"ZeroPaddedNystrom: kernel={kernel}; expected an odd length")
        self.landmarks, self.steps, self.kernel = landmarks, steps, kernel
        self.filter = nn.Parameter(torch.empty(heads, kernel))
        nn.init.uniform_(self.filter, -(kernel**-0.5), kernel**-0.5)

    def forward(self, query: Tokens, source: Tokens | None = None) -> Read:
        """Read the sequence; with a `source`, `query` must be its first tokens and only their rows are computed."""
        sequence = query if source is None else source
        if not bool(sequence.keep.all()):
            raise ValueError(
                "ZeroPaddedNystrom has no mask; found padded tokens: read items of different length one at a time, "
                "or use Nystrom"
            )
        n = sequence.x.shape[1]
        fill = -n % self.landmarks
        run = (n + fill) // self.landmarks
        x = F.pad(sequence.x, (0, 0, fill, 0))
        means = reduce(x, "b (l run) w -> b l w", "mean", run=run)
        q_mean, (k_mean, _) = self.split_query(means), self.split_source(means)
        k, v = self.split_source(x)

        zero = max(fill // run - 1, 0)
        gathered = self.attend(q_mean[:, :, zero:], k, v).out
        spread = self._invert(q_mean[:, :, zero:], k_mean[:, :, zero:], zero + 1, gathered)
        spread = torch.cat([spread[:, :, :1].expand(-1, -1, zero, -1), spread], dim=2)
        out = self.attend(self.split_query(query.x), k_mean, spread).out
        return Read(self.join(out + self._convolve(v, fill, query.x.shape[1])))

    def _invert(
        self,
        q: Float[Tensor, "b h l d"],
        k: Float[Tensor, "b h l d"],
        first_weighs: int,
        gathered: Float[Tensor, "b h l d"],
    ) -> Float[Tensor, "b h l d"]:
        """Pseudo-inverse of how landmarks read landmarks, times `gathered`.

        The first landmark stands for `first_weighs` equal ones. Matrices that treat those alike multiply like their
        quotients, in which a column is weighted by how many it stands for; so do the transpose and the iteration. The
        matrix itself is needed, which `attend` does not give.
        """
        weight = q.new_ones(q.shape[2])
        weight[0] = first_weighs
        a = (q * self.head_width**-0.5 @ k.transpose(-1, -2) + weight.log()).softmax(dim=-1)
        entries = a / weight
        columns = (entries * weight[:, None]).sum(dim=-2)
        z = entries.transpose(-1, -2) * weight / (a.sum(dim=-1).max() * columns.max())
        a, z = a.flatten(0, 1), z.flatten(0, 1)
        one = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        for _ in range(self.steps - 1):
            az = a @ z
            inner = torch.baddbmm(15 * one, az, 7 * one - az, alpha=-1)
            z = torch.bmm(z, torch.baddbmm(13 * one, az, inner, alpha=-1)) * 0.25
        az = a @ z
        u = gathered.flatten(0, 1)
        au = az @ u
        aau = az @ au
        last = 13 * u - 15 * au + 7 * aau - az @ aau
        return (z @ last * 0.25).view_as(gathered)

    def _convolve(self, v: Float[Tensor, "b h s d"], fill: int, rows: int) -> Float[Tensor, "b h n d"]:
        """The filter of each head over the sequence, for the first `rows` tokens after the filling."""
        reach = self.kernel // 2
        start = max(fill - reach, 0)
        window = v[:, :, start : fill + rows + reach]
        filtered = F.conv2d(
            F.pad(window, (0, 0, reach, reach)), rearrange(self.filter, "h t -> h 1 t 1"), groups=self.heads
        )
        return filtered[:, :, fill - start : fill - start + rows]
