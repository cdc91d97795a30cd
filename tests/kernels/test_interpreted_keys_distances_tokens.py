"""The laws of split_keys, relative_attention and max_similarity once more, with their Triton kernels interpreted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LAWS = (
    "definition or splits_agrees or same_bits or anything or padding or first_gets or no_key or empty_bag or cache"
    " or published_skew or reads_nothing"
)


def _interpreted(file: str, laws: str) -> None:
    here = Path(__file__).parent
    # NumPy warns of NaN in padding that the kernel multiplies and then masks; a GPU says nothing.
    quiet = ["-W", "ignore:invalid value encountered in matmul:RuntimeWarning"]
    command = [sys.executable, "-m", "pytest", str(here / file), "-q", "-x", *quiet, "-k", laws]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=here.parents[1], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.interpreter
@pytest.mark.parametrize("family", ["split_keys", "relative_attention", "max_similarity"])
def test_interpreted_kernels_keep_the_laws(family: str) -> None:
    _interpreted(f"test_{family}.py", LAWS)


@pytest.mark.slow
@pytest.mark.interpreter
def test_interpreted_kernels_stay_inside_their_memory() -> None:
    _interpreted("test_keys_distances_tokens_contract.py", "poisoned or beside")
