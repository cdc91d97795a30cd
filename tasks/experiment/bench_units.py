"""What a unit costs beyond its own work: processes of this machine, and workers of a Dask scheduler on loopback.

Each case runs units of known length on two workers that have just been asked for. Overhead of a unit is the time the
workers spent on neither: (workers x wall - sum of the units' own seconds) / units, the start of the workers included.
"""

from __future__ import annotations

import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.experiment.units import Unit, run_units

WORKERS = 2
SECONDS, COUNT = 5.0, 10
IDLE_COUNT = 20
WANTED = {"joblib": 0.3, "Dask": 0.6}
WALL_WANTED = 30.0


def work(folder: Path, seconds: float, busy: bool) -> dict[str, Any]:
    """Sleep for some seconds, or compute until they are over."""
    end = time.perf_counter() + seconds
    if not busy:
        time.sleep(seconds)
    while time.perf_counter() < end:
        sum(range(1000))
    return {}


def measure(engine: str, seconds: float, busy: bool, count: int) -> dict[str, Any]:
    """One row: so many units on new workers."""
    with tempfile.TemporaryDirectory(prefix="fusion-bench-") as folder, _workers(engine) as address:
        units = [Unit(Path(folder) / f"u{i}", work, {"seconds": seconds, "busy": busy}) for i in range(count)]
        start = time.perf_counter()
        outcomes = list(run_units(units, WORKERS, address))
        wall = time.perf_counter() - start
    assert not any(outcome.error for outcome in outcomes), outcomes
    own = sum(outcome.seconds for outcome in outcomes)
    overhead = (WORKERS * wall - own) / count
    what = (
        f"{count} units of {seconds:g} s, {'computing' if busy else 'sleeping'}" if seconds else f"{count} empty units"
    )
    return {
        "case": f"{engine}: {what}",
        "ours_s": round(wall, 2),
        "peer": f"the units' own seconds over {WORKERS} workers",
        "peer_s": round(own / WORKERS, 2),
        "ratio": round(wall * WORKERS / own, 3),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "overhead_s": round(overhead, 3),
        "wanted_s": WANTED[engine],
        "ok": overhead < WANTED[engine] and (not seconds or wall <= WALL_WANTED),
    }


@contextmanager
def _workers(engine: str) -> Iterator[str | None]:
    """New processes, or a scheduler that already has its workers, as a cluster would."""
    if engine == "joblib":
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)
        yield None
        return
    from distributed import LocalCluster

    with LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=":0", protocol="tcp") as cluster:
        cluster.wait_for_workers(WORKERS)
        yield cluster.scheduler_address


def run() -> dict[str, Any]:
    """Empty units, units that sleep and units that compute, on both engines."""
    cases = ((0.0, False, IDLE_COUNT), (SECONDS, False, COUNT), (SECONDS, True, COUNT))
    rows = [measure(engine, *case) for engine in WANTED for case in cases]
    load = Path("/proc/loadavg").read_text().split()[0] if Path("/proc/loadavg").is_file() else "unknown"
    return {
        "bench": "units",
        "device": f"{WORKERS} workers, {platform.machine()}, load {load} at the end",
        "versions": {"python": platform.python_version()},
        "rows": rows,
    }
