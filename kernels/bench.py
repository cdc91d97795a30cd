"""Time every kernel beside its peers: `python -m kernels.bench [OP] [--all] [--json]`.

CPU cases run anywhere; GPU cases run on a GPU and read "not measured" without one. Ratios are ours / best peer of the
same run, below 1 is faster. The floor is the larger of FLOPs over a matrix product's rate and bytes over a copy's rate,
both measured in the same run. Peak memory is what a call needs beyond its inputs.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from kernels.bench_cases import CASES, Case
from kernels.max_similarity import max_similarity
from kernels.timing import gpu_seconds, interleaved, usage

UNMEASURED = "not measured"


def rates(device: str) -> tuple[float, float]:
    """FLOP/s of a large matrix product and bytes/s of a copy, here and now."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    left, right = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    source = torch.ones(2**28 if device == "cuda" else 2**25, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    calls = {"product": lambda: left @ right, "copy": lambda: target.copy_(source)}
    seconds = {name: gpu_seconds(call) for name, call in calls.items()} if device == "cuda" else interleaved(calls, 3)
    return 2 * size**3 / seconds["product"], 2 * source.numel() / seconds["copy"]


def one_call(index: int, who: str) -> Callable[[], Any]:
    """The call of one party of one case, its inputs made: what the memory measurement runs in its own process."""
    x = torch.ones(2, 2, 8, requires_grad=True)
    torch.autograd.grad(max_similarity(x, x).x_to_y.sum(), x)  # what a first call loads is not a case's memory
    return CASES[index].make()[who]


def _gpu_peak_mb(call: Callable[[], Any]) -> float:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _gpu_times(calls: dict[str, Callable[[], Any]]) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds of every call, and why a peer could not run."""
    seconds, refused = {}, {}
    for name, call in calls.items():
        try:
            seconds[name] = gpu_seconds(call)
        except RuntimeError as error:
            if name == "ours":
                raise
            refused[name] = str(error).splitlines()[0]
    return seconds, refused


def measured(case: Case, rate: tuple[float, float]) -> dict[str, Any]:
    """One row of the table."""
    calls = case.make()
    refused: dict[str, str] = {}
    row: dict[str, Any] = {}
    if case.device == "cuda":
        seconds, refused = _gpu_times(calls)
        peaks = {name: _gpu_peak_mb(calls[name]) for name in seconds}
    else:
        seconds = interleaved(calls, case.repeats)
        del calls
        costs = {name: usage(one_call, CASES.index(case), name) for name in seconds}
        peaks = {name: cost.peak_mb for name, cost in costs.items()}
        row["cpu_s"] = costs["ours"].cpu_seconds
    peers = {name: value for name, value in seconds.items() if name != "ours"}
    best = min(peers, key=lambda name: peers[name]) if peers else None
    floor = max(case.flops / rate[0], case.bytes / rate[1])
    return row | {
        "ours_s": seconds["ours"],
        "peer": best,
        "peer_s": peers[best] if best else None,
        "ratio": seconds["ours"] / peers[best] if best else None,
        "peak_mb": peaks["ours"],
        "peer_peak_mb": peaks[best] if best else None,
        "floor_s": floor,
        "times_floor": seconds["ours"] / floor,
        "peers": peers,
        "refused": refused,
    }


def rows(op: str | None, everything: bool) -> Iterator[dict[str, Any]]:
    """Rows of the chosen operator: this machine's cases, or with `everything` the other device's as well."""
    here = "cuda" if torch.cuda.is_available() else "cpu"
    rate = {device: rates(device) for device in ("cpu", "cuda") if device == "cpu" or here == "cuda"}
    for case in CASES:
        if op not in (None, case.op) or (case.device != here and not everything):
            continue
        head: dict[str, Any] = {"case": case.name, "op": case.op, "device": case.device, "limit": case.limit}
        head |= {"flops": case.flops, "bytes": case.bytes}
        nothing = {"ours_s": None, "peer": None, "peer_s": None, "ratio": None, "peak_mb": None}
        yield head | (measured(case, rate[case.device]) if case.device in rate else nothing)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return UNMEASURED
    unit, factor = ("s", 1) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("us", 1e6)
    return f"{seconds * factor:.3g} {unit}"


def line(row: dict[str, Any]) -> str:
    """One row as text."""
    cells = [row["op"], row["case"], row["device"], _time(row.get("floor_s")), _time(row["ours_s"])]
    if row["ours_s"] is None:
        cells += ["", "", ""]
    else:
        cells += [f"{row['peer']} {_time(row['peer_s'])}" if row["peer"] else "none fits"]
        cells += [f"{row['ratio']:.2f}" if row["ratio"] else "", f"{row['peak_mb']:.0f} MB"]
    return " | ".join([*cells, row["limit"]])


def environment() -> tuple[str, dict[str, str]]:
    """The device that cases run on here, and the versions that matter."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = f"cpu, {torch.get_num_threads()} threads, {platform.machine()}"
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    return device, versions | {"triton": import_module("triton").__version__ if find_spec("triton") else "absent"}


def run(op: str | None = None, everything: bool = True) -> dict[str, Any]:
    """Run the bench.

    Args:
        op: operator whose cases to run; all by default
        everything: the other device's cases as well; where that device is absent their cells are None

    Returns:
        bench, device, versions and rows of case, ours_s, peer, peer_s, ratio (ours / peer), peak_mb, floor and more
    """
    device, versions = environment()
    return {"bench": "attention", "device": device, "versions": versions, "rows": list(rows(op, everything))}


def main(arguments: list[str] | None = None) -> int:
    ops = sorted({case.op for case in CASES})
    parser = argparse.ArgumentParser(prog="kernels.bench", description="Time the kernels beside their peers.")
    parser.add_argument("op", nargs="?", choices=ops, metavar="OP", help=f"one of {', '.join(ops)}; default all")
    parser.add_argument("--all", action="store_true", help="the GPU's cases as well, or on a GPU the CPU's")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    given = parser.parse_args(arguments)
    if given.json:
        print(json.dumps(run(given.op, given.all), indent=1))
        return 0
    device, versions = environment()
    print(f"{device}; {', '.join(f'{name} {number}' for name, number in versions.items())}; ratio = ours / best peer")
    print("op | case | device | floor | ours | best peer | ratio | beyond inputs | bar")
    for row in rows(given.op, given.all):
        print(line(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
