"""The error criterion of the kernels: against float64, bounded by what eager torch of the same type reaches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

CAPS = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}
GRADIENT_CAPS = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
# float32: a log-sum-exp kept in base 2 is rounded three times; over a few rows that was seen to reach 7.3e-7.
FLOORS = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 8e-4, torch.bfloat16: 8e-3}


def error(found: Tensor, exact: Tensor) -> float:
    """Relative error in norm; both must be infinite or NaN at the same places."""
    found, exact = found.detach().double(), exact.detach()
    assert torch.equal(found.isfinite(), exact.isfinite())
    real = exact.isfinite()
    return float((found - exact)[real].norm() / exact[real].norm().clamp_min(1e-30))


def assert_exact_enough(
    operator: Callable[..., Sequence[Tensor]],
    definition: Callable[..., Sequence[Tensor]],
    leaves: Sequence[Tensor],
    dtype: torch.dtype,
    cancelling: Collection[int] = (),
) -> None:
    """Outputs and gradients of `operator(*leaves)` in `dtype` against `definition` in float64.

    Both take the leaves and return outputs in the same order; infinite outputs get no gradient.
    `cancelling`: leaves whose gradient is one number summed with signs over a whole map; rounding is five times as
    visible in them, in eager torch as well.
    """

    def run(call: Callable[..., Sequence[Tensor]], to: torch.dtype, pulls: Sequence[Tensor] | None):  # type: ignore[no-untyped-def]
        inputs = [leaf.detach().to(dtype).to(to).requires_grad_() for leaf in leaves]
        outputs = list(call(*inputs))
        if pulls is None:
            pulls = [torch.randn(out.shape, dtype=torch.float64).to(dtype) for out in outputs]
        finite = [torch.where(out.isfinite(), out, 0.0) for out in outputs]
        gradients = torch.autograd.grad(finite, inputs, [p.to(o.dtype) for p, o in zip(pulls, outputs, strict=True)])
        return outputs, [g.nan_to_num() for g in gradients], pulls

    exact, exact_gradients, pulls = run(definition, torch.float64, None)
    eager, eager_gradients, _ = run(definition, dtype, pulls)
    found, gradients, _ = run(operator, dtype, pulls)
    for caps, ours, theirs, truth in (
        (CAPS, found, eager, exact),
        (GRADIENT_CAPS, gradients, eager_gradients, exact_gradients),
    ):
        for place, (a, b, c) in enumerate(zip(ours, theirs, truth, strict=True)):
            slack = 5 if caps is GRADIENT_CAPS and place in cancelling else 1
            limit = slack * min(caps[dtype], 2 * error(b, c) + FLOORS[dtype])
            assert error(a, c) <= limit, f"{place}: {error(a, c):.2e} above {limit:.2e}"
