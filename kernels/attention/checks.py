"""What `attend` refuses, each with the argument's name, what was found and what to pass."""

from __future__ import annotations

from collections.abc import Set

import torch
from torch import Tensor

from kernels.attention.problem import EXTRAS, MOST_GROUPS
from kernels.dispatch import check_floating, check_like, check_shape
from kernels.masks import CAUSAL, Alignment


def check_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keep: Tensor | None,
    lengths: Tensor | None,
    segments: tuple[Tensor, Tensor] | None,
    causal: Alignment | None,
    window: int | None,
    dropout: float,
    groups: Tensor | None,
    group_count: int,
    mass_probe: Tensor | None,
    want: Set[str],
) -> None:
    """Raise ValueError unless the arguments of `attend` fit one another."""
    for name, x, letters in (("q", q, "[b, h, n, d]"), ("k", k, "[b, j, s, d]"), ("v", v, "[b, j, s, e]")):
        if x.ndim != 4:
            raise ValueError(f"attend: {name} has shape {list(x.shape)}; expected {letters}, four dimensions")
        check_floating("attend", name, x)
    check_like("attend", "q", q, dtype=not torch.is_autocast_enabled(q.device.type), k=k, v=v)
    check_like("attend", "q", q, dtype=False, keep=keep, lengths=lengths, groups=groups, mass_probe=mass_probe)
    b, h, n, d = q.shape
    _, j, s, _ = k.shape
    if d == 0 or v.shape[-1] == 0:
        raise ValueError(f"attend: q has width {d} and v width {v.shape[-1]}; expected at least 1")
    check_shape("attend", "k", k, "[b, j, s, d]", b, None, None, d)
    check_shape("attend", "v", v, "[b, j, s, e]", b, j, s, None)
    if j == 0 or h % j:
        raise ValueError(f"attend: k has {j} heads, which must divide the {h} heads of q")
    check_shape("attend", "keep", keep, "[b, s]", b, s)
    if keep is not None and keep.dtype != torch.bool:
        raise ValueError(f"attend: keep is {keep.dtype}; expected torch.bool, True = use the key: pass keep.bool()")
    check_shape("attend", "lengths", lengths, "[b]", b)
    if segments is not None:
        for name, x, size in (("segments[0]", segments[0], n), ("segments[1]", segments[1], s)):
            check_shape("attend", name, x, "[b, n]" if name == "segments[0]" else "[b, s]", b, size)
            check_like("attend", "q", q, dtype=False, **{name: x})
    check_shape("attend", "groups", groups, "[b, s]", b, s)
    integers = {"lengths": lengths, "groups": groups}
    if segments is not None:
        integers |= {"segments[0]": segments[0], "segments[1]": segments[1]}
    for name, given in integers.items():
        if given is not None and (given.is_floating_point() or given.dtype == torch.bool):
            raise ValueError(f"attend: {name} is {given.dtype}; expected integers: pass {name}.long()")
    if causal not in CAUSAL:
        raise ValueError(f"attend: causal={causal!r} is unknown; use 'top-left', 'bottom-right' or None")
    if window is not None and window < 0:
        raise ValueError(f"attend: window={window}; expected at least 0, keys on either side of the query's position")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"attend: dropout={dropout}; expected 0 <= dropout < 1")
    if not 1 <= group_count <= MOST_GROUPS:
        raise ValueError(f"attend: group_count={group_count}; expected 1 to {MOST_GROUPS} groups")
    check_shape("attend", "mass_probe", mass_probe, "[b, h, s]", b, h, s)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    if mass_probe is not None and mass_probe.dtype != wide:
        raise ValueError(f"attend: mass_probe is {mass_probe.dtype}; expected {wide}: pass mass_probe.to({wide})")
    if unknown := set(want) - set(EXTRAS):
        raise ValueError(f"attend: want has {sorted(unknown)}; expected names among {', '.join(EXTRAS)}")
    if (groups is None) != (not {"group_mass", "group_out"} & set(want)):
        missing = "groups (ints from 0, [b, s])" if groups is None else "'group_mass' or 'group_out' in want"
        raise ValueError(f"attend: groups and the group extras go together; also pass {missing}")
