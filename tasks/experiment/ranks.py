"""Processes that train together: who takes which part of a batch, and tensors of all of them in one, with gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Shaped
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Sampler


def ranks() -> int:
    """How many processes train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class Gather(torch.autograd.Function):
    """Concatenate equally long parts over ranks; the gradient of a part is the sum over what every rank made of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(ranks())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        own = len(gradient) // ranks()
        return gradient[dist.get_rank() * own : (dist.get_rank() + 1) * own]


def gathered(x: Shaped[Tensor, "a ..."], parts: Sequence[int]) -> Shaped[Tensor, "b ..."]:
    """The rows of all ranks, rank after rank.

    With a loss of these that every rank computes alike, gradients averaged over ranks equal those of one process.

    Args:
        x: this rank's rows; rows beyond its part are left out
        parts: how many rows each rank has
    """
    longest, kind = max(parts), x.dtype
    sent = x.to(torch.uint8) if kind is torch.bool else x
    padded = F.pad(sent[:longest], (0, 0) * (sent.ndim - 1) + (0, max(0, longest - len(sent))))
    everyone = Gather.apply(padded).unflatten(0, (len(parts), longest))
    return torch.cat([rows[:part] for rows, part in zip(everyone, parts, strict=True)]).to(kind)


def parts_of(cases: int, ranks: int) -> list[int]:
    """How many cases of a batch each rank takes: they differ by at most one."""
    return [cases * (rank + 1) // ranks - cases * rank // ranks for rank in range(ranks)]


class Share(Sampler[list[int]]):
    """This rank's part of every batch, in order; a rank without a part takes the first case as a stand-in.

    Args:
        batches: of one process
        rank: of this process
        ranks: how many there are
    """

    def __init__(self, batches: BatchSampler, rank: int, ranks: int):
        self.batches, self.rank, self.ranks = batches, rank, ranks
        self.sampler = batches.sampler  # Lightning tells it the epoch

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            parts = parts_of(len(batch), self.ranks)
            start = sum(parts[: self.rank])
            yield list(batch[start : start + parts[self.rank]]) or list(batch[:1])

    def __len__(self) -> int:
        return len(self.batches)

    def sizes(self, batch: int) -> list[int]:
        """How many cases of the batch of this number each rank has; a stand-in does not count."""
        size, cases = self.batches.batch_size, len(self.sampler)  # type: ignore[arg-type]
        return parts_of(min(size, cases - batch * size), self.ranks)


class TellParts(Callback):
    """Before every step, tell the module in `parts` how the batch is shared out."""

    def __init__(self, share: Share):
        self.share = share

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        module.parts = self.share.sizes(batch_idx)


def shared(loader: DataLoader[Any], rank: int, ranks: int) -> DataLoader[Any]:
    """The same batches, of each this rank's part."""
    assert isinstance(loader.batch_sampler, BatchSampler)
    share = Share(loader.batch_sampler, rank, ranks)
    return DataLoader(loader.dataset, batch_sampler=share, collate_fn=loader.collate_fn)
