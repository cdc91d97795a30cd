"""A disk that fills up or may not be written to at any step, files that vanish or rot, folders that two want."""

from __future__ import annotations

import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from data.errors import DataError
from tasks.experiment.fit import CHECKPOINT, PREVIOUS
from tasks.experiment.folder import RunError
from tasks.experiment.inventory import fault
from tasks.retrieval import index_folder
from tests.faults import work
from tests.faults.interrupt import Steps, chosen, done, ended, forked, full, killed_at, read_only, steps_of

WORDS = {full: ("disk is full", "No space left"), read_only: ("cannot be", "Read-only", "not be written")}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["test"])


def units_said(begin: Callable[[], list[object]]) -> list[str]:
    """What went wrong with units, or with the folder of all of them."""
    try:
        return [str(outcome.error) for outcome in begin() if outcome.error is not None]  # type: ignore[attr-defined]
    except (RunError, DataError) as error:
        return [str(error)]


def slides_said(begin: Callable[[], tuple[int, list[object]]]) -> list[str]:
    """What went wrong with slides, or with the folder of features."""
    try:
        return [" ".join((r.why, *r.warnings)) for r in begin()[1] if r.why or r.warnings]  # type: ignore[attr-defined]
    except (RunError, DataError) as error:
        return [str(error)]


def index_said(begin: Callable[[], None]) -> list[str]:
    try:
        begin()
    except (RunError, DataError) as error:
        return [str(error)]
    return []


KINDS = {
    "sweep": (work.sweep, units_said, work.contents),
    "index": (work.indexed, index_said, work.index_of),
}


def told_and_resumed(
    begin: Callable[[Path], object],
    said: Callable[[Callable[[], object]], list[str]],
    results: Callable[[Path], object],
    place: Path,
    strike: Callable[[str], None],
    most: int,
) -> int:
    """Strike at each step and stay so; then the disk is well again and the work is done as if nothing had been."""
    whole = place / "whole"
    steps = steps_of(partial(begin, whole), place)
    wanted = results(whole)
    for step in chosen(steps, most, seed=11):
        folder = place / f"step{step}"

        def struck(folder: Path = folder, step: int = step) -> None:
            Steps(place, step, strike, stays=True)
            lines = said(partial(begin, folder))
            assert all(len(line.splitlines()) == 1 for line in lines), lines
            clean_up = not lines and results(folder) == wanted  # only what is tidied away at the end was left
            assert clean_up or any(word in line for word in WORDS[strike] for line in lines), (step, lines)

        assert ended(forked(struck)) == 0, f"step {step} of {steps}"
        assert not list(folder.rglob("*.tmp")), "a part of a file is left"
        done(partial(begin, folder))
        assert results(folder) == wanted, f"step {step} of {steps}"
    return len(chosen(steps, most, seed=11))


