"""Every operator by its definition: in plain loops, or in the words of its paper, one number at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fusion.attention import MultiHead
from fusion.operators import (
    AcrossPhrases,
    Dense,
    JointSoftmax,
    Nystrom,
    Phrase,
    Relative,
    WithinPhrase,
    ZeroPaddedNystrom,
)
from fusion.tokens import Place, Tokens

B, N, S, W, H = 2, 7, 9, 16, 4
Score = Callable[[int, int, int, int], float | Tensor | None]


def some_tokens(rng: torch.Generator, n: int, *, padded: bool = True, width: int = W) -> Tokens:
    """Tokens with every place filled in; the second item ends in two padding tokens."""
    keep = torch.ones(B, n, dtype=torch.bool)
    if padded:
        keep[1, -2:] = False
    place = Place(
        position=torch.arange(n).expand(B, n),
        segment=(torch.arange(n) // 3).expand(B, n),
        time=torch.randint(0, 12, (B, n), generator=rng).double().cumsum(1),
        grid=torch.randint(0, 6, (B, n, 2), generator=rng).double(),
    )
    return Tokens(torch.randn(B, n, width, generator=rng, dtype=torch.float64), keep, place)


def naive(op: MultiHead, query: Tokens, source: Tokens, score: Score = lambda b, h, i, j: 0.0) -> Tensor:
    """Attention by the book, one number at a time; `score` is added to q.k / sqrt(d), None = may not read."""
    q = op.to_query(query.x).unflatten(-1, (op.heads, -1))
    k, v = op.to_source(source.x).unflatten(-1, (2, op.heads, -1)).unbind(2)
    rows = torch.zeros(*q.shape, dtype=q.dtype)
    for b in range(q.shape[0]):
        for h in range(op.heads):
            for i in range(q.shape[1]):
                terms = {
                    j: q[b, i, h] @ k[b, j, h] / q.shape[-1] ** 0.5 + extra
                    for j in range(k.shape[1])
                    if source.keep[b, j] and (extra := score(b, h, i, j)) is not None
                }
                if terms:
                    weights = torch.stack(list(terms.values())).softmax(0)
                    rows[b, i, h] = weights @ v[b, list(terms), h]
    return op.out(rows.flatten(-2))


def dense_of(op: MultiHead, query: Tokens, source: Tokens | None) -> Tensor:
    """Dense attention with the weights of another operator."""
    biased = op.to_query.bias is not None
    yardstick = Dense(op.width, op.heads, head_width=op.head_width, source_width=op.source_width, bias=biased).double()
    own = yardstick.state_dict().keys()
    yardstick.load_state_dict({name: value for name, value in op.state_dict().items() if name in own})
    return yardstick(query, source).y


def past_only(b: int, h: int, i: int, j: int) -> float | None:
    return 0.0 if j <= i else None


def define_relative(op: Relative, query: Tokens, _: Tokens | None) -> Tensor:
    q = op.to_query(query.x).unflatten(-1, (H, -1))
    coordinates = {"time": query.place.time, "grid": query.place.grid, "segment": query.place.segment}
    columns = []
    for name in op.relations:
        value = coordinates[name]
        columns += list(value.unbind(-1)) if name == "grid" else [value]

    def score(b: int, h: int, i: int, j: int) -> Tensor | float | None:
        if j > i or (op.block is not None and j // op.block < i // op.block - 1):
            return None
        total = 0.0
        if op.distance is not None:
            total = total + q[b, i, h] @ op.distance[h, min(i - j, op.reach - 1)]
        for value, table in zip(columns, op.tables, strict=True):
            limit = table.shape[1] // 2
            away = int(value[b, i] - value[b, j])
            total = total + q[b, i, h] @ table[h, max(-limit, min(limit, away)) + limit]
        return total / q.shape[-1] ** 0.5

    return naive(op, query, query, score)


def define_within(op: WithinPhrase, query: Tokens, source: Tokens | None) -> Tensor:
    source = source or query
    near = (query.place.segment[:, :, None] - source.place.segment[:, None, :]).abs() <= op.reach
    y = naive(op, query, source, lambda b, h, i, j: 0.0 if near[b, i, j] else None)
    some = (near & source.keep[:, None, :]).any(-1)
    return torch.where(some[..., None], y, 0.0)


def define_across(op: AcrossPhrases, query: Tokens, source: Tokens) -> Tensor:
    def score(b: int, h: int, i: int, j: int) -> Tensor:
        away = int(query.place.segment[b, i] - source.place.segment[b, j])
        return op.away[h, max(-op.far, min(op.far, away)) + op.far]

    return naive(op, query, source, score)


def define_phrase(op: Phrase, query: Tokens, source: Tokens | None) -> Tensor:
    source = source or query
    micro = define_within(op.micro, query, source)
    if not op.with_macro:
        return micro
    number = torch.arange(op.phrases).expand(B, -1)
    asks = Tokens.full(op.asks.expand(B, op.phrases, -1), Place(segment=number))
    pooled = define_within(op.summary, asks, source)
    there = torch.stack([(source.place.segment == p).logical_and(source.keep).any(1) for p in range(op.phrases)], 1)
    macro = define_across(op.macro, query, Tokens(pooled, there, Place(segment=number)))
    return micro + torch.sigmoid(op.gate(torch.cat([query.x, macro], -1))) * macro


def define_joint(op: JointSoftmax, query: Tokens, source: Tokens | None) -> Tensor:
    if source is None:
        return naive(op, query, query)
    q = op.to_query(query.x).unflatten(-1, (H, -1))
    projections = op.to_source, op.to_source if op.to_partner is None else op.to_partner
    both = [to(t.x).unflatten(-1, (2, H, -1)) for to, t in zip(projections, (query, source), strict=True)]
    k, v = torch.cat(both, dim=1).unbind(2)
    scores = torch.einsum("bnhd,bshd->bhns", q, k) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(~torch.cat([query.keep, source.keep], 1)[:, None, None], float("-inf"))
    return op.out(torch.einsum("bhns,bshe->bnhe", scores.softmax(-1), v).flatten(-2))


def define_nystrom(op: Nystrom, query: Tokens, source: Tokens) -> Tensor:
    """Every item alone, padding cut off, runs by position; the inverse in its textbook form."""
    rows = torch.zeros(B, query.x.shape[1], op.width, dtype=torch.float64)
    for b in range(B):
        order = source.place.position[b][source.keep[b]].argsort()
        x = source.x[b][source.keep[b]][order]
        run = torch.arange(len(x)) * op.landmarks // len(x)
        means = torch.stack([x[run == r].mean(0) for r in range(op.landmarks)])
        heads = []
        for h in range(op.heads):
            columns = slice(h * op.head_width, (h + 1) * op.head_width)

            def attention(asking: Tensor, asked: Tensor, columns: slice = columns) -> Tensor:
                q, k = op.to_query(asking)[:, columns], op.to_source(asked)[:, columns]
                return (q @ k.T / op.head_width**0.5).softmax(-1)

            a = attention(means, means)
            inverse = torch.linalg.inv(a.T @ a + op.ridge * torch.eye(op.landmarks)) @ a.T
            v = op.to_source(x)[:, op.heads * op.head_width :][:, columns]
            heads.append(attention(query.x[b], means) @ inverse @ attention(means, x) @ v)
        rows[b] = op.out(torch.cat(heads, -1))
    return rows


def define_zero_padded(op: ZeroPaddedNystrom, query: Tokens, _: Tokens | None) -> Tensor:
    """Steps (i) to (vi) of the CMTA sheet, zero tokens and all."""
    n = query.x.shape[1]
    fill = -n % op.landmarks
    x = torch.cat([query.x.new_zeros(B, fill, W), query.x], 1)
    k, v = op.to_source(x).unflatten(-1, (2, H, -1)).permute(2, 0, 3, 1, 4)
    q = op.to_query(x).unflatten(-1, (H, -1)).transpose(1, 2) * op.head_width**-0.5
    q_mean, k_mean = (t.unflatten(2, (op.landmarks, -1)).mean(3) for t in (q, k))
    first, a, last = ((s @ t.mT).softmax(-1) for s, t in ((q, k_mean), (q_mean, k_mean), (q_mean, k)))
    z = a.mT / (a.sum(-1).amax((1, 2)) * a.sum(-2).amax((1, 2)))[:, None, None, None]
    eye = torch.eye(op.landmarks, dtype=torch.float64)
    for _ in range(op.steps):
        z = z @ (13 * eye - a @ z @ (15 * eye - a @ z @ (7 * eye - a @ z))) / 4
    padded = torch.nn.functional.pad(v, (0, 0, op.kernel // 2, op.kernel // 2))
    filtered = sum(op.filter[:, t, None, None] * padded[:, :, t : t + n + fill] for t in range(op.kernel))
    return op.out((first @ z @ (last @ v) + filtered).transpose(1, 2).flatten(-2)[:, fill:])
