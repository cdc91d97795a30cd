"""Negatives from every process: items of all ranks in one table, with gradients back to where they came from."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from fusion.tokens import Tokens
from tasks.experiment.ranks import Gather, ranks
from tasks.retrieval.two_towers import Encoded


def gather_rows(rows: Int[Tensor, " a"]) -> Int[Tensor, " b"]:
    """Identifiers of the items of all ranks, rank after rank.

    Raises:
        ValueError: ranks hold batches of different sizes
    """
    if ranks() == 1:
        return rows
    sizes = [torch.empty(1, dtype=torch.long, device=rows.device) for _ in range(ranks())]
    dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    found = sorted({int(size) for size in sizes})
    if len(found) > 1:
        raise ValueError(f"ranks hold batches of {found[0]} and {found[-1]} items; drop the last incomplete batch")
    return Gather.apply(rows)  # type: ignore[no-any-return]


def gather(encoded: Encoded, send_half: bool = False) -> Encoded:
    """The items of all ranks, rank after rank, padded to the longest item anywhere.

    With a loss that is averaged over ranks (as data-parallel training does with gradients), gradients equal those of
    one process that holds the joined batch.

    Args:
        encoded: this rank's items, as many on every rank
        send_half: send tokens and vectors as float16, as FILIP does; they come back in their own type
    """
    if ranks() == 1:
        return encoded
    longest = torch.tensor([encoded.x.shape[1]], device=encoded.x.device)
    dist.all_reduce(longest, dist.ReduceOp.MAX)
    pad = int(longest) - encoded.x.shape[1]
    sent = torch.float16 if send_half else encoded.x.dtype
    x = Gather.apply(F.pad(encoded.x, (0, 0, 0, pad)).to(sent)).to(encoded.x.dtype)
    keep = Gather.apply(F.pad(encoded.keep, (0, pad)).to(torch.uint8)).bool()
    vector = Gather.apply(encoded.global_vector.to(sent)).to(encoded.global_vector.dtype)
    return Encoded(Tokens(x, keep), vector)
