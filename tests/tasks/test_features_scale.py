"""Features at scale: a slide of 60,000 x 60,000 pixels in bounded memory, and a cluster that loses a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from data.slides.generated import stained, write_slide, write_sparse_slide
from tasks.experiment.engine import WorkerDied, stream
from tasks.survival.features import extract

SETTINGS = {"grid": {"patch": 64}, "tissue": {"smallest": 2000.0}}
MEASURE = """
import sys, threading, time, psutil
from pathlib import Path
from tasks.survival.features import extract
me, peak = psutil.Process(), [0]

def watch():
    while True:
        family = [me, *me.children(recursive=True)]
        total = 0
        for process in family:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                pass
        peak[0] = max(peak[0], total)
        time.sleep(0.05)

threading.Thread(target=watch, daemon=True).start()
code, rows = extract(Path(sys.argv[1]), Path(sys.argv[2]), jobs=2, share=sys.argv[3])
print(code, rows[0].patches, round(rows[0].seconds), peak[0] >> 20)
"""


def measured(slide: Path, out: Path, share: str) -> tuple[int, int, int, int]:
    """Exit code, patches, seconds and peak megabytes of all processes together."""
    run = [sys.executable, "-c", MEASURE, str(slide), str(out), share]
    said = subprocess.run(run, check=True, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2])
    code, patches, seconds, megabytes = map(int, said.stdout.split())
    return code, patches, seconds, megabytes


def die(number: int) -> int:
    """Kill this process for one of the numbers."""
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_a_call_that_kills_its_process_fails_alone():
    found = dict(stream(die, [(n,) for n in range(5)], jobs=2))
    assert isinstance(found.pop(2), WorkerDied)
    assert found == {0: 0, 1: 1, 3: 9, 4: 16}


def test_a_large_slide_is_read_in_little_memory(tmp_path: Path):
    slide = write_sparse_slide(tmp_path / "large.svs", 16384, [(2048, 2048, 4096)])
    code, patches, _, megabytes = measured(slide, tmp_path / "out", "regions")
    assert code == 0
    assert patches == 64
    assert megabytes < 1500


@pytest.mark.slow
def test_a_slide_of_60000_pixels_stays_under_one_and_a_half_gigabytes(tmp_path: Path):
    slide = write_sparse_slide(tmp_path / "huge.svs", 60000, [(10240, 10240, 8192), (40960, 30720, 6144)])
    for share in ("regions", "slides"):
        code, patches, seconds, megabytes = measured(slide, tmp_path / share, share)
        print(f"{share}: {patches} patches, {seconds} s, {megabytes} MB")
        assert code == 0
        assert patches == 256 + 144
        assert megabytes < 1500


@pytest.mark.slow
@pytest.mark.cluster
def test_a_killed_dask_worker_loses_nothing(tmp_path: Path):
    slides = tmp_path / "slides"
    slides.mkdir()
    for index in range(6):
        write_slide(slides / f"s{index}.svs", stained(900, 700, index), (1.0, 2.0), 0.5)
    extract(slides, tmp_path / "alone", SETTINGS, jobs=1, share="slides")
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path, "env": env}
    address = "tcp://127.0.0.1:18786"
    dask = [
        sys.executable,
        "-m",
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "18786",
        "--no-dashboard",
    ]
    worker = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        address,
        "--nthreads",
        "1",
        "--no-dashboard",
        "--no-nanny",
    ]
    started = [subprocess.Popen(dask, **silent)]
    try:
        time.sleep(3)
        started += [subprocess.Popen(worker, **silent) for _ in range(2)]
        killed: list[str] = []

        def kill_one(line: str) -> None:
            if not killed:
                killed.append(line)
                psutil.Process(started[1].pid).kill()

        code, rows = extract(slides, tmp_path / "cluster", SETTINGS, engine=address, tell=kill_one)
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()
    assert killed
    assert code == 0
    assert [row.state for row in rows] == ["done"] * 6
    for path in (tmp_path / "alone").rglob("*.h5"):
        assert path.read_bytes() == (tmp_path / "cluster" / path.relative_to(tmp_path / "alone")).read_bytes()
    assert not list((tmp_path / "cluster").rglob("*.part"))
    assert not list((tmp_path / "cluster").rglob("*.lock"))
