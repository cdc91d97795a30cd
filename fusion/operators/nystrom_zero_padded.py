"""Nystrom attention as TransMIL and CMTA run it: zero tokens in front that are read, and a convolution over order.

Three properties that published numbers depend on (papers: Xiong 2021, arXiv 2102.03902; CMTA, arXiv 2309.12855):
the sequence is filled up in FRONT with zero tokens to a multiple of the landmarks, and they act as keys with score 0;
the inverse is 6 steps of an iteration whose start is scaled over all heads of an item; a filter of length 33 runs over
the tokens in the order in which they came. `Nystrom` is the operator without these.

Usual code takes that scale over the whole batch too. The published models see one item at a time, where it is the same;
here items of one length may share a batch and do not change one another.

Less work than the usual code, at the same result to rounding:
- queries are multiplied with (inverse x gathered values), never with the inverse;
- zero tokens are never projected, and those that fill whole landmarks are one landmark with a weight: short sequences
  invert small matrices;
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
        zero = max(fill // run - 1, 0)
        means = reduce(x, "b (l run) w -> b l w", "mean", run=run)[:, zero:]
        q_mean, (k_mean, _) = self.split_query(means), self.split_source(means)
        k, v = self.split_source(sequence.x)

        gathered = self._attend_weighed(q_mean, F.pad(k, (0, 0, 1, 0)), F.pad(v, (0, 0, 1, 0)), fill)
        spread = self._invert(q_mean, k_mean, zero + 1, gathered)
        out = self._attend_weighed(self.split_query(query.x), k_mean, spread, zero + 1)
        return Read(self.join(out + self._convolve(v, query.x.shape[1])))

    def _attend_weighed(
        self, q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h l d"], v: Float[Tensor, "b h l d"], first_weighs: int
    ) -> Float[Tensor, "b h n d"]:
        """Attention to keys of which the first stands for so many equal ones, or for none.

        Many are a term on the score of one; few are written out, because kernels are faster without such a term.
        """
        if first_weighs > k.shape[2]:
            return self.attend(q, k, v, bias=_log_weights(k, first_weighs)).out
        if first_weighs != 1:
            k, v = (torch.cat([x[:, :, :1].expand(-1, -1, first_weighs, -1), x[:, :, 1:]], dim=2) for x in (k, v))
        return self.attend(q, k, v).out

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
        more = _log_weights(k, first_weighs)
        weight = more.exp().flatten()
        a = (q * self.head_width**-0.5 @ k.transpose(-1, -2) + more).softmax(dim=-1)
        entries = a / weight
        columns = (entries * weight[:, None]).sum(dim=-2)
        scale = a.sum(dim=-1).amax(dim=(1, 2)) * columns.amax(dim=(1, 2))
        z = entries.transpose(-1, -2) * weight / scale[:, None, None, None]
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

    def _convolve(self, v: Float[Tensor, "b h n d"], rows: int) -> Float[Tensor, "b h rows d"]:
        """The filter of each head over the sequence, for its first `rows` tokens; zeros in front change nothing."""
        reach = self.kernel // 2
        window = F.pad(v[:, :, : rows + reach], (0, 0, reach, reach))
        return F.conv2d(window, rearrange(self.filter, "h t -> h 1 t 1"), groups=self.heads)[:, :, :rows]


def _log_weights(keys: Float[Tensor, "b h l d"], first_weighs: int) -> Float[Tensor, "1 1 1 l"]:
    """What is added to the scores of keys of which the first stands for `first_weighs` equal ones."""
    weights = keys.new_ones(1, 1, 1, keys.shape[2])
    weights[..., 0] = first_weighs
    return weights.log()
