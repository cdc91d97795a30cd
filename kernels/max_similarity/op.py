"""K8: token-wise maximum similarity of all pairs of items, both directions from one score tile."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
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
from kernels.max_similarity.chunked import max_similarity_chunked, max_similarity_chunked_backward
from kernels.max_similarity.reference import Scores, max_similarity_reference, score_dtype, winner_dtype
from kernels.max_similarity.tiles import MAX_TOKENS
from kernels.precision import as_given

Reduction = Literal["mean", "sum"]
LONGEST = torch.iinfo(torch.int16).max


class MaxSimilarity(NamedTuple):
    """Scores of every item of x (rows) with every item of y (columns)."""

    x_to_y: Float[Tensor, "a b"]
    y_to_x: Float[Tensor, "a b"]


def choose_max_similarity(x: Tensor, y: Tensor, **_: object) -> Choice:
    """Triton where it can run and one item's column maxima fit into registers, else chunked torch."""
    refusals = triton_refusals(x)
    if x.dtype == torch.float64:
        refusals.append("triton: scores are accumulated in float32, float64 was given")
    if (longest := max(x.shape[1], y.shape[1])) > MAX_TOKENS:
        refusals.append(f"triton: {longest} tokens in an item, the kernel holds at most {MAX_TOKENS}")
    return select("max_similarity", ("triton", refusals), ("chunked", ()), ("reference", ()))


def _need_a_token(name: str, weight: Tensor) -> None:
    real = (weight > 0).any(dim=1)
    if weight.device.type != "cpu":
        torch._assert_async(real.all(), f"max_similarity: {name} has an item without any kept token")
    elif not real.all():
        item = int(real.to(torch.uint8).argmin())
        raise ValueError(
            f"max_similarity: {name}[{item}] keeps no token, so its score is undefined; drop the item or keep one token"
        )


