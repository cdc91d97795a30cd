"""Clocks that jump, memory that ends, workers that die."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import psutil
import pytest

from tasks.experiment.units import Unit, run_units
from tests.faults import work
from tests.faults.greedy import greedy
from tests.faults.interrupt import Work, done, ended, forked

DAY = 86_400.0


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["test"])


def jumping(begin: Work, seed: int) -> Work:
    """Work on a machine whose wall clock is set to another year at every look."""

    def mad() -> None:
        pick, real = random.Random(seed), time.time
        time.time = lambda: real() + pick.uniform(-9000, 9000) * DAY
        time.time_ns = lambda: int(time.time() * 1e9)
        begin()

    return mad


def test_clocks_that_jump(tmp_path: Path, tally: Counter[str]):
    slides, config = work.write_slides(tmp_path / "slides", 2), work.write_study(tmp_path)
    kinds = {
        "sweep": (work.sweep, work.contents),
        "study": (lambda folder: work.must_finish(work.study(folder, config)), work.contents),
        "features": (partial(work.extracted, slides), work.contents),
        "index": (work.indexed, work.index_of),
    }
    for name, (begin, results) in kinds.items():
        done(partial(begin, tmp_path / name))
        for seed in range(2):
            folder = tmp_path / f"{name}{seed}"
            done(jumping(partial(begin, folder), seed))
            done(jumping(partial(begin, folder), seed + 10))
            assert results(folder) == results(tmp_path / name)
            tally["runs under a jumping clock"] += 2


def test_a_failed_slide_is_tried_again_though_the_clock_was_set_back(tmp_path: Path):
    slides, out = work.write_slides(tmp_path / "slides", 2), tmp_path / "out"
    (slides / "s1.svs").write_bytes(b"no slide yet")

    def tomorrow() -> None:
        real = time.time
        time.time = lambda: real() + 400 * DAY
        assert work.extracted(slides, out)[0] == 1

    done(tomorrow)
    work.write_slides(slides, 2)

    def today() -> None:
        assert work.extracted(slides, out)[0] == 0

    done(today)


@pytest.mark.parametrize("jobs", [1, 2])
def test_memory_that_ends_in_one_unit_ends_that_unit(jobs: int, tmp_path: Path, tally: Counter[str]):
    ways = ["modest", "numpy", "torch", "python", *(["killed"] if jobs == 2 else []), "frugal"]
    units = [Unit(tmp_path / how, greedy, {"how": how}) for how in ways]
    outcomes = {outcome.folder.name: outcome.error for outcome in run_units(units, jobs)}
    assert outcomes.pop("modest") is None
    assert outcomes.pop("frugal") is None
    for how, error in outcomes.items():
        assert error is not None, how
        assert len(error.splitlines()) == 1
        assert "memory" in error.lower() or "allocate" in error.lower(), error
        tally["units out of memory"] += 1


def works(process: psutil.Process) -> bool:
    """Whether a process is a worker of a pool that has not just ended."""
    try:
        called = " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    return "loky" in called and "tracker" not in called


def test_workers_that_are_killed_lose_no_unit(tmp_path: Path, tally: Counter[str]):
    whole = tmp_path / "whole"
    done(lambda: work.must_finish(work.sweep(whole, 6)))
    pick = random.Random(3)
    for attempt in range(3):
        folder = tmp_path / f"hit{attempt}"
        run = forked(lambda folder=folder: work.must_finish(work.sweep(folder, 6, jobs=2)))
        deadline = time.monotonic() + 120
        hit = False
        while not hit and time.monotonic() < deadline and not (folder / "arm" / "fold5-seed1" / "done.json").exists():
            begun = list(folder.glob("arm/*/last.ckpt"))
            workers = [p for p in psutil.Process(run).children(recursive=True) if works(p)]
            if begun and workers:
                pick.choice(workers).kill()
                hit = True
            time.sleep(0.02)
        assert ended(run) == 0
        assert work.contents(folder) == work.contents(whole)
        tally["workers killed"] += hit
    assert tally["workers killed"]
