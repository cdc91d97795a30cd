"""K3 in plain torch with bounded memory: a stretch of keys at a time, merged by their maxima; trains."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kernels.split_keys.reference import wide

SCORES = 2**22  # scores, or widened key numbers, held at a time
PIECE = 256  # keys in one small product: one long product of few rows repacks all keys, which takes half as long again


def stretch_of(q: Tensor, k: Tensor) -> int:
    """Keys read at a time: one product where the scores fit, since short products cost more on a CPU."""
    _, h, n, d = q.shape
    keys = SCORES // max(h * n, 1)
    if wide(q.dtype) != q.dtype:
        keys = min(keys, SCORES // max(k.shape[1] * d, 1))
    return max(1024, keys)


def _bags(k: Tensor, starts: Tensor, lengths: Tensor, stretch: int) -> Iterator[tuple[int, int, list[slice]]]:
    """Bag, its row of k, and its stretches of keys."""
    for bag, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
        stop = start + length
        yield (
            bag,
            bag if k.shape[0] > 1 else 0,
            [slice(at, min(at + stretch, stop)) for at in range(start, stop, stretch)],
        )


def _rows(x: Tensor, j: int) -> Tensor:
    """[h, n, e] -> [j, h/j n, e]: query heads that share a key head become rows of one matrix."""
    return x.reshape(j, -1, x.shape[-1])


def _scores(rows: Tensor, keys: Tensor) -> Tensor:
    """`rows @ keys.mT`, [j, r, d] and [j, s, d] -> [j, r, s], in pieces of keys that stay in a core's cache."""
    s = keys.shape[1]
    whole = s - s % PIECE
    if whole <= PIECE:
        return rows @ keys.mT
    out = rows.new_empty(*rows.shape[:2], s)
    for head, row in enumerate(rows):
        pieces = keys[head, :whole].unflatten(0, (-1, PIECE))
        found = torch.bmm(row.expand(len(pieces), -1, -1), pieces.mT)
        out[head, :, :whole].unflatten(1, (-1, PIECE)).copy_(found.transpose(0, 1))
    out[..., whole:] = rows @ keys[:, whole:].mT
    return out


def _mixed(shares: Tensor, values: Tensor) -> Tensor:
    """`shares @ values`, [j, r, s] and [j, s, e] -> [j, r, e], in the same pieces."""
    s = values.shape[1]
    whole = s - s % PIECE
    if whole <= PIECE:
        return shares @ values
    out = shares[..., whole:] @ values[:, whole:]
    for head, share in enumerate(shares):
        pieces = share[:, :whole].unflatten(1, (-1, PIECE)).transpose(0, 1)
        out[head] += torch.bmm(pieces, values[head, :whole].unflatten(0, (-1, PIECE))).sum(0)
    return out


def split_keys_chunked(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, lengths: Tensor, scale: float, stretch: int, weights: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Out, lse and weights (empty unless asked for) as in the reference."""
    (b, h, n, _), (m, j, s, _), e = q.shape, k.shape, v.shape[-1]
    dtype = wide(q.dtype)
    out = torch.zeros(b, h, n, e, dtype=q.dtype, device=q.device)
    lse = torch.full((b, h, n), -torch.inf, dtype=dtype, device=q.device)
    share = torch.zeros((m, h, n, s) if weights else 0, dtype=dtype, device=q.device)
    for bag, row, stretches in _bags(k, starts, lengths, stretch):
        if not stretches:
            continue
        q_b = _rows(q[bag], j).to(dtype) * scale
        top = q_b.new_full((*q_b.shape[:2], 1), -torch.inf)
        total, acc = torch.zeros_like(top), q_b.new_zeros(*q_b.shape[:2], e)
        for keys in stretches:
            scores = _scores(q_b, k[row, :, keys].to(dtype))
            if weights:
                share[row, :, :, keys] = scores.view(h, n, -1)
            higher = torch.maximum(top, scores.amax(dim=-1, keepdim=True))
            fade = (top - higher).exp()
            p = scores.sub_(higher).exp_()
            total = total * fade + p.sum(dim=-1, keepdim=True)
            acc = acc * fade + _mixed(p, v[row, :, keys].to(dtype))
            top = higher
        out[bag] = (acc / total).view(h, n, e).to(q.dtype)
        lse[bag] = (top + total.log()).view(h, n)
        if weights:
            whole = slice(stretches[0].start, stretches[-1].stop)
            share[row, :, :, whole] = share[row, :, :, whole].sub_(lse[bag][..., None]).exp_()
    return out, lse, share


def split_keys_chunked_backward(
    g_out: Tensor,
    g_weights: Tensor,
    delta: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lse: Tensor,
    starts: Tensor,
    lengths: Tensor,
    scale: float,
    stretch: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v; `delta` is what every row subtracts: g_out . out + g_weights . weights - g_lse."""
    j = k.shape[1]
    dtype = wide(q.dtype)
    g_q, g_k, g_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for bag, row, stretches in _bags(k, starts, lengths, stretch):
        q_b, g_b = _rows(q[bag], j).to(dtype), _rows(g_out[bag], j).to(dtype)
        lse_b, delta_b = _rows(lse[bag][..., None], j), _rows(delta[bag][..., None], j)
        acc = torch.zeros_like(q_b)
        for keys in stretches:
            k_c, v_c = k[row, :, keys].to(dtype), v[row, :, keys].to(dtype)
            p = _scores(scale * q_b, k_c).sub_(lse_b).exp_()
            g_v[row, :, keys] = (p.mT @ g_b).to(v.dtype)
            g_p = _scores(g_b, v_c)
            if g_weights.numel():
                g_p += _rows(g_weights[row, :, :, keys], j)
            g_s = p.mul_(g_p.sub_(delta_b)).mul_(scale)
            g_k[row, :, keys] = (g_s.mT @ q_b).to(k.dtype)
            acc += _mixed(g_s, k_c)
        g_q[bag] = acc.view(q.shape[1:]).to(q.dtype)
    return g_q, g_k, g_v
