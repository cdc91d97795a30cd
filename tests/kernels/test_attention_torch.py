"""`attend` inside the rest of torch: operator checks, compile, export, checkpoint, autocast, memory, dispatch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from kernels.attention import attend
from kernels.attention.operator import attend_forward
from kernels.bias import Dense, PerKey
from kernels.dispatch import explain
from kernels.received_mass import received_mass
from kernels.received_mass.op import _op as mass_operator

WANT = frozenset({"lse", "entropy", "mass"})


def _leaves(n: int = 6, s: int = 10) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, 2, m, 8, requires_grad=True) for m in (n, s, s)]


def test_the_operators_pass_torchs_own_checks() -> None:
    q, k, v = _leaves()
    bias = torch.randn(1, 2, 1, 10, requires_grad=True)
    flat = (
        None,
        torch.tensor([7]),
        None,
        None,
        None,
        bias,
        None,
        None,
        None,
        None,
        torch.zeros(1, 2, 10, requires_grad=True),
        0.3,
        1,
        [],
        1,
        -1,
        0.0,
        8,
        "entropy,lse,mass,peak",
    )
    torch.library.opcheck(attend_forward, (q, k, v, *flat))
    weight = torch.rand(1, 2, 1, 6, requires_grad=True)
    torch.library.opcheck(mass_operator, (q, k, weight, None, None, None, None, 0.3, 0, [], 0, -1))


def _loss(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    read = attend(q, k, v, causal="top-left", bias=PerKey(k[:, :, :, 0]), want=WANT)
    return read.out.sum() + read.entropy.sum() + (read.mass**2).sum()


def test_compiled_and_checkpointed_gradients_equal_eager_ones() -> None:
    leaves = _leaves()
    eager = torch.autograd.grad(_loss(*leaves), leaves)
    compiled = torch.compile(_loss, fullgraph=True, backend="aot_eager")
    for kind in (compiled, lambda *x: checkpoint(_loss, *x, use_reentrant=False)):
        for a, b in zip(torch.autograd.grad(kind(*leaves), leaves), eager, strict=True):
            torch.testing.assert_close(a, b)


def test_a_module_exports_and_fake_tensors_have_real_shapes() -> None:
    class Reader(torch.nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            read = attend(q, k, v, window=3, want=WANT)
            return read.out + read.entropy[..., None]

    leaves = tuple(x.detach() for x in _leaves(10))
    exported = torch.export.export(Reader(), leaves)
    torch.testing.assert_close(exported.module()(*leaves), Reader()(*leaves))
    real = attend(*leaves, window=3, want=WANT)
    with FakeTensorMode() as mode:
        fake = attend(*(mode.from_tensor(x) for x in leaves), window=3, want=WANT)
    for a, b in zip(fake, real, strict=True):
        assert (a is None) == (b is None)
        assert a is None or (a.shape, a.dtype) == (b.shape, b.dtype)


def test_autocast_reaches_inside_the_operator() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        read = attend(*_leaves(), want=WANT)
    assert read.out.dtype == torch.bfloat16
    assert read.lse is not None
    assert read.lse.dtype == torch.float32


def test_autocast_does_not_round_inside_the_operator() -> None:
    """The log-sum-exp and masses of 16-bit inputs are those of float64 to float32's accuracy, not to bfloat16's."""
    halves = [x.detach().bfloat16() for x in _leaves(40, 60)]
    exact = attend(*(x.double() for x in halves), want=WANT)
    mass = received_mass(halves[0].double(), halves[1].double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        read = attend(*halves, want=WANT)
        found = received_mass(halves[0], halves[1])
    for ours, truth in ((read.lse, exact.lse), (read.mass, exact.mass), (read.entropy, exact.entropy), (found, mass)):
        torch.testing.assert_close(ours, truth.float(), rtol=2e-6, atol=2e-6)


def test_explain_names_the_backend_and_what_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delenv("FUSION_KERNELS", raising=False)
    q, k, v = _leaves()
    assert explain(attend, q, k, v).backend == "sdpa"
    choice = explain(attend, q, k, v, want=WANT)
    assert choice.backend == "chunked"
    assert any("does not give entropy, lse, mass" in reason for reason in choice.reasons)
    assert explain(received_mass, q, k).backend == "chunked"
    monkeypatch.setenv("FUSION_KERNELS", "reference")
    assert explain(attend, q, k, v).backend == "reference"
    torch.testing.assert_close(attend(q, k, v).out, F.scaled_dot_product_attention(q, k, v))
    monkeypatch.setenv("FUSION_KERNELS", "triton")
    with pytest.raises(
        RuntimeError, match=r"tensors are on the CPU and TRITON_INTERPRET is not set.*FUSION_KERNELS=auto"
    ):
        attend(q, k, v)
    monkeypatch.setenv("FUSION_KERNELS", "fast")
    with pytest.raises(ValueError, match="FUSION_KERNELS='fast' is unknown; use one of auto, triton, sdpa, reference"):
        attend(q, k, v)


BAD = {
    "rank": (lambda q, k, v: attend(q[0], k, v), r"q has shape .* expected \[b, h, n, d\]"),
    "dtype": (
        lambda q, k, v: attend(q, k.double(), v),
        r"k is torch.float64 but q is torch.float32; pass k.to\(q.dtype\)",
    ),
    "integers": (lambda q, k, v: attend(q.long(), k, v), r"q is torch.int64; expected float16.*pass q.float\(\)"),
    "device": (lambda q, k, v: attend(q, k.to("meta"), v), r"k is on meta but q is on cpu"),
    "width": (lambda q, k, v: attend(q, k[..., :4], v), r"k has shape .* expected \[b, j, s, d\]"),
    "keys": (lambda q, k, v: attend(q, k, v[:, :, :3]), r"v has shape .* expected \[b, j, s, e\]"),
    "heads": (
        lambda q, k, v: attend(q.repeat(1, 2, 1, 1)[:, :3], k, v),
        "k has 2 heads, which must divide the 3 heads",
    ),
    "keep": (lambda q, k, v: attend(q, k, v, keep=torch.ones(1, 10)), r"keep is torch.float32; expected torch.bool"),
    "keep size": (
        lambda q, k, v: attend(q, k, v, keep=torch.ones(1, 9) > 0),
        r"keep has shape \[1, 9\]; expected \[b, s\]",
    ),
    "lengths": (lambda q, k, v: attend(q, k, v, lengths=torch.ones(1)), r"lengths is torch.float32; expected integers"),
    "causal": (lambda q, k, v: attend(q, k, v, causal="left"), "causal='left' is unknown; use 'top-left'"),
    "window": (lambda q, k, v: attend(q, k, v, window=-1), "window=-1; expected at least 0"),
    "dropout": (lambda q, k, v: attend(q, k, v, dropout=1.0), "dropout=1.0; expected 0 <= dropout < 1"),
    "want": (lambda q, k, v: attend(q, k, v, want=frozenset({"map"})), r"want has \['map'\]; expected names among lse"),
    "groups": (lambda q, k, v: attend(q, k, v, want=frozenset({"group_mass"})), "also pass groups"),
    "group count": (lambda q, k, v: attend(q, k, v, group_count=9, want=WANT), "group_count=9; expected 1 to 8 groups"),
    "probe": (
        lambda q, k, v: attend(q, k, v, mass_probe=torch.zeros(1, 2, 9)),
        r"mass_probe has shape \[1, 2, 9\]; expected \[b, h, s\]",
    ),
    "probe dtype": (
        lambda q, k, v: attend(q, k, v, mass_probe=torch.zeros(1, 2, 10, dtype=torch.float16)),
        "mass_probe is torch.float16; expected torch.float32",
    ),
    "bias": (
        lambda q, k, v: attend(q, k, v, bias=Dense(torch.ones(1, 1, 5, 5))),
        r"bias table has shape \[1, 1, 5, 5\]",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_is_named_with_what_works(case: str) -> None:
    call, text = BAD[case]
    with pytest.raises(ValueError, match=text):
        call(*_leaves())


MEMORY = """
import resource, torch
torch.set_num_threads(1)
from kernels.attention import attend
q, k, v = (torch.randn(1, 1, 16384, 16, requires_grad=True) for _ in range(3))
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
small = [x[:, :, :512].detach().requires_grad_() for x in (q, k, v)]
want = frozenset({"entropy", "mass"})
def run(*x):
    read = attend(*x, want=want)
    (read.out.sum() + read.entropy.sum() + read.mass.square().sum()).backward()
run(*small)
before = peak()
run(q, k, v)
print(peak() - before)
"""


def test_sixteen_thousand_tokens_need_no_map() -> None:
    """The map alone would take 1024 MB."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", MEMORY], cwd=root, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 160
