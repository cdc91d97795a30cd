"""Which backend runs an operator and why, and the one way operators are registered.

How to add an operator (the pattern every folder of `kernels/` follows):

1. `reference.py`: the definition in plain torch, every option, float64-able.
2. `triton.py`: the kernels and their launchers. It is imported inside the branch that runs it, never at module level
   of `op.py`, so nothing of Triton is loaded where Triton is absent. Shared pieces come from `kernels.tiles`:
   `INTERP`, `LOG2E`, and `upcast(x)` after EVERY load of a possibly 16-bit float (the interpreter multiplies bfloat16
   as integers).
3. `op.py`: a public function with checks and `autocast_cast`, a rule `choose_<op>(...) -> Choice` built on `select`:

       def _forward(q: Tensor, keep: Tensor | None, scale: float) -> tuple[Tensor, Tensor]: ...
       def _backward(q: Tensor, keep: Tensor | None, scale: float, grad: Tensor) -> Tensor: ...
       _backward_op = register("thing_backward", _backward, fake=_backward_fake)
       _op = register("thing", _forward, fake=_fake, setup=_setup, backward=_gradients)

   `_gradients(ctx, *grads)` reads `ctx.saved_tensors` exactly once and calls `_backward_op`. Operator outputs never
   alias an input; an output nobody asked for is `q.new_empty(0)`, never None. The backend is chosen inside `_forward`
   (with `choose_<op>`), not in the traced public function, so `FUSION_KERNELS` is read at every call even under
   torch.compile. Decorate the public function with `@explained_by(choose_<op>)`; then
   `explain(op, *args, **kwargs)` gives the `Choice`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import torch
from torch import Tensor

from kernels.precision import as_given

Backend = Literal["triton", "sdpa", "chunked", "reference"]
Setting = Literal["auto", "triton", "sdpa", "reference"]
Function = TypeVar("Function", bound=Callable[..., Any])

WIDEST_HEAD = 256
_SETTINGS = get_args(Setting)
_TRITON_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


class NoBackend(RuntimeError):
    """No backend that `FUSION_KERNELS` allows can serve a call; the message says why, and what can."""


class Choice(NamedTuple):
    """The backend that serves a call, and why the ones before it were refused."""

    backend: Backend
    reasons: tuple[str, ...] = ()


def setting() -> Setting:
    """The value of `FUSION_KERNELS`, read now."""
    value = os.environ.get("FUSION_KERNELS", "auto")
    if value not in _SETTINGS:
        raise ValueError(f"FUSION_KERNELS={value!r} is unknown; use one of {', '.join(_SETTINGS)}")
    return value  # type: ignore[return-value]


def interpreting() -> bool:
    """Whether Triton kernels run in Triton's interpreter (set the variable before kernels are imported)."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


def triton_refusals(x: Tensor, *widths: int, widest: int = WIDEST_HEAD) -> list[str]:
    """Why the Triton kernels cannot serve a call whose main input is `x`; empty when they can.

    Args:
        x: the input that decides device and dtype
        widths: head widths the kernels would hold in one tile
        widest: the largest of them that fits
    """
    reasons = []
    if find_spec("triton") is None:
        reasons.append("triton: not installed")
    if x.device.type == "cpu" and not interpreting():
        reasons.append("triton: tensors are on the CPU and TRITON_INTERPRET is not set")
    if x.device.type == "cuda" and torch.cuda.get_device_capability(x.device) < (8, 0):
        reasons.append("triton: the device is older than compute capability 8.0")
    if x.device.type not in ("cpu", "cuda"):
        reasons.append(f"triton: no kernels for device {x.device.type}")
    if x.dtype not in _TRITON_DTYPES and not (x.dtype == torch.float64 and interpreting()):
        reasons.append(f"triton: no kernels for {x.dtype}, only float16, bfloat16, float32")
    if too_wide := [w for w in widths if w > widest]:
        reasons.append(f"triton: head width {max(too_wide)} exceeds {widest}")
    return reasons


