"""Every row of the tile table compiles for sm_80 and sm_90 and fits there, without a GPU.

A row that names a reason for spilling does spill, in some launch on some device; a row without one never does.
"""

from __future__ import annotations

import os
from itertools import product

import pytest

from kernels.ahead import SHARED_LIMIT
from kernels.tile_rows import Row
from kernels.tile_table import ROWS
from kernels.tune import DTYPES, FAMILIES, WIDTHS, compiled

# The narrow rows of attention meet every option of `attend`: a sample of them is in test_attention_ahead_of_time.py.
QUICK = ("split", "relative", "max_similarity")
NARROW = [row for row in ROWS if row.kernel.startswith(QUICK) and (row.bits, row.width) == (16, 64)]

pytestmark = [
    pytest.mark.aot,
    pytest.mark.skipif(
        os.environ.get("TRITON_INTERPRET") == "1", reason="compiling needs a process without the interpreter"
    ),
]


def _name(row: Row) -> str:
    return f"{row.kernel}-{row.bits}-{row.width}"


@pytest.mark.parametrize("row", NARROW, ids=_name)
def test_a_narrow_row_of_every_kernel_compiles_and_fits(row: Row) -> None:
    reports = compiled(row, (90,))
    assert reports
    assert all(report.fits for report in reports)
    assert not row.note


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=_name)
def test_a_row_fits_and_spills_exactly_when_it_says_so(row: Row) -> None:
    reports = compiled(row)
    assert {report.arch for report in reports} == {80, 90}
    for report in reports:
        assert report.shared <= SHARED_LIMIT[report.arch]
    stack = max(report.stack for report in reports)
    assert (stack > 0) == bool(row.note), f"spills {stack} B a thread; the row says {row.note!r}"


def test_every_kernel_has_a_row_for_every_type_and_width() -> None:
    kernels = {row.kernel for row in ROWS}
    assert kernels == set(FAMILIES)
    assert {(row.kernel, row.bits, row.width) for row in ROWS} == set(product(kernels, DTYPES, WIDTHS))
