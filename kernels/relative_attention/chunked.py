"""K5 in plain torch with memory linear in the length: a block of query rows at a time; trains.

A block's relative scores come from one product with the table, laid out by offset, and are read as a strided view: row
m starts one place earlier than row m - 1, so no copy makes the skew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.relative_attention.reference import wide

SCORES = 2**21  # scores held at a time


class _Block(NamedTuple):
    """Query rows, the keys they can see, and how their distances lie in the table."""

    batch: slice
    rows: slice
    keys: slice
    longest: int  # distance of the last row to the first key
    far: int  # offsets whose distance falls on or beyond the table's last row


def _blocks(q: Tensor, s: int, r: int, start: Tensor, local: int) -> Iterator[_Block]:
    b, h, n, _ = q.shape
    starts = start.tolist()
    together = len(set(starts)) <= 1
    items = b if together else 1
    size = max(1, min(128, SCORES // max(items * h * s, 1)))
    for item, first in enumerate(starts[:1] if together else starts):
        batch = slice(0, b) if together else slice(item, item + 1)
        for row in range(0, n, size):
            end = min(row + size, n)
            at = first + row
            low = max(0, (at // local - 1) * local) if local else 0
            longest = first + end - 1 - low
            yield _Block(batch, slice(row, end), slice(low, first + end), longest, max(0, longest - r + 2))


def _skewed(by_offset: Tensor, keys: int) -> Tensor:
    """View [.., m, offsets] as [.., m, keys]: entry (m, n) is the offset n - m + (rows - 1)."""
    rows, offsets = by_offset.shape[-2:]
    flat = by_offset.stride()[:-2]
    return by_offset.as_strided(
        (*by_offset.shape[:-1], keys), (*flat, offsets - 1, 1), by_offset.storage_offset() + rows - 1
    )


def _grouped(x: Tensor, j: int) -> Tensor:
    """[b, h, m, c] -> [b, j, h/j m, c]."""
    return x.reshape(x.shape[0], j, -1, x.shape[-1])


def _real(x: Tensor, keep: Tensor | None, keys: slice) -> Tensor:
    """Padding set to zero: its values must not reach a product, where 0 times NaN is NaN."""
    return x if keep is None else x.masked_fill(~keep[:, None, keys, None], 0)


def _scores(
    q: Tensor, k: Tensor, table: Tensor, keep: Tensor | None, block: _Block, first: int, local: int, scale: float
) -> Tensor:
    """Masked scores [b, h, m, c] of one block; q is the block's rows, k its keys, both in the type of sums."""
    b, h, m, _ = q.shape
    c = k.shape[2]
    used = table[:, : block.longest + 1]
    by_row = q @ used.mT
    offset = torch.arange(c + m - 1, device=q.device)
    distance = (block.longest - offset).clamp(0, used.shape[1] - 1)
    scores = (_grouped(q, k.shape[1]) @ k.mT).view(b, h, m, c)
    scores += _skewed(by_row.index_select(-1, distance), c)
    scores *= scale
    position = first + torch.arange(block.rows.start, block.rows.stop, device=q.device)
    key = torch.arange(block.keys.start, block.keys.stop, device=q.device)
    hidden = key > position[:, None]
    if local:
        hidden |= key < (position // local - 1)[:, None] * local
    scores.masked_fill_(hidden, -torch.inf)
    if keep is not None:
        scores.masked_fill_(~keep[:, None, None, block.keys], -torch.inf)
    return scores


def relative_attention_chunked(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, keep: Tensor | None, start: Tensor, local: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Out and lse as in the reference."""
    (b, h, n, _), (_, j, s, e) = q.shape, v.shape
    dtype = wide(q.dtype)
    out = q.new_empty(b, h, n, e)
    lse = torch.empty(b, h, n, dtype=dtype, device=q.device)
    rows = table.to(dtype)
    for block in _blocks(q, s, table.shape[1], start, local):
        at = block.batch, slice(None), block.rows
        first = int(start[block.batch.start])
        kept = None if keep is None else keep[block.batch]
        k_c, v_c = (_real(x[block.batch, :, block.keys].to(dtype), kept, block.keys) for x in (k, v))
        scores = _scores(q[at].to(dtype), k_c, rows, kept, block, first, local, scale)
        sums = scores.logsumexp(dim=-1)
        share = scores.sub_(sums.masked_fill(sums.isinf(), 0)[..., None]).exp_()
        out[at] = (_grouped(share, j) @ v_c).view(*share.shape[:3], e).to(q.dtype)
        lse[at] = sums
    return out, lse


def relative_attention_chunked_backward(
    g_out: Tensor,
    delta: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    keep: Tensor | None,
    start: Tensor,
    lse: Tensor,
    local: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and the table; `delta` is g_out . out - g_lse of every row."""
    s, j, r = k.shape[2], k.shape[1], table.shape[1]
    dtype = wide(q.dtype)
    rows = table.to(dtype)
    g_q = torch.zeros_like(q)
    g_k, g_v, g_table = (torch.zeros(x.shape, dtype=dtype, device=q.device) for x in (k, v, table))
    for block in _blocks(q, s, r, start, local):
        at = block.batch, slice(None), block.rows
        first = int(start[block.batch.start])
        kept = None if keep is None else keep[block.batch]
        q_c, g_c = q[at].to(dtype), g_out[at].to(dtype)
        k_c, v_c = (_real(x[block.batch, :, block.keys].to(dtype), kept, block.keys) for x in (k, v))
        scores = _scores(q_c, k_c, rows, kept, block, first, local, scale)
        sums = lse[at]
        share = scores.sub_(sums.masked_fill(sums.isinf(), 0)[..., None]).exp_()
        g_s = (_grouped(g_c, j) @ v_c.mT).view_as(share).sub_(delta[at][..., None]).mul_(share).mul_(scale)
        g_v[block.batch, :, block.keys] += _grouped(share, j).mT @ _grouped(g_c, j)
        g_k[block.batch, :, block.keys] += _grouped(g_s, j).mT @ _grouped(q_c, j)
        m, c = g_s.shape[-2:]
        by_offset = g_s.new_zeros(*g_s.shape[:3], c + m - 1)
        _skewed(by_offset, c).copy_(g_s)
        by_row = by_offset[..., block.far : block.longest + 1].flip(-1)
        if block.far:
            by_row = torch.cat([by_row, by_offset[..., : block.far].sum(-1, keepdim=True)], dim=-1)
        used = by_row.shape[-1]
        g_q[at] = ((_grouped(g_s, j) @ k_c).view_as(q_c) + by_row @ rows[:, :used]).to(q.dtype)
        per_head = torch.einsum("bhmr,bhmd->hrd", by_row, q_c)
        g_table[:, :used] += per_head if table.shape[0] > 1 else per_head.sum(0, keepdim=True)
    return g_q, g_k.to(k.dtype), g_v.to(v.dtype), g_table.to(table.dtype)
