"""What split_keys, relative_attention and max_similarity may touch and must repeat, and what torch may do to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from kernels.dispatch import explain, interpreting
from kernels.max_similarity import max_similarity
from kernels.max_similarity.op import _weights
from kernels.max_similarity.reference import max_similarity_reference
from kernels.relative_attention import relative_attend
from kernels.relative_attention.reference import relative_attention_reference
from kernels.split_keys import attend_bags
from kernels.split_keys.reference import split_keys_reference
from tests.kernels.guards import assert_bands_untouched, guarded_outputs, in_nan, poisoned_memory
from tests.kernels.laws import error

OFFSETS = torch.tensor([0, 37, 37, 70])
KEYS = torch.arange(50) < torch.tensor([[50], [33]])
LEFT, RIGHT = torch.arange(20) < torch.tensor([[20], [13], [1]]), torch.arange(9) < torch.tensor([[9], [4]])


class Family(NamedTuple):
    """An operator with all its options in use: its inputs, its call, and its definition."""

    shapes: tuple[tuple[int, ...], ...]
    ours: Callable[..., list[Tensor]]
    definition: Callable[..., list[Tensor]]

    def leaves(self, rng: torch.Generator) -> list[Tensor]:
        return [normalize(torch.randn(shape, generator=rng), dim=-1) for shape in self.shapes]


def _bags(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
    found = attend_bags(q, k, v, OFFSETS.to(q.device), splits=3, want={"weights"})
    assert found.weights is not None
    return [found.out, found.lse, found.weights]


def _bags_definition(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
    starts, lengths = OFFSETS[:-1].to(q.device), OFFSETS.diff().to(q.device)
    found = split_keys_reference(q, k.transpose(0, 1)[None], v.transpose(0, 1)[None], starts, lengths, 24**-0.5)
    assert found.weights is not None
    return [found.out, found.lse, found.weights[0]]


def _relative(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> list[Tensor]:
    return list(relative_attend(q, k, v, table, keep=KEYS.to(q.device), local=16))


def _relative_definition(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> list[Tensor]:
    start = torch.full((2,), 10, device=q.device)
    return list(relative_attention_reference(q, k, v, table, KEYS.to(q.device), start, 16, 24**-0.5))


def _similarity(x: Tensor, y: Tensor) -> list[Tensor]:
    return list(max_similarity(x, y, x_keep=LEFT.to(x.device), y_keep=RIGHT.to(x.device)))


def _similarity_definition(x: Tensor, y: Tensor) -> list[Tensor]:
    weights = _weights(x, LEFT.to(x.device), "mean"), _weights(y, RIGHT.to(x.device), "mean")
    return list(max_similarity_reference(x, y, *weights)[:2])


FAMILIES = {
    "split_keys": Family(((3, 4, 3, 24), (70, 2, 24), (70, 2, 40)), _bags, _bags_definition),
    "relative_attention": Family(
        ((2, 4, 40, 24), (2, 2, 50, 24), (2, 2, 50, 8), (4, 20, 24)), _relative, _relative_definition
    ),
    "max_similarity": Family(((3, 20, 24), (2, 9, 24)), _similarity, _similarity_definition),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


def _loss(outputs: list[Tensor]) -> Tensor:
    """A sum that gives every entry a pull of its own; infinite entries none."""
    pulls = [torch.arange(x.numel(), dtype=x.dtype, device=x.device).view(x.shape).cos() for x in outputs]
    return sum(
        ((torch.where(x.isfinite(), x, 0) * p).sum() for x, p in zip(outputs, pulls, strict=True)), 0 * pulls[0].sum()
    )


def _run(call: Callable[..., list[Tensor]], leaves: list[Tensor]) -> list[Tensor]:
    """Outputs, then gradients."""
    inputs = [x.detach().requires_grad_() for x in leaves]
    outputs = list(call(*inputs))
    return [*(x.detach() for x in outputs), *torch.autograd.grad(_loss(outputs), inputs)]


def _assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_poisoned_memory_and_bands_of_nan_change_nothing(family: Family, rng: torch.Generator) -> None:
    leaves = family.leaves(rng)
    clean = _run(family.ours, leaves)
    with poisoned_memory():
        guarded = _run(family.ours, [in_nan(x) for x in leaves])
    assert not any(x.isnan().any() for x in guarded)
    _assert_same(guarded, clean)
    if interpreting():
        assert all(torch.equal(a, b) for a, b in zip(guarded, clean, strict=True))


def test_nothing_is_written_beside_the_outputs(family: Family, rng: torch.Generator) -> None:
    leaves = family.leaves(rng)
    clean = _run(family.ours, leaves)
    with guarded_outputs() as given:
        guarded = _run(family.ours, leaves)
    assert_bands_untouched(given)
    assert all(torch.equal(a, b) for a, b in zip(guarded, clean, strict=True))


def test_two_runs_give_the_same_bits(family: Family, rng: torch.Generator) -> None:
    leaves = family.leaves(rng)
    first, second = _run(family.ours, leaves), _run(family.ours, leaves)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_activation_checkpointing_changes_no_bit(family: Family, rng: torch.Generator) -> None:
    leaves = family.leaves(rng)
    plain = _run(family.ours, leaves)
    again = _run(lambda *x: checkpoint(family.ours, *x, use_reentrant=False), leaves)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


class _Module(nn.Module):
    def __init__(self, call: Callable[..., list[Tensor]]):
        super().__init__()
        self.call = call

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        return self.call(*inputs)


def test_an_exported_program_gives_the_same(family: Family, rng: torch.Generator) -> None:
    leaves = family.leaves(rng)
    program = torch.export.export(_Module(family.ours), tuple(leaves))
    _assert_same(list(program.module()(*leaves)), family.ours(*leaves))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # inductor's own
def test_inductor_gives_the_same_outputs_and_gradients(family: Family, rng: torch.Generator) -> None:
    leaves = family.leaves(rng)
    torch._dynamo.reset()
    compiled = torch.compile(family.ours, fullgraph=True)
    _assert_same(
        _run(lambda *x: [2 * out for out in compiled(*x)], leaves),
        _run(lambda *x: [2 * out for out in family.ours(*x)], leaves),
    )


CAPS = {torch.float32: (1e-5, 1e-5), torch.float16: (1e-3, 2e-3), torch.bfloat16: (1e-2, 1.5e-2)}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", CAPS)
def test_on_a_gpu_triton_meets_the_definition(family: Family, dtype: torch.dtype, rng: torch.Generator) -> None:
    leaves = [x.to("cuda", dtype) for x in family.leaves(rng)]
    exact = _run(family.definition, [x.double() for x in leaves])
    found = _run(family.ours, leaves)
    outputs = len(found) - len(leaves)
    for place, (a, b) in enumerate(zip(found, exact, strict=True)):
        limit = CAPS[dtype][place >= outputs]
        assert error(a.cpu(), b.cpu()) <= limit, f"{place}: {error(a.cpu(), b.cpu()):.2e} above {limit:.0e}"


@pytest.mark.gpu
def test_on_a_gpu_two_runs_give_the_same_bits_and_no_band_is_touched(family: Family, rng: torch.Generator) -> None:
    leaves = [x.cuda() for x in family.leaves(rng)]
    clean = _run(family.ours, leaves)
    with guarded_outputs() as given:
        guarded = _run(family.ours, [in_nan(x) for x in leaves])
    assert_bands_untouched(given)
    assert all(torch.equal(a, b) for a, b in zip(guarded, clean, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("call", [attend_bags, relative_attend, max_similarity])
def test_on_a_gpu_triton_is_chosen(call: Callable[..., object]) -> None:
    q, keys = torch.ones(1, 1, 4, 16, device="cuda"), torch.ones(9, 1, 16, device="cuda")
    arguments = {
        "attend_bags": (q, keys, keys, torch.tensor([0, 9], device="cuda")),
        "relative_attend": (q, q, q, torch.ones(1, 4, 16, device="cuda")),
        "max_similarity": (q[0], q[0]),
    }[call.__name__]
    assert explain(call, *arguments).backend == "triton"
