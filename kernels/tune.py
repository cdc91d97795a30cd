"""Write the static tile table: `python -m kernels.tune [KERNEL ...]`.

For every row the candidates are compiled ahead of time for compute capability 8.0 and 9.0. Without a GPU the present
row stays when it is clean (fits, no stack), else the first clean candidate in order of size takes its place; when none
is, the one with the least stack stays and the row says so. A candidate beyond a device's shared memory is never taken.
With a GPU the clean candidates are timed and the fastest is written. Rows for one Triton version stay as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch

from kernels import tile_rows, tile_table
from kernels.ahead import SHARED_LIMIT, Compiled, Launch, compile_launch, recorded
from kernels.tile_rows import Row
from kernels.timing import gpu_seconds

ARCHES = (80, 90)
TABLE = Path(tile_table.__file__)
WIDTHS = (64, 128, 256)
DTYPES = {16: torch.bfloat16, 32: torch.float32}


def relative(row: Row, device: str = "cpu") -> list[Launch]:
    """Launches of the K5 kernels at the row's width and type."""
    from kernels.relative_attention import triton, triton_backward

    d, dtype, n = row.width, DTYPES[row.bits], 64 if device == "cpu" else 2048
    q = torch.zeros(1, 8, n, d, dtype=dtype, device=device)
    table, rows = torch.zeros(8, n, d, dtype=dtype, device=device), torch.zeros(1, 8, n, device=device)
    start = torch.zeros(1, dtype=torch.long, device=device)
    with recorded(triton, triton_backward) as launches:
        triton.relative_attention_triton(q, q, q, table, None, start, 0, 0.125)
        triton.relative_attention_triton(q[:, :, :1], q, q, table, None, start, 0, 0.125)
        triton_backward.relative_attention_triton_backward(q, rows, q, q, q, table, None, start, rows, 0, 0.125)
    return launches


def split(row: Row, device: str = "cpu") -> list[Launch]:
    """Launches of the K3 kernels at the row's width and type, for few and for the most query rows."""
    from kernels.split_keys import triton
    from kernels.split_keys.tiles import most_rows

    d, dtype, s = row.width, DTYPES[row.bits], 128 if device == "cpu" else 50_000
    starts = torch.zeros(2, dtype=torch.long, device=device)
    k = torch.zeros(2, 1, s, d, dtype=dtype, device=device)
    launches: list[Launch] = []
    for n in (6, most_rows(dtype, d)):
        q, rows = torch.zeros(2, 1, n, d, dtype=dtype, device=device), torch.zeros(2, 1, n, device=device)
        with recorded(triton) as found:
            triton.split_keys_triton(q, k, k, starts, starts + s, 0.125, 256, False)
            triton.split_keys_triton_backward(q, rows.new_empty(0), rows, q, k, k, rows, starts, starts + s, 0.125, 256)
        launches += found
    return launches


def max_similarity(row: Row, device: str = "cpu") -> list[Launch]:
    """Launches of the K8 kernels: the specification's 196 x 32 tokens and a long right side."""
    from kernels.max_similarity import triton

    d, dtype, a = row.width, DTYPES[row.bits], 4 if device == "cpu" else 256
    launches: list[Launch] = []
    for n, s in ((196, 32), (64, 200)):
        x, y = (torch.zeros(a, size, d, dtype=dtype, device=device) for size in (n, s))
        x_weight, y_weight, g = (torch.ones(a, size, device=device) for size in (n, s, a))
        x_winner, y_winner = (torch.zeros(a, a, size, dtype=torch.uint8, device=device) for size in (n, s))
        with recorded(triton) as found:
            triton.max_similarity_triton(x, y, x_weight, y_weight, True)
            triton.max_similarity_triton_backward(g, g, x, y, x_weight, y_weight, x_winner, y_winner)
        launches += found
    return launches


def attention(row: Row, device: str = "cpu") -> list[Launch]:
    """Launches of the K1 and K2 kernels at the row's width and type."""
    from kernels.attention.launches import attention as started

    return started(row, device)


FAMILIES: dict[str, tuple[Callable[..., list[Launch]], str]] = {
    "attend_fwd": (attention, "attend_forward_kernel"),
    "attend_groups": (attention, "attend_groups_kernel"),
    "received_mass": (attention, "received_mass_kernel"),
    "attend_dq": (attention, "attend_backward_q_kernel"),
    "attend_dkv": (attention, "attend_backward_kv_kernel"),
    "attend_bias": (attention, "attend_backward_bias_kernel"),
    "relative_fwd": (relative, "_relative_fwd_kernel"),
    "relative_step": (relative, "_relative_step_kernel"),
    "relative_dq": (relative, "_relative_bwd_dq_kernel"),
    "relative_dkv": (relative, "_relative_bwd_dkv_kernel"),
    "relative_table": (relative, "_relative_bwd_table_kernel"),
    "split_fwd": (split, "_split_keys_fwd_kernel"),
    "split_bwd": (split, "_split_keys_bwd_kernel"),
    "max_similarity_fwd": (max_similarity, "_max_similarity_fwd_kernel"),
    "max_similarity_bwd": (max_similarity, "_max_similarity_bwd_kernel"),
}


