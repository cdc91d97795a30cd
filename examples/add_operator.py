"""Add an operator: one class, one call of `self.attend`; then a core reads with it.

    python examples/add_operator.py         # it equals its own definition, and a core learns through it

docs/attention.md says where to export it, and the one case a shipped operator adds to the test that sweeps them all.
"""

from typing import Any, ClassVar

import torch
from torch import nn

from fusion.attention import Ability, MultiHead, Read, known
from fusion.core import FusionCore, Stream
from fusion.summary import Mean
from fusion.tokens import Tokens
from kernels.attention import attend


class Sharpened(MultiHead):
    """Dense attention whose scores are multiplied by a learned factor per head.

    Args:
        width: of the query tokens and of the result
        heads: attention heads
        options: the other options of `MultiHead`
    """

    supports: ClassVar[frozenset[Ability]] = frozenset({"self", "cross", "padding"})
    cost: ClassVar[str] = "4 b h n s d"
    dense_when: ClassVar[str | None] = "sharpness == 1"

    def __init__(self, width: int, heads: int = 8, **options: Any):
        super().__init__(width, heads, **options)
        self.sharpness = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, query: Tokens, source: Tokens | None = None) -> Read:
        source = (query if source is None else source).zeroed()
        k, v = self.split_source(source.x)
        read = self.attend(self.sharpness * self.split_query(query.zeroed().x), k, v, keep=known(source))
        return Read(self.join(read.out), read.lse)


if __name__ == "__main__":
    torch.manual_seed(0)
    operator, genes, slide = Sharpened(16, 2), Tokens.full(torch.randn(3, 4, 16)), Tokens.full(torch.randn(3, 9, 16))
    q, (k, v) = operator.split_query(genes.x), operator.split_source(slide.x)
    torch.testing.assert_close(operator(genes, slide).y, operator.join(attend(q, k, v).out))
    core = FusionCore(16, {"genes": Stream(summary=Mean()), "slide": Stream()}, {"genes <- slide": operator})
    core({"genes": genes, "slide": slide}).summaries["genes"].square().mean().backward()
    print(f"dense at sharpness 1; its gradient is {operator.sharpness.grad.norm():.1e}")
