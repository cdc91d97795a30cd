"""The one kernel-facing attention function: checks, the rule for plain calls, and the call of the operator."""

from __future__ import annotations

import math
import warnings
from collections.abc import Set
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kernels.attention.checks import check_attend
from kernels.attention.operator import attend_forward, choose_attend_kernel
from kernels.attention.problem import MOST_GROUPS
from kernels.bias import Bias, Dense
from kernels.dispatch import (
    WIDEST_HEAD,
    Choice,
    autocast_cast,
    check_like,
    explained_by,
    setting,
)
from kernels.masks import CAUSAL, Alignment

SMALL_MAP = 2**22


class Attended(NamedTuple):
    """Output of `attend`; what was not asked for in `want` is None."""

    out: Float[Tensor, "b h n e"]
    lse: Float[Tensor, "b h n"] | None = None
    entropy: Float[Tensor, "b h n"] | None = None
    peak: Float[Tensor, "b h n"] | None = None
    mass: Float[Tensor, "b h s"] | None = None
    group_mass: Float[Tensor, "b h n g"] | None = None
    group_out: Float[Tensor, "b h n g e"] | None = None


def _plain_refusals(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    keep: Tensor | None = None,
    lengths: Tensor | None = None,
    segments: tuple[Tensor, Tensor] | None = None,
    bias: Bias | Tensor | None = None,
    causal: Alignment | None = None,
    window: int | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    groups: Tensor | None = None,
    mass_probe: Tensor | None = None,
    want: Set[str] = frozenset(),
    **_ignored: Any,
) -> list[str]:
    """Why scaled_dot_product_attention cannot serve a call without building the map or losing an extra."""
    reasons = []
    b, h, n, d = q.shape
    _, j, s, e = v.shape
    for name, option in (
        ("segments", segments),
        ("bias", bias),
        ("window", window),
        ("groups", groups),
        ("seed", seed),
        ("mass_probe", mass_probe),
    ):
        if option is not None:
            reasons.append(f"sdpa: does not take {name}")
    if want:
        reasons.append(f"sdpa: does not give {', '.join(sorted(want))}")
    if q.device.type == "cuda" and (keep is not None or lengths is not None):
        reasons.append("sdpa: a key mask would cost it its fast kernels")
    if causal is not None and (n != s or keep is not None or lengths is not None):
        reasons.append("sdpa: its causal mask is for square maps without a key mask")
    if dropout and b * h * n * s > SMALL_MAP:
        reasons.append("sdpa: with dropout it builds the map, which is large here")
    if 0 in q.shape or 0 in v.shape:
        reasons.append("sdpa: an input is empty")
    if q.device.type == "cpu" and (d != e or j != h):
        reasons.append("sdpa: on the CPU it builds the map when d != e or when key heads are shared")
    return reasons


def choose_attend(q: Tensor, k: Tensor, v: Tensor, *, relative: Tensor | None = None, **options: Any) -> Choice:
    """The backend of `attend` with these arguments."""
    if relative is not None:
        from kernels.relative_attention.op import choose_relative

        return choose_relative(q, k, v)
    refusals = _plain_refusals(q, k, v, **options)
    if setting() in ("auto", "sdpa") and not refusals:
        return Choice("sdpa")
    choice = choose_attend_kernel(q, v)
    return Choice(choice.backend, (*refusals, *choice.reasons))