def candidates(kernel: str, bits: int, width: int) -> list[Row]:
    """Tiles worth trying, the largest first."""
    shapes: list[tuple[tuple[int, ...], int]]
    if kernel.startswith("max_similarity"):
        features = min(width, 128 if bits == 16 else 32)
        tiles = [(128, 64), (64, 64), (64, 32), (32, 32)] if kernel.endswith("fwd") else [(64, 32), (32, 32), (32, 16)]
        shapes = [((n, s, f), 4) for f in (features, features // 2) for n, s in tiles]
    elif kernel.startswith(("attend", "received")):
        pairs = ((128, 64), (64, 64), (64, 32), (32, 64), (32, 32), (32, 16), (16, 32), (16, 16))
        shapes = [(pair, warps) for pair in pairs[0 if bits == 16 else 4 :] for warps in (4, 8)]
    elif kernel == "relative_step":
        shapes = [((64,), 4), ((32,), 4), ((16,), 4)]
    else:
        edges = (64, 32, 16) if bits == 16 else (32, 16)
        shapes = [((edge,), warps) for edge in edges for warps in (4, 8)]
    return [
        Row(kernel, bits, width, blocks, warps, s) for blocks, warps in shapes for s in ((2, 1) if bits == 16 else (1,))
    ]


@contextmanager
def using(row: Row):  # type: ignore[no-untyped-def]
    """Inside, launches of the row's kernel, type and width take this row."""
    before = tile_table.ROWS
    same = {(row.kernel, row.bits, row.width)}
    others = tuple(r for r in before if (r.kernel, r.bits, r.width) not in same)
    tile_table.ROWS = (*others, row)
    tile_rows.tile_row.cache_clear()
    try:
        yield
    finally:
        tile_table.ROWS = before
        tile_rows.tile_row.cache_clear()


def compiled(row: Row, arches: tuple[int, ...] = ARCHES) -> list[Compiled]:
    """Every launch of the row's kernel, compiled for every architecture."""
    collect, name = FAMILIES[row.kernel]
    with using(row):
        launches = [launch for launch in collect(row) if launch.kernel.__name__ == name]
    return [compile_launch(launch, arch) for launch in launches for arch in arches]


def seconds(row: Row) -> float:
    """Time of the row's kernel on the GPU of this machine."""
    collect, name = FAMILIES[row.kernel]
    with using(row):
        launches = [launch for launch in collect(row, "cuda") if launch.kernel.__name__ == name]
    return sum(gpu_seconds(launch.start) for launch in launches)


def best(kernel: str, bits: int, width: int) -> Row:
    """The row to write for one kernel, type and width."""
    present = [r for r in tile_table.ROWS if (r.kernel, r.bits, r.width, r.minor) == (kernel, bits, width, 0)]
    stacks: dict[Row, int] = {}
    clean: list[Row] = []
    for row in dict.fromkeys([*(r._replace(note="") for r in present), *candidates(kernel, bits, width)]):
        reports = compiled(row)
        if any(report.shared > SHARED_LIMIT[report.arch] for report in reports):
            continue
        stacks[row] = max(report.stack for report in reports)
        if all(report.fits for report in reports):
            clean.append(row)
            if not torch.cuda.is_available():
                break
    if not stacks:
        raise RuntimeError(
            f"tune: no tile of {kernel} with {bits}-bit numbers of width {width} fits; add smaller candidates"
        )
    if not clean:
        least = min(stacks, key=lambda row: stacks[row])
        why = "exact float32 products hold operands in registers" if bits == 32 else "the width fills the registers"
        return least._replace(note=f"spills {stacks[least]} B a thread: {why}")
    return min(clean, key=seconds) if torch.cuda.is_available() else clean[0]


def written(rows: list[Row]) -> str:
    """The table as a Python file."""
    head = TABLE.read_text().split("ROWS: tuple")[0]
    lines = []
    for row in rows:
        fields = [repr(value) for value in row[:6]]
        fields += [f"minor={row.minor}"] if row.minor else []
        fields += [f'note="{row.note}"'] if row.note else []
        lines.append(f"    Row({', '.join(fields)}),\n".replace("'", '"'))
    return f"{head}ROWS: tuple[Row, ...] = (\n{''.join(lines)})\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="kernels.tune", description="Write the static tile table.")
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=f"default all of: {', '.join(FAMILIES)}")
    chosen = parser.parse_args(arguments).kernels or list(FAMILIES)
    if unknown := set(chosen) - set(FAMILIES):
        parser.error(f"unknown kernel {', '.join(sorted(unknown))}; known: {', '.join(FAMILIES)}")
    print("timed on", torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU: chosen by compiling only")
    rows = [row for row in tile_table.ROWS if row.kernel not in chosen or row.minor]
    for kernel in chosen:
        for bits in DTYPES:
            for width in WIDTHS:
                rows.append(best(kernel, bits, width))
                print(*rows[-1], flush=True)
    order = list(FAMILIES)
    rows.sort(key=lambda row: (order.index(row.kernel), row.bits, row.width, row.minor))
    TABLE.write_text(written(rows))
    print(f"wrote {len(rows)} rows to {TABLE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
