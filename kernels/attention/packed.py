"""Attention over sequences of different lengths laid end to end: one launch, no padding."""

from __future__ import annotations

import math
from collections.abc import Set

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kernels.attention.op import Attended, attend
from kernels.attention.operator import attend_forward, choose_attend_kernel
from kernels.bias import ALiBi, Relative1D
from kernels.dispatch import Choice, autocast_cast, check_floating, check_like, check_shape, explained_by
from kernels.masks import CAUSAL, Alignment

EXTRAS = ("lse", "entropy", "peak", "mass")


def choose_packed(q: Tensor, k: Tensor, v: Tensor, *_: Tensor, **__: object) -> Choice:
    """The backend of `attend_packed` with these arguments."""
    return choose_attend_kernel(q, v)


@explained_by(choose_packed)
def attend_packed(
    q: Float[Tensor, "n h d"],
    k: Float[Tensor, "s j d"],
    v: Float[Tensor, "s j e"],
    query_ends: Int[Tensor, " b_1"],
    key_ends: Int[Tensor, " b_1"],
    *,
    scale: float | None = None,
    bias: Relative1D | ALiBi | None = None,
    causal: Alignment | None = None,
    window: int | None = None,
    want: Set[str] = frozenset(),
) -> Attended:
    """`attend` for sequences of different lengths laid end to end, without padding.

    The kernels take all sequences in one launch: a tile visits the keys of the sequences it touches. Elsewhere the
    sequences are read one after another.

    Args:
        q: queries of all sequences
        k: keys of all sequences
        v: values of all sequences
        query_ends: cumulative query counts, `[0, n_1, n_1 + n_2, ...]`
        key_ends: cumulative key counts
        scale: factor on `q.k`; default `1 / sqrt(d)`
        bias: a bias by distance; distances count within each sequence
        causal: as for `attend`, within each sequence
        window: as for `attend`, within each sequence
        want: extras, any of lse, entropy, peak, mass

    Returns:
        `Attended` with `out` `[n, h, e]`, row statistics `[n, h]`, mass `[s, h]`.

    Raises:
        ValueError: an argument does not fit; the text names it.
    """
    _check(q, k, v, query_ends, key_ends, bias, causal, window, want)
    q, k, v = autocast_cast(q, k, v)
    if choose_attend_kernel(q, v).backend != "triton":
        bounds = zip(
            query_ends.tolist(), query_ends.tolist()[1:], key_ends.tolist(), key_ends.tolist()[1:], strict=False
        )
        reads = []
        for q0, q1, k0, k1 in bounds:
            parts = (x.transpose(0, 1)[None] for x in (q[q0:q1], k[k0:k1], v[k0:k1]))
            reads.append(attend(*parts, scale=scale, bias=bias, causal=causal, window=window, want=want))
        joined = {
            name: torch.cat([getattr(read, name)[0].transpose(0, 1) for read in reads]) for name in ("out", *want)
        }
        return Attended(**joined)
    own, theirs = (_numbers(ends, total) for ends, total in ((query_ends, q.shape[0]), (key_ends, k.shape[0])))
    out, lse, entropy, peak, _, mass, _, _ = attend_forward(
        *(x.transpose(0, 1)[None] for x in (q, k, v)), None, None, own, theirs, None,
        bias.tensors[0] if bias is not None else None, None, None, query_ends, key_ends, None,
        1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale),
        bias.kind if bias is not None else 0, bias.numbers if bias is not None else [],
        CAUSAL[causal], -1 if window is None else window, 0.0, 1, ",".join(sorted(want)),
    )  # fmt: skip
    given = {"lse": lse, "entropy": entropy, "peak": peak, "mass": mass}
    return Attended(out[0].transpose(0, 1), **{name: given[name][0].transpose(0, 1) for name in want})


def _numbers(ends: Int[Tensor, " b_1"], total: int) -> Int[Tensor, "1 total"]:
    """The sequence each position is in."""
    sequences = torch.arange(len(ends) - 1, device=ends.device)
    return torch.repeat_interleave(sequences, ends.diff(), output_size=total)[None]


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_ends: Tensor,
    key_ends: Tensor,
    bias: object,
    causal: Alignment | None,
    window: int | None,
    want: Set[str],
) -> None:
    op = "attend_packed"
    check_shape(op, "q", q, "[n, h, d]", None, None, None)
    check_floating(op, "q", q)
    check_shape(op, "k", k, "[s, j, d]", None, None, q.shape[2])
    check_shape(op, "v", v, "[s, j, e]", k.shape[0], k.shape[1], None)
    check_like(op, "q", q, dtype=not torch.is_autocast_enabled(q.device.type), k=k, v=v)
    check_like(op, "q", q, dtype=False, query_ends=query_ends, key_ends=key_ends)
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(f"{op}: k has {k.shape[1]} heads, which must divide the {q.shape[1]} heads of q")
    for name, ends, total in (("query_ends", query_ends, q.shape[0]), ("key_ends", key_ends, k.shape[0])):
        fits = ends.ndim == 1 and len(ends) == len(query_ends) >= 2 and not ends.is_floating_point()
        if not fits or int(ends[0]) != 0 or int(ends[-1]) != total or bool((ends.diff() < 0).any()):
            raise ValueError(f"{op}: {name}={ends.tolist()} must rise from 0 to {total}, one more entry than sequences")
    if bias is not None and not isinstance(bias, Relative1D | ALiBi):
        raise ValueError(f"{op}: bias is {type(bias).__name__}; expected a bias by distance, Relative1D or ALiBi")
    if causal not in CAUSAL:
        raise ValueError(f"{op}: causal={causal!r} is unknown; use 'top-left', 'bottom-right' or None")
    if window is not None and window < 0:
        raise ValueError(f"{op}: window={window}; expected at least 0")
    if unknown := set(want) - set(EXTRAS):
        raise ValueError(f"{op}: want has {sorted(unknown)}; expected names among {', '.join(EXTRAS)}")
