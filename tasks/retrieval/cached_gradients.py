"""Large contrastive batches on little memory: gradients of a whole batch, one chunk of it in memory at a time.

GradCache (Gao et al. 2021, arXiv 2101.06983): embed everything without keeping activations, take the loss and its
gradient with respect to the embeddings, then embed every chunk again and push that gradient through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fusion.tokens import Tokens
from tasks.retrieval.two_towers import Encoded, joined

Embed = Callable[[Any], Encoded]


class _Chunk:
    """One embedding pass that can be repeated with the same random numbers, dropout included."""

    def __init__(self, embed: Embed, given: Any):
        self.embed, self.given = embed, given
        self.random = torch.get_rng_state()
        self.on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        with torch.no_grad():
            self.first = embed(given)

    def again(self) -> Encoded:
        before = torch.get_rng_state()
        before_on_gpu = torch.cuda.get_rng_state_all() if self.on_gpu else []
        torch.set_rng_state(self.random)
        if self.on_gpu:
            torch.cuda.set_rng_state_all(self.on_gpu)
        try:
            return self.embed(self.given)
        finally:
            torch.set_rng_state(before)
            if before_on_gpu:
                torch.cuda.set_rng_state_all(before_on_gpu)


def backward_in_chunks(
    left: tuple[Embed, Sequence[Any]],
    right: tuple[Embed, Sequence[Any]],
    loss: Callable[[Encoded, Encoded], Float[Tensor, ""]],
) -> Float[Tensor, ""]:
    """Leave in `.grad` what `loss(all left, all right).backward()` would, at the memory of one chunk.

    Every item is embedded twice. The embeddings of the whole batch, and the loss's own tables, stay in memory.

    Args:
        left: how left items are embedded, and the batch in chunks
        right: the same of the right side
        loss: of the whole batch; its own parameters get their gradients too

    Returns:
        the loss, without history
    """
    sides = [[_Chunk(embed, given) for given in chunks] for embed, chunks in (left, right)]
    whole = [_leaf(joined([chunk.first for chunk in side])) for side in sides]
    value = loss(*whole)
    value.backward()
    for side, all_of_it in zip(sides, whole, strict=True):
        start = 0
        for chunk in side:
            again = chunk.again()
            stop, tokens = start + len(again), again.x.shape[1]
            outputs, gradients = [], []
            for output, gradient in (
                (again.x, all_of_it.x.grad),
                (again.global_vector, all_of_it.global_vector.grad),
            ):
                if gradient is not None and output.requires_grad:
                    outputs.append(output)
                    part = gradient[start:stop]
                    gradients.append(part[:, :tokens] if part.ndim == 3 else part)
            torch.autograd.backward(outputs, gradients)
            start = stop
    return value.detach()


def _leaf(encoded: Encoded) -> Encoded:
    return Encoded(
        Tokens(encoded.x.detach().requires_grad_(), encoded.keep),
        encoded.global_vector.detach().requires_grad_(),
    )