def _forward(
    x: Tensor, y: Tensor, x_weight: Tensor, y_weight: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _need_a_token("x_keep", x_weight)
    _need_a_token("y_keep", y_weight)
    backend = choose_max_similarity(x, y).backend
    if backend == "triton":
        from kernels.max_similarity.triton import max_similarity_triton

        scores = max_similarity_triton(x, y, x_weight, y_weight, save)
    elif backend == "reference":
        scores = max_similarity_reference(x, y, x_weight, y_weight)
    else:
        scores = max_similarity_chunked(x, y, x_weight, y_weight, save)
    return scores.x_to_y, scores.y_to_x, scores.x_winner, scores.y_winner


def _fake(x: Tensor, y: Tensor, x_weight: Tensor, y_weight: Tensor, save: bool) -> Scores:
    (a, n, _), (b, s, _) = x.shape, y.shape
    dtype, integer = score_dtype(x.dtype), winner_dtype(n, s)
    kept = (a, b) if save else (0, 0)
    return Scores(
        x.new_empty(a, b, dtype=dtype),
        x.new_empty(a, b, dtype=dtype),
        x.new_empty(*kept, n, dtype=integer),
        x.new_empty(*kept, s, dtype=integer),
    )


def _backward(
    g_xy: Tensor, g_yx: Tensor, x: Tensor, y: Tensor, x_weight: Tensor, y_weight: Tensor,
    x_winner: Tensor, y_winner: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    backend = choose_max_similarity(x, y).backend
    if backend == "triton":
        from kernels.max_similarity.triton import max_similarity_triton_backward

        return max_similarity_triton_backward(g_xy, g_yx, x, y, x_weight, y_weight, x_winner, y_winner)
    if backend == "reference":
        with torch.enable_grad():
            left, right = x.detach().requires_grad_(), y.detach().requires_grad_()
            scores = max_similarity_reference(left, right, x_weight, y_weight)
            g_x, g_y = torch.autograd.grad(scores[:2], (left, right), (g_xy, g_yx))
            return g_x, g_y
    return max_similarity_chunked_backward(g_xy, g_yx, x, y, x_weight, y_weight, x_winner, y_winner)


def _backward_fake(
    g_xy: Tensor, g_yx: Tensor, x: Tensor, y: Tensor, x_weight: Tensor, y_weight: Tensor,
    x_winner: Tensor, y_winner: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return x.new_empty(x.shape), y.new_empty(y.shape)


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, y, x_weight, y_weight, _ = inputs
    _, _, x_winner, y_winner = output
    ctx.mark_non_differentiable(x_winner, y_winner)
    ctx.save_for_backward(x, y, x_weight, y_weight, x_winner, y_winner)


def _gradients(ctx, g_xy, g_yx, *_):  # type: ignore[no-untyped-def]
    return (*_backward_op(g_xy, g_yx, *ctx.saved_tensors), None, None, None)


_backward_op = register("max_similarity_backward", as_given(_backward), fake=_backward_fake)
_op = register("max_similarity", as_given(_forward), fake=_fake, setup=_setup, backward=_gradients)


def _weights(tokens: Tensor, keep: Tensor | None, reduce: Reduction) -> Tensor:
    """Weight of every token in its item's score: 0 for padding, else 1 or 1 / number of real tokens."""
    if keep is None:
        weight = torch.ones(tokens.shape[:2], dtype=score_dtype(tokens.dtype), device=tokens.device)
    else:
        weight = keep.to(score_dtype(tokens.dtype))
    return weight / weight.sum(dim=1, keepdim=True).clamp_min(1) if reduce == "mean" else weight


def _check(x: Tensor, y: Tensor, x_keep: Tensor | None, y_keep: Tensor | None, reduce: str) -> None:
    op = "max_similarity"
    check_floating(op, "x", x)
    check_shape(op, "x", x, "[a, n, d]", None, None, None)
    check_shape(op, "y", y, "[b, s, d]", None, None, x.shape[2])
    check_like(op, "x", x, dtype=not torch.is_autocast_enabled(x.device.type), y=y)
    check_like(op, "x", x, dtype=False, x_keep=x_keep, y_keep=y_keep)
    check_shape(op, "x_keep", x_keep, "[a, n]", *x.shape[:2])
    check_shape(op, "y_keep", y_keep, "[b, s]", *y.shape[:2])
    for name, keep in (("x_keep", x_keep), ("y_keep", y_keep)):
        if keep is not None and keep.dtype != torch.bool:
            raise ValueError(f"{op}: {name} is {keep.dtype}; expected bool, True = a real token")
    for name, tokens in (("x", x), ("y", y)):
        if not 1 <= tokens.shape[1] <= LONGEST:
            raise ValueError(f"{op}: {name} has {tokens.shape[1]} tokens an item; 1 to {LONGEST} can be scored")
    if reduce not in ("mean", "sum"):
        raise ValueError(f"{op}: reduce={reduce!r} is unknown; use 'mean' or 'sum'")


@explained_by(choose_max_similarity)
def max_similarity(
    x: Float[Tensor, "a n d"],
    y: Float[Tensor, "b s d"],
    *,
    x_keep: Bool[Tensor, "a n"] | None = None,
    y_keep: Bool[Tensor, "b s"] | None = None,
    reduce: Reduction = "mean",
) -> MaxSimilarity:
    """Let every token pick its best partner on the other side and average the picks, for all pairs of items.

    x_to_y[i,j] = mean over kept t of max over kept u of x[i,t] . y[j,u];  y_to_x[i,j] = mean over u of max over t.
    The lowest position wins ties, and its gradient. Tokens are used as given: normalise them for cosine similarity.

    Saved for backward: inputs and, per pair, one winner per token (1 byte up to 256 tokens, else 2). No pair map is
    ever built. Repeats bitwise. Backends: triton (items up to 1,024 tokens), chunked torch, reference.

    Args:
        x: tokens of the left items; float16, bfloat16, float32 or float64
        y: tokens of the right items, same type and device
        x_keep: True for real tokens; every item needs one
        y_keep: the same for y
        reduce: "mean" (FILIP) or "sum" (ColBERT) over the tokens that pick

    Returns:
        both score tables, float32 (float64 for float64 tokens)

    Raises:
        ValueError: shapes, types or devices disagree, or an item keeps no token (on a GPU: a device-side assertion)
    """
    _check(x, y, x_keep, y_keep, reduce)
    x, y = autocast_cast(x, y)
    save = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
    scores = _op(x, y, _weights(x, x_keep, reduce), _weights(y, y_keep, reduce), save)
    return MaxSimilarity(scores[0], scores[1])
