"""SIGKILL at any step and at random moments; what is resumed ends like what was never disturbed."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.faults import work
from tests.faults.interrupt import Work, chosen, done, killed_after, killed_at, seconds_of, steps_of

Results = Callable[[Path], object]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["test"])


def survives_every_step(begin: Callable[[Path], Work], results: Results, place: Path, most: int, tally: Counter[str]):
    """Kill a fresh piece of work at each of its steps in turn; each time resume it."""
    whole = place / "whole"
    steps = steps_of(begin(whole), place)
    wanted = results(whole)
    for step in chosen(steps, most, seed=20261125):
        folder = place / f"step{step}"
        assert killed_at(begin(folder), place, step), f"step {step} of {steps} was not reached"
        done(begin(folder))
        assert results(folder) == wanted, f"killed at step {step} of {steps}"
        tally["kills survived, at a step"] += 1


def survives_moments(begin: Callable[[Path], Work], results: Results, place: Path, kills: int, tally: Counter[str]):
    """Kill one piece of work again and again at random moments, then let it end."""
    whole, folder, pick = place / "whole in time", place / "hunted", random.Random(20261125)
    length = seconds_of(begin(whole))
    for _ in range(kills):
        if killed_after(begin(folder), pick.uniform(0, 0.8 * length)):
            tally["kills survived, at a moment"] += 1
    done(begin(folder))
    assert results(folder) == results(whole)


def test_training(tmp_path: Path, tally: Counter[str]):
    config = work.write_study(tmp_path)

    def begin(folder: Path) -> Work:
        return lambda: work.must_finish(work.study(folder, config))

    survives_every_step(begin, work.contents, tmp_path, 40, tally)
    survives_moments(begin, work.contents, tmp_path, 12, tally)
    assert not list(tmp_path.rglob("*.ckpt")), "finished units need no checkpoints"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_sweep_of_units(jobs: int, tmp_path: Path, tally: Counter[str]):
    def begin(folder: Path) -> Work:
        return lambda: work.must_finish(work.sweep(folder, jobs=jobs))

    if jobs == 1:
        survives_every_step(begin, work.contents, tmp_path, 25, tally)
    survives_moments(begin, work.contents, tmp_path, 12 if jobs == 1 else 4, tally)


def test_features_of_slides(tmp_path: Path, tally: Counter[str]):
    slides = work.write_slides(tmp_path / "slides")

    def begin(folder: Path) -> Work:
        return partial(work.extracted, slides, folder)

    survives_every_step(begin, work.contents, tmp_path, 40, tally)
    survives_moments(begin, work.contents, tmp_path, 12, tally)
    left = [p for p in tmp_path.rglob("*") if p.name.endswith((".part", ".lock", ".tmp")) or p.name == ".locks"]
    assert left == []


def test_building_of_an_index(tmp_path: Path, tally: Counter[str]):
    def begin(folder: Path) -> Work:
        return partial(work.indexed, folder)

    survives_every_step(begin, work.index_of, tmp_path, 60, tally)
    survives_moments(begin, work.index_of, tmp_path, 20, tally)


def test_a_killed_save_leaves_an_index_that_answers(tmp_path: Path, tally: Counter[str]):
    """Not only after resuming: between any two steps the folder holds the old index or the new one."""
    whole = tmp_path / "whole"
    done(partial(work.indexed, whole, 1))
    old = work.index_of(whole)
    done(partial(work.indexed, whole, 2))
    new = work.index_of(whole)
    for step in range(200):
        work_left = tmp_path / f"s{step}"
        done(partial(work.indexed, work_left, 1))
        if not killed_at(partial(work.indexed, work_left, 2), work_left, step):
            break
        assert work.index_of(work_left) in (old, new), f"killed at step {step}"
        tally["kills survived, at a step"] += 1
    assert step > 10