@explained_by(choose_attend)
def attend(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b j s d"],
    v: Float[Tensor, "b j s e"],
    *,
    scale: float | None = None,
    keep: Bool[Tensor, "b s"] | None = None,
    lengths: Int[Tensor, " b"] | None = None,
    segments: tuple[Int[Tensor, "b n"], Int[Tensor, "b s"]] | None = None,
    bias: Bias | Tensor | None = None,
    relative: Tensor | None = None,
    causal: Alignment | None = None,
    window: int | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    groups: Int[Tensor, "b s"] | None = None,
    group_count: int = MOST_GROUPS,
    mass_probe: Float[Tensor, "b h s"] | None = None,
    want: Set[str] = frozenset(),
) -> Attended:
    """Softmax attention with masks, biases and statistics of who looked where, without an n x s map in memory.

    out_i = sum_j p_ij v_j,  p_ij = softmax_j(scale q_i.k_j + bias_ij) over the keys that query i meets.
    A query that meets no key gives out = 0, lse = -inf and zero gradients.

    Args:
        q: queries, any strides with a contiguous last dimension; 16-, 32- or 64-bit floats
        k: keys; `j` key heads are shared by `h / j` query heads each
        v: values
        scale: factor on `q.k`; default `1 / sqrt(d)`
        keep: keys that exist
        lengths: only the first `lengths[b]` keys exist
        segments: segment of each query and of each key; a query reads only keys of its own segment
        bias: an object of `kernels.bias`, or a table broadcastable to `[b, h, n, s]`
        relative: a table `[h or 1, distances, d]` that scores `q_i.(k_j + table[i - j])`, served by
            `kernels.relative_attention`; needs causal="bottom-right"
        causal: keys up to the query's own position; "bottom-right" puts the last query on the last (valid) key
        window: keys at most this many positions from the query's own position (see `kernels.masks.Masks`)
        dropout: probability of dropping a weight from `out` and `group_out`; statistics see all weights
        seed: key of the dropout mask, which then depends on (seed, b, h, i, j) alone; default: drawn by torch
        groups: group of each key, 0..group_count-1; a key of any other number is in no group
        group_count: number of groups, at most 8
        mass_probe: float32 zeros (float64 for float64 inputs) that require grad: what arrives in their gradient is
            no derivative but the mass each key received, which the backward pass has at hand at no extra cost
        want: extras, any of lse, entropy, peak (largest weight), mass (sum of weights each key receives), group_mass,
            group_out (both per group)

    Returns:
        `Attended`; statistics are float32 (float64 for float64 inputs).

    Saved for backward: inputs, `out`, `lse` and the wanted row statistics, O(L). Two runs give the same bits.
    Backends: scaled_dot_product_attention for calls without extras, Triton for head widths to 256, else chunked torch.

    Raises:
        ValueError: an argument does not fit; the text names it, what was found and what to pass.
    """
    masked = keep is not None or lengths is not None or segments is not None or causal is not None
    other = bias is not None or relative is not None or window is not None or seed is not None or groups is not None
    other = other or mass_probe is not None
    if not (want or dropout or masked or other) and _fits_plain(q, k, v):
        return Attended(F.scaled_dot_product_attention(q, k, v, scale=scale))
    check_attend(q, k, v, keep, lengths, segments, causal, window, dropout, groups, group_count, mass_probe, want)
    if relative is not None:
        return _relative(
            q, k, v, relative, scale, keep, causal, (lengths, segments, bias, window, groups, mass_probe), want
        )
    b, h, n, s = *q.shape[:3], k.shape[2]
    if isinstance(bias, Tensor):
        bias = Dense(bias[(None,) * (4 - bias.ndim)])
    if bias is not None:
        check_like("attend", "q", q, dtype=False, bias=bias.tensors[0])
        bias.check(b, h, n, s)
    options: dict[str, Any] = {
        "keep": keep, "lengths": lengths, "segments": segments, "bias": bias, "causal": causal,
        "window": window, "dropout": dropout, "seed": seed, "groups": groups, "mass_probe": mass_probe, "want": want,
    }  # fmt: skip
    if setting() in ("auto", "sdpa") and not _plain_refusals(q, k, v, **options):
        return Attended(_plain(q, k, v, scale, keep, lengths, causal is not None, dropout))
    if q.device.type == "cuda" and max(q.shape[-1], v.shape[-1]) > WIDEST_HEAD:
        warnings.warn(
            f"attend: head width {max(q.shape[-1], v.shape[-1])} is beyond the Triton kernels' {WIDEST_HEAD}; "
            "running in chunked torch",
            stacklevel=2,
        )
    q, k, v = autocast_cast(q, k, v)
    bias_tensors = [*(bias.tensors if bias is not None else ()), None, None]
    out, lse, entropy, peak, _, mass, group_mass, group_out = attend_forward(
        q, k, v, keep, lengths, *(segments or (None, None)), groups, *bias_tensors[:2], _key(seed, dropout, q),
        None, None, mass_probe,
        1.0 / math.sqrt(max(q.shape[-1], 1)) if scale is None else float(scale),
        bias.kind if bias is not None else 0, bias.numbers if bias is not None else [],
        CAUSAL[causal], -1 if window is None else window, float(dropout), group_count, ",".join(sorted(want)),
    )  # fmt: skip
    given = {"lse": lse, "entropy": entropy, "peak": peak, "mass": mass}
    given |= {"group_mass": group_mass, "group_out": group_out}
    return Attended(out, **{name: given[name] for name in want})


def _fits_plain(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Cheap enough to precede every plain call; anything odd goes on to the named checks."""
    if q.ndim != 4 or k.ndim != 4:
        return False
    (b, h, n, d), keys = q.shape, k.shape
    return (
        keys == (b, h, keys[2], d)
        and keys == v.shape
        and 0 not in (b, h, n, d, keys[2])
        and q.dtype == k.dtype == v.dtype
        and q.device == k.device == v.device
        and q.is_floating_point()
        and setting() in ("auto", "sdpa")
    )


def _plain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | None,
    keep: Tensor | None,
    lengths: Tensor | None,
    causal: bool,
    dropout: float,
) -> Tensor:
    if lengths is not None:
        in_length = torch.arange(k.shape[2], device=k.device) < lengths[:, None]
        keep = in_length if keep is None else keep & in_length
    mask = None if keep is None else keep[:, None, None, :]
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, scale=scale, dropout_p=dropout, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
    )
    return out if keep is None else torch.where(keep.any(dim=1)[:, None, None, None], out, 0.0)


def _key(seed: int | Tensor | None, dropout: float, q: Tensor) -> Tensor | None:
    if not dropout:
        return None
    if seed is None:
        return torch.randint(2**62, (1,), device=q.device)
    return (
        seed.reshape(1).to(q.device, torch.int64) if isinstance(seed, Tensor) else torch.tensor([seed], device=q.device)
    )


def _relative(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    relative: Tensor,
    scale: float | None,
    keep: Tensor | None,
    causal: Alignment | None,
    unsupported: tuple[Any, ...],
    want: Set[str],
) -> Attended:
    if any(x is not None for x in unsupported) or want - {"lse"} or causal != "bottom-right":
        raise ValueError(
            "attend: relative serves causal='bottom-right' with keep and want={'lse'} only; "
            "for other options pass bias=kernels.bias.Relative1D"
        )
    from kernels.relative_attention.op import relative_attend

    out, lse = relative_attend(q, k, v, relative, scale=scale, keep=keep)
    return Attended(out, lse if want else None)
