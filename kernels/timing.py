"""Timing that can be compared: candidates take turns and each keeps its best.

CPU time and peak memory come from a fresh process.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch


class Usage(NamedTuple):
    """What one call cost in a process of its own."""

    seconds: float
    cpu_seconds: float
    peak_mb: float  # resident memory above what was resident when the inputs were ready


def gpu_seconds(call: Callable[[], Any], repeats: int = 20) -> float:
    """Median time of one call on the GPU, after three warm ones, with the second-level cache cleared between calls."""
    flush = torch.empty(64 * 2**20, dtype=torch.int32, device="cuda")
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return sorted(times)[len(times) // 2]


def interleaved(calls: Mapping[str, Callable[[], Any]], repeats: int = 5) -> dict[str, float]:
    """Best wall-clock seconds of every call; the calls take turns, so a busy moment meets all of them.

    Each call runs often enough in its turn to last about 20 ms.
    """
    inner = {}
    for name, call in calls.items():
        call()
        begin = time.perf_counter()
        call()
        inner[name] = max(1, min(1000, int(0.02 / max(time.perf_counter() - begin, 1e-7))))
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(repeats):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(inner[name]):
                call()
            best[name] = min(best[name], (time.perf_counter() - begin) / inner[name])
    return best


def _resident_kb(field: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))


def _measure(prepare: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...], threads: int, pipe: Any) -> None:
    torch.set_num_threads(threads)
    call = prepare(*arguments)
    with open("/proc/self/clear_refs", "w") as clear:  # restart the peak: making the inputs may have used more
        clear.write("5")
    before, cpu, begin = _resident_kb("VmRSS"), time.process_time(), time.perf_counter()
    kept = call()
    seconds, used = time.perf_counter() - begin, time.process_time() - cpu
    peak = (_resident_kb("VmHWM") - before) / 1024
    del kept
    pipe.send(Usage(seconds, used, peak))


def usage(prepare: Callable[..., Callable[[], Any]], *arguments: Any, threads: int | None = None) -> Usage:
    """Run `prepare(*arguments)()` once in a fresh process and return the cost of the inner call, its result included.

    Args:
        prepare: importable function that makes the inputs and returns the call to measure
        arguments: passed to it
        threads: torch threads there; this process's number by default
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(prepare, arguments, threads or torch.get_num_threads(), theirs))
    child.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        child.join()
        raise RuntimeError(f"timing: {prepare.__name__}{arguments} ended with exit code {child.exitcode}") from None
    finally:
        child.join()
