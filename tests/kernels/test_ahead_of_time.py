"""Tiles of split_keys, relative_attention and max_similarity compile for sm_80 and sm_90 and fit there, without a GPU.

A row that names a reason for spilling does spill, in some launch on some device; a row without one never does.
"""

from __future__ import annotations

import os

import pytest

from kernels.ahead import SHARED_LIMIT
from kernels.tile_rows import Row
from kernels.tile_table import ROWS
from kernels.tune import compiled

FAMILIES = ("split", "relative", "max_similarity")
OWN = [row for row in ROWS if row.kernel.startswith(FAMILIES)]
NARROW = [row for row in OWN if (row.bits, row.width) == (16, 64)]

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
@pytest.mark.parametrize("row", OWN, ids=_name)
def test_a_row_fits_and_spills_exactly_when_it_says_so(row: Row) -> None:
    reports = compiled(row)
    assert {report.arch for report in reports} == {80, 90}
    for report in reports:
        assert report.shared <= SHARED_LIMIT[report.arch]
    stack = max(report.stack for report in reports)
    assert (stack > 0) == bool(row.note), f"spills {stack} B a thread; the row says {row.note!r}"


def test_every_kernel_has_a_narrow_row() -> None:
    assert {row.kernel for row in NARROW} == {row.kernel for row in OWN}
