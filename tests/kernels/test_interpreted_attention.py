"""The laws of `attend` once more with its Triton kernels interpreted, and a guard for the interpreter's bfloat16."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LAWS = "definition or criterion or length or without_keys or empty or limits or packed or parts or merge"
FILES = {"test_attention.py": LAWS, "test_attention_contract.py": "", "test_received_mass.py": ""}
FORGETFUL = """
import torch
from kernels.attention import attend
import kernels.attention.triton as kernels
torch.manual_seed(0)
q, k, v = (torch.randn(1, 1, 16, 16).bfloat16() for _ in range(3))
exact = attend(q.double(), k.double(), v.double(), want=frozenset({"lse"})).out
def error():
    out = attend(q, k, v, want=frozenset({"lse"})).out.double()
    return float((out - exact).norm() / exact.norm())
print(error())
scope = kernels.attend_forward_kernel.fn.__globals__
scope["upcast"], scope["rounded"] = lambda x: x, lambda x, dtype: x.to(dtype)
print(error())
"""


def _interpreted(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TRITON_INTERPRET": "1", "FUSION_KERNELS": "auto", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.interpreter
@pytest.mark.parametrize("file", FILES)
def test_interpreted_attention_keeps_the_laws(file: str) -> None:
    done = _interpreted([sys.executable, "-m", "pytest", str(HERE / file), "-q", "-x", "-k", FILES[file]])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.interpreter
def test_a_kernel_that_forgets_to_upcast_bfloat16_is_caught() -> None:
    """The interpreter multiplies bfloat16 bit patterns: without `upcast` the error is not small but absurd."""
    done = _interpreted([sys.executable, "-c", FORGETFUL])
    assert done.returncode == 0, done.stderr[-2000:]
    kept, forgotten = (float(line) for line in done.stdout.split())
    assert kept < 1e-2
    assert not forgotten < 1
