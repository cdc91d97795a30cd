"""K3: a few queries over very many keys, for equal rows or for ragged bags packed without padding."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kernels.dispatch import (
    Choice,
    autocast_cast,
    check_floating,
    check_like,
    check_shape,
    explained_by,
    register,
    select,
    triton_refusals,
)
from kernels.precision import as_given
from kernels.split_keys.chunked import split_keys_chunked, split_keys_chunked_backward, stretch_of
from kernels.split_keys.reference import SplitAttended, split_keys_reference, wide
from kernels.split_keys.tiles import most_rows, piece_length


def choose_split_keys(q: Tensor, k: Tensor, v: Tensor, *_: object, **__: object) -> Choice:
    """Triton where it can run and the rows of a key head fit one program, else chunked torch."""
    refusals = triton_refusals(q, q.shape[-1], v.shape[-1])
    if q.dtype == torch.float64:
        refusals.append("triton: sums are float32, float64 was given")
    rows = q.shape[2] * (q.shape[1] // k.shape[-3 if k.dim() == 4 else 1])
    if rows > (most := most_rows(q.dtype, max(q.shape[-1], v.shape[-1]))):
        refusals.append(f"triton: {rows} query rows per key head exceed {most}; attend serves many queries")
    return select("split_attend", ("triton", refusals), ("chunked", ()), ("reference", ()))


def _check_bags(k: Tensor, starts: Tensor, lengths: Tensor) -> None:
    fits = (starts >= 0) & (lengths >= 0) & (starts + lengths <= k.shape[2])
    if fits.device.type != "cpu":
        torch._assert_async(fits.all(), "split_attend: a bag reaches outside the keys")
    elif not fits.all():
        bag = int(fits.to(torch.uint8).argmin())
        first, last = int(starts[bag]), int(starts[bag] + lengths[bag])
        raise ValueError(
            f"split_attend: bag {bag} covers keys {first} to {last} but there are {k.shape[2]}; "
            "lengths must lie in 0..s, offsets must not fall and must end at t"
        )


def _piece(q: Tensor, k: Tensor, splits: int | None) -> int:
    if splits is not None:
        return max(1, -(-k.shape[2] // splits))
    if q.device.type != "cuda":
        return stretch_of(q, k)
    keys = k.shape[0] * k.shape[2]
    return piece_length(keys, k.shape[1], torch.cuda.get_device_properties(q.device).multi_processor_count)


def _forward(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, lengths: Tensor, scale: float, splits: int | None, weights: bool
) -> tuple[Tensor, Tensor, Tensor]:
    _check_bags(k, starts, lengths)
    backend = choose_split_keys(q, k, v).backend
    if q.numel() == 0 or backend == "reference":
        found = split_keys_reference(q, k, v, starts, lengths, scale) if q.shape[0] else None
        if found is None or found.weights is None:
            return _fake(q, k, v, starts, lengths, scale, splits, weights)
        return found.out, found.lse, found.weights if weights else found.lse.new_empty(0)
    if backend == "triton":
        from kernels.split_keys.triton import split_keys_triton

        return split_keys_triton(q, k, v, starts, lengths, scale, _piece(q, k, splits), weights)
    return split_keys_chunked(q, k, v, starts, lengths, scale, _piece(q, k, splits), weights)


def _fake(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, lengths: Tensor, scale: float, splits: int | None, weights: bool
) -> tuple[Tensor, Tensor, Tensor]:
    (b, h, n, _), (m, _, s, _) = q.shape, k.shape
    dtype = wide(q.dtype)
    share = q.new_empty((m, h, n, s) if weights else (0,), dtype=dtype)
    return q.new_empty(b, h, n, v.shape[-1]), q.new_empty(b, h, n, dtype=dtype), share


def _backward(
    g_out: Tensor, g_weights: Tensor, delta: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor,
    starts: Tensor, lengths: Tensor, scale: float, splits: int | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    arguments = (g_out, g_weights, delta, q, k, v, lse, starts, lengths, scale, _piece(q, k, splits))
    if q.numel() and choose_split_keys(q, k, v).backend == "triton":
        from kernels.split_keys.triton import split_keys_triton_backward

        return split_keys_triton_backward(*arguments)
    return split_keys_chunked_backward(*arguments)


def _backward_fake(
    g_out: Tensor, g_weights: Tensor, delta: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor,
    starts: Tensor, lengths: Tensor, scale: float, splits: int | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    q, k, v, starts, lengths, ctx.scale, ctx.splits, _ = inputs
    ctx.save_for_backward(q, k, v, starts, lengths, *output)


def _gradients(ctx, g_out, g_lse, g_weights):  # type: ignore[no-untyped-def]
    q, k, v, starts, lengths, out, lse, weights = ctx.saved_tensors
    delta = (g_out.to(lse.dtype) * out.to(lse.dtype)).sum(-1) - g_lse
    if weights.numel():
        per_key = g_weights * weights
        if k.shape[0] > 1 or q.shape[0] == 1:
            delta = delta + per_key.sum(-1)
        else:
            running = torch.nn.functional.pad(per_key[0].cumsum(-1, dtype=torch.float64), (1, 0))
            within = running[..., starts + lengths] - running[..., starts]
            delta = delta + within.permute(2, 0, 1).to(delta.dtype)
    grads = _backward_op(g_out, g_weights, delta, q, k, v, lse, starts, lengths, ctx.scale, ctx.splits)
    return (*grads, None, None, None, None, None)


_backward_op = register("split_keys_backward", as_given(_backward), fake=_backward_fake)
_op = register("split_keys", as_given(_forward), fake=_fake, setup=_setup, backward=_gradients)


def _check(op: str, q: Tensor, k: Tensor, v: Tensor, heads: int, splits: int | None, want: AbstractSet[str]) -> None:
    check_floating(op, "q", q)
    check_like(op, "q", q, dtype=not torch.is_autocast_enabled(q.device.type), k=k, v=v)
    if heads == 0 or q.shape[1] % heads:
        raise ValueError(f"{op}: k has {heads} heads, which must divide the {q.shape[1]} heads of q")
    if splits is not None and splits < 1:
        raise ValueError(f"{op}: splits={splits}; expected at least 1, or None to choose")
    if unknown := set(want) - {"weights"}:
        raise ValueError(f"{op}: want={sorted(unknown)} is unknown; this operator gives 'weights'")


@explained_by(choose_split_keys)
def split_attend(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b j s d"],
    v: Float[Tensor, "b j s e"],
    *,
    scale: float | None = None,
    lengths: Int[Tensor, " b"] | None = None,
    splits: int | None = None,
    want: AbstractSet[str] = frozenset(),
) -> SplitAttended:
    """Softmax attention of few queries over many keys, the keys of a row shared out among programs.

    out = softmax(scale q k^T) v over the first lengths[i] keys. Each piece of keys gives a maximum, a sum and an
    unnormalised output; pieces merge exactly. Gradients for q, k, v through out, lse and weights; repeats bitwise.
    Layout: any strides, last dimension contiguous (else copied). Beyond outputs: pieces x h x n x e floats.
    Backends: triton (at most 64 query rows per key head, widths to 256), chunked torch, reference.

    Args:
        q: queries; j, the number of key heads, must divide h
        k: keys
        v: values
        scale: factor on the scores; 1/sqrt(d) by default
        lengths: number of valid keys per row, all by default; 0 gives out 0 and lse -inf
        splits: pieces per row; chosen from the device by default
        want: {"weights"} adds the softmax weights [b, h, n, s]

    Raises:
        ValueError: shapes, types or devices disagree, or a length lies outside 0..s
    """
    op = "split_attend"
    check_shape(op, "q", q, "[b, h, n, d]", None, None, None, None)
    check_shape(op, "k", k, "[b, j, s, d]", q.shape[0], None, None, q.shape[3])
    check_shape(op, "v", v, "[b, j, s, e]", q.shape[0], k.shape[1], k.shape[2], None)
    check_shape(op, "lengths", lengths, "[b]", q.shape[0])
    _check(op, q, k, v, k.shape[1], splits, want)
    check_like(op, "q", q, dtype=False, lengths=lengths)
    q, k, v = autocast_cast(q, k, v)
    starts = torch.zeros(q.shape[0], dtype=torch.long, device=q.device)
    valid = starts + k.shape[2] if lengths is None else lengths.long()
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out, lse, weights = _op(q, k, v, starts, valid, scale, splits, "weights" in want)
    return SplitAttended(out, lse, weights if "weights" in want else None)


@explained_by(choose_split_keys)
def attend_bags(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "t j d"],
    v: Float[Tensor, "t j e"],
    offsets: Int[Tensor, " edges"],
    *,
    scale: float | None = None,
    splits: int | None = None,
    want: AbstractSet[str] = frozenset(),
) -> SplitAttended:
    """`split_attend` over ragged bags laid end to end: bag i owns keys offsets[i] .. offsets[i + 1].

    No padding is read. Pieces have equal length whatever the bag, so one bag of 50,000 keys among small ones does not
    wait on one program.
    `q.expand(b, ...)` of one learned query set is read in place.

    Args:
        q: queries of every bag
        k: keys of all bags
        v: values of all bags
        offsets: b + 1 rising positions, the first 0, the last t
        scale: factor on the scores; 1/sqrt(d) by default
        splits: pieces that all keys together are cut into
        want: {"weights"} adds the softmax weights [h, n, t]

    Raises:
        ValueError: shapes, types or devices disagree, or offsets fall or leave the keys
    """
    op = "attend_bags"
    check_shape(op, "q", q, "[b, h, n, d]", None, None, None, None)
    check_shape(op, "k", k, "[t, j, d]", None, None, q.shape[3])
    check_shape(op, "v", v, "[t, j, e]", k.shape[0], k.shape[1], None)
    check_shape(op, "offsets", offsets, "[b + 1]", q.shape[0] + 1)
    _check(op, q, k, v, k.shape[1], splits, want)
    check_like(op, "q", q, dtype=False, offsets=offsets)
    q, k, v = autocast_cast(q, k, v)
    edges = offsets.long()
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    k, v = k.transpose(0, 1)[None], v.transpose(0, 1)[None]
    out, lse, weights = _op(q, k, v, edges[:-1], edges.diff(), scale, splits, "weights" in want)
    return SplitAttended(out, lse, weights[0] if "weights" in want else None)