@pytest.mark.parametrize("strike", [full, read_only], ids=["full", "read only"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_disk_that_takes_nothing_more(kind: str, strike: Callable[[str], None], tmp_path: Path, tally: Counter[str]):
    begin, said, results = KINDS[kind]
    tally["steps at which the disk failed"] += told_and_resumed(begin, said, results, tmp_path, strike, 30)


@pytest.mark.parametrize("strike", [full, read_only], ids=["full", "read only"])
def test_a_disk_that_takes_no_more_features(strike: Callable[[str], None], tmp_path: Path, tally: Counter[str]):
    slides = work.write_slides(tmp_path / "slides", 2)
    begin = partial(work.extracted, slides)
    count = told_and_resumed(begin, slides_said, work.contents, tmp_path, strike, 30)
    tally["steps at which the disk failed"] += count


def test_checkpoints_that_rot(tmp_path: Path, tally: Counter[str]):
    """Bits flip, bytes are lost, a file becomes another: the one before steps in or all starts anew, and it says so."""
    whole = tmp_path / "whole"
    done(lambda: work.must_finish(work.sweep(whole, 1)))
    wanted = work.contents(whole)
    half = tmp_path / "half"
    steps = steps_of(lambda: work.sweep(tmp_path / "count", 1), tmp_path)
    unit = half / "arm" / "fold0-seed1"
    for step in range(steps):
        shutil.rmtree(half, ignore_errors=True)
        killed_at(partial(work.sweep, half, 1), tmp_path, step)
        if (unit / PREVIOUS).is_file() and (unit / CHECKPOINT).is_file():
            break
    pick = random.Random(5)
    for case in range(36):
        folder = tmp_path / f"case{case}"
        shutil.copytree(half, folder)
        rotten = [CHECKPOINT] if case % 3 else [CHECKPOINT, PREVIOUS]
        for name in rotten:
            path = folder / "arm" / "fold0-seed1" / name
            path.write_bytes(spoilt(path.read_bytes(), case // 3, pick))
        work.must_finish(work.sweep(folder, 1))
        assert work.contents(folder) == wanted, f"case {case}"
        log = (folder / "arm" / "fold0-seed1" / "log.txt").read_text()
        if "damaged or unsafe" in log:
            tally["rotten checkpoints, said"] += 1
            assert ("starts anew" in log) == (len(rotten) == 2 and log.count("falling back") == 2)
        else:
            tally["rotten checkpoints, the rot in no weight"] += 1
    assert tally["rotten checkpoints, said"] > 24


def test_results_that_rot_or_vanish(tmp_path: Path, tally: Counter[str]):
    """A finished unit that lost a result is run again, killed or not, and ends with what was there before."""
    whole = tmp_path / "whole"
    done(lambda: work.must_finish(work.sweep(whole, 2)))
    wanted = work.contents(whole)
    pick = random.Random(7)

    def damaged(folder: Path, case: int) -> None:
        shutil.copytree(whole, folder)
        path = folder / "arm" / "fold0-seed1" / "weights.csv"
        path.unlink() if case % 5 == 4 else path.write_bytes(spoilt(path.read_bytes(), case % 5, pick))
        assert fault(path.parent) is not None

    for case in range(20):
        folder = tmp_path / f"case{case}"
        damaged(folder, case)
        again = work.sweep(folder, 2)
        assert [outcome.repeated for outcome in again] == [True, False], f"case {case}"
        work.must_finish(again)
        assert work.contents(folder) == wanted, f"case {case}"
        tally["results lost or rotten, made again"] += 1
    damaged(tmp_path / "count", 4)
    steps = steps_of(partial(work.sweep, tmp_path / "count", 2), tmp_path)
    for step in chosen(steps, 15, seed=9):
        folder = tmp_path / f"killed{step}"
        damaged(folder, step)
        assert killed_at(partial(work.sweep, folder, 2), tmp_path, step)
        done(lambda folder=folder: work.must_finish(work.sweep(folder, 2)))
        assert work.contents(folder) == wanted, f"step {step} of {steps}"
        tally["kills survived, at a step"] += 1


def spoilt(content: bytes, how: int, pick: random.Random) -> bytes:
    """A file as a failing disk gives it back."""
    at = pick.randrange(len(content))
    if how % 4 == 0:
        return content[:at]
    if how % 4 == 1:
        return content[:at] + bytes([content[at] ^ (1 << pick.randrange(8))]) + content[at + 1 :]
    if how % 4 == 2:
        return content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :]
    return pick.randbytes(len(content))


def test_data_that_vanish_while_units_run(tmp_path: Path, tally: Counter[str]):
    config = work.write_study(tmp_path)
    done(lambda: work.must_finish(work.study(tmp_path / "whole", config)))  # elsewhere: this process keeps no table
    wanted = work.contents(tmp_path / "whole")
    steps = steps_of(lambda: work.study(tmp_path / "count", config), tmp_path)
    for step in chosen(steps, 4, seed=2):
        folder = tmp_path / f"gone{step}"
        assert killed_at(lambda folder=folder: work.study(folder, config), tmp_path, step)
        for name in ("table.csv", "sets.gmt"):
            shutil.move(tmp_path / name, tmp_path / f"{name}.away")

            def without(folder: Path = folder, name: str = name) -> None:
                (outcome,) = work.study(folder, config)
                assert outcome.error is not None
                assert name in outcome.error
                assert "no such file" in outcome.error

            done(without)
            shutil.move(tmp_path / f"{name}.away", tmp_path / name)
            tally["data files gone, and back again"] += 1
        done(lambda folder=folder: work.must_finish(work.study(folder, config)))
        assert work.contents(folder) == wanted


def test_two_runs_in_one_folder(tmp_path: Path, tally: Counter[str]):
    whole = tmp_path / "whole"
    done(lambda: work.must_finish(work.sweep(whole, 6)))
    for attempt in range(4):
        folder = tmp_path / f"both{attempt}"

        def one(folder: Path = folder) -> None:
            try:
                work.must_finish(work.sweep(folder, 6))
            except RunError as refusal:
                if "is writing this run; wait for it" not in str(refusal):
                    raise

        assert [ended(child) for child in [forked(one), forked(one)]] == [0, 0]
        assert work.contents(folder) == work.contents(whole)
        tally["pairs of runs in one folder"] += 1


def test_two_runs_of_features_and_two_savers_of_an_index(tmp_path: Path, tally: Counter[str]):
    slides = work.write_slides(tmp_path / "slides")
    done(partial(work.extracted, slides, tmp_path / "alone"))
    for attempt in range(3):
        folder = tmp_path / f"features{attempt}"
        begin = partial(work.extracted, slides, folder)
        assert [ended(child) for child in [forked(begin), forked(begin)]] == [0, 0]
        assert work.contents(folder) == work.contents(tmp_path / "alone")
        assert len((folder / "journal.jsonl").read_text().splitlines()) == 3, "no slide is done twice"
        idx = tmp_path / f"idx{attempt}"

        def save(idx: Path = idx) -> None:
            try:
                work.indexed(idx, 2)
            except RunError as refusal:
                if "another process is writing this index; wait for it" not in str(refusal):
                    raise

        assert [ended(child) for child in [forked(save), forked(save)]] == [0, 0]
        assert index_folder.verify(idx) == []
        tally["pairs of runs in one folder"] += 2
