"""The attention kernels as their launchers start them compile for sm_80 and sm_90, fit, and spill nothing.

A sample; `test_ahead_of_time.py` compiles every row of the table with every option.
"""

from __future__ import annotations

import pytest

from kernels.ahead import SHARED_LIMIT, compile_launch
from kernels.attention.launches import HEAVY, PLAIN, launches_of, problems
from kernels.dispatch import interpreting
from kernels.tile_rows import Row

SAMPLE = [(16, 64, PLAIN, 90), (16, 64, HEAVY, 90), (16, 64, HEAVY, 80), (16, 64, "groups", 80), (32, 128, PLAIN, 80)]


@pytest.mark.aot
@pytest.mark.skipif(interpreting(), reason="compiling needs a process without the interpreter")
@pytest.mark.parametrize(("bits", "width", "call", "arch"), SAMPLE)
def test_the_launches_of_a_call_compile_and_fit(bits: int, width: int, call: str, arch: int) -> None:
    row = Row("any", bits, width, (), 0, 0)
    launches = launches_of(problems()[call], row, "cpu", 96)
    assert len({launch.kernel.__name__ for launch in launches}) >= 3
    for launch in launches:
        report = compile_launch(launch, arch)
        assert report.shared <= SHARED_LIMIT[arch]
        assert report.stack == 0, f"{report.kernel} spills {report.stack} B a thread"
        assert report.wgmma or (arch, bits) != (90, 16), f"{report.kernel} does without Hopper's matrix instructions"