def select(op: str, *candidates: tuple[Backend, Sequence[str]]) -> Choice:
    """Take the first candidate without refusals that `FUSION_KERNELS` allows.

    `auto` allows all, `triton` and `reference` only themselves, `sdpa` all that is neither of these two.

    Raises:
        NoBackend: the forced backend refuses, or none is left; the text lists the refusals and what works.
    """
    wanted = setting()
    reasons: list[str] = []
    works: list[str] = []
    for backend, refusals in candidates:
        allowed = wanted == "auto" or wanted == backend or (wanted == "sdpa" and backend == "chunked")
        if allowed and not refusals:
            return Choice(backend, tuple(reasons))
        reasons.extend(refusals if refusals else [f"{backend}: not allowed by FUSION_KERNELS={wanted}"])
        if not refusals:
            works.append("auto" if backend == "chunked" else backend)
    nearest = f"set FUSION_KERNELS={works[0]}" if works else "no backend can serve this call"
    raise NoBackend(f"{op}: FUSION_KERNELS={wanted} cannot be met ({'; '.join(reasons)}); {nearest}")


def explained_by(choose: Callable[..., Choice]) -> Callable[[Function], Function]:
    """Attach to a public function the rule that chooses its backend; `choose` takes the same arguments."""

    def attach(op: Function) -> Function:
        op.choose = choose  # type: ignore[attr-defined]
        return op

    return attach


def explain(op: Callable[..., Any], *args: Any, **kwargs: Any) -> Choice:
    """The backend that `op(*args, **kwargs)` would run on now, and why others were refused."""
    choose: Callable[..., Choice] | None = getattr(op, "choose", None)
    if choose is None:
        raise ValueError(
            f"explain: {op!r} is no kernel operator; pass a public function such as kernels.attention.attend"
        )
    return choose(*args, **kwargs)


def register(
    name: str,
    kernel: Callable[..., Any],
    *,
    fake: Callable[..., Any],
    setup: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Any:
    """Register `kernels::<name>` with its fake and, for a forward, its gradient. See the module docstring.

    `kernel` runs with autocast off, in the types it is given; `autocast_cast` belongs in the public function.
    """
    op = torch.library.custom_op(f"kernels::{name}", as_given(kernel), mutates_args=())
    op.register_fake(fake)
    if backward is not None:
        op.register_autograd(backward, setup_context=setup)
    return op


def autocast_cast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast floating tensors as autocast would; torch does not do so inside custom operators. float64 is left alone."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    castable = (torch.float16, torch.bfloat16, torch.float32)
    return tuple(t.to(dtype) if t.dtype in castable else t for t in tensors)


def check_like(op: str, anchor: str, reference: Tensor, *, dtype: bool = True, **tensors: Tensor | None) -> None:
    """Raise ValueError unless every tensor is on the device (and of the dtype) of `reference`, called `anchor`."""
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.device != reference.device:
            raise ValueError(
                f"{op}: {name} is on {tensor.device} but {anchor} is on {reference.device}; "
                f"pass {name}.to({anchor}.device)"
            )
        if dtype and tensor.dtype != reference.dtype:
            raise ValueError(
                f"{op}: {name} is {tensor.dtype} but {anchor} is {reference.dtype}; pass {name}.to({anchor}.dtype)"
            )


def check_floating(op: str, name: str, tensor: Tensor) -> None:
    """Raise ValueError unless `tensor` holds 16-, 32- or 64-bit floats."""
    if tensor.dtype not in (*_TRITON_DTYPES, torch.float64):
        raise ValueError(
            f"{op}: {name} is {tensor.dtype}; expected float16, bfloat16, float32 or float64: pass {name}.float()"
        )


def check_shape(op: str, name: str, tensor: Tensor | None, expected: str, *sizes: int | None) -> None:
    """Raise ValueError unless `tensor` has the given sizes; None accepts any size.

    Args:
        op: operator named in the error
        name: argument named in the error
        tensor: the argument; None passes
        expected: the shape in the alphabet of `fusion.shapes`, e.g. `[b, s]`
        sizes: one per dimension
    """
    if tensor is None:
        return
    found = tuple(tensor.shape)
    if len(found) != len(sizes) or any(
        want is not None and have != want for have, want in zip(found, sizes, strict=True)
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in sizes)
        raise ValueError(f"{op}: {name} has shape {list(found)}; expected {expected} = [{wanted}]")
