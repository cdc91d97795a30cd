"""Run folders and units of work: nothing is lost, nothing is done twice, and every refusal says what to do."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from tasks.experiment import folder as folder_module
from tasks.experiment.folder import RunError, RunFolder, differences, fingerprint, write_whole
from tasks.experiment.order import EpochOrder, balancing_weights
from tasks.experiment.units import Unit, run_unit, run_units


def square(folder: Path, value: float) -> dict[str, float]:
    with open(folder / "calls.txt", "a") as file:
        file.write("x")
    if value < 0:
        raise ValueError(f"value {value}: must not be negative")
    return {"square": value * value}


def fall(folder: Path, dead: bool) -> None:
    if dead:
        os.kill(os.getpid(), 9)


def units(tmp_path: Path, values: list[float]) -> list[Unit]:
    return [Unit(tmp_path / f"u{i}", square, {"value": value}) for i, value in enumerate(values)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_units_write_their_facts_and_are_not_repeated(tmp_path: Path, jobs: int):
    outcomes = list(run_units(units(tmp_path, [2, 3]), jobs=jobs))
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert json.loads((tmp_path / "u1" / "done.json").read_text())["square"] == 9
    again = list(run_units(units(tmp_path, [2, 3]), jobs=jobs))
    assert not any(outcome.repeated for outcome in again)
    assert (tmp_path / "u0" / "calls.txt").read_text() == "x"


def test_other_arguments_make_a_unit_undone(tmp_path: Path):
    list(run_units(units(tmp_path, [2])))
    list(run_units(units(tmp_path, [5])))
    assert json.loads((tmp_path / "u0" / "done.json").read_text())["square"] == 25


def test_one_bad_unit_does_not_end_the_others(tmp_path: Path):
    outcomes = {outcome.folder.name: outcome for outcome in run_units(units(tmp_path, [1, -1, 2]))}
    assert outcomes["u1"].error == "value -1: must not be negative"
    assert "Traceback" in (tmp_path / "u1" / "error.txt").read_text()
    assert not (tmp_path / "u1" / "done.json").exists()
    assert outcomes["u2"].error is None
    mended = run_unit(Unit(tmp_path / "u1", square, {"value": 1}))
    assert mended.error is None
    assert not (tmp_path / "u1" / "error.txt").exists()


def speechless(folder: Path, kind: str) -> None:
    raise {"value": ValueError, "memory": MemoryError, "other": OSError}[kind]()


def test_an_error_without_words_still_ends_its_unit_in_one_line(tmp_path: Path):
    kinds = ("value", "memory", "other")
    said = [run_unit(Unit(tmp_path / kind, speechless, {"kind": kind})).error for kind in kinds]
    assert said[0] == "ValueError: without a word"
    assert said[1] == "out of memory (no more is to be had); ask for less at once, or for fewer --jobs"
    assert said[2] == "OSError: without a word"


def test_a_unit_that_kills_its_process_does_not_end_the_others(tmp_path: Path):
    doomed = [Unit(tmp_path / f"u{i}", fall, {"dead": i == 1}) for i in range(4)]
    outcomes = {outcome.folder.name: outcome.error for outcome in run_units(doomed, jobs=2)}
    assert outcomes.pop("u1") == "its process died (a crash in native code, or out of memory)"
    assert outcomes == {"u0": None, "u2": None, "u3": None}


def test_a_cut_off_done_file_counts_as_undone(tmp_path: Path):
    unit = units(tmp_path, [2])[0]
    run_unit(unit)
    (unit.folder / "done.json").write_text('{"fingerpr')
    assert not unit.done


@pytest.mark.cluster
def test_units_survive_a_killed_worker(tmp_path: Path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", protocol="tcp") as cluster:
        doomed = next(iter(cluster.workers.values()))
        outcomes = run_units(units(tmp_path, [float(i) for i in range(6)]), engine=cluster.scheduler_address)
        first = next(outcomes)
        os.kill(doomed.pid, 9)
        rest = list(outcomes)
    assert [outcome.error for outcome in [first, *rest]] == [None] * 6


def test_an_engine_nobody_answers_at_is_named():
    with pytest.raises(RunError, match=r"--engine tcp://127\.0\.0\.1:9: no Dask scheduler answers there"):
        list(run_units([], engine="tcp://127.0.0.1:9"))


def test_a_run_folder_refuses_what_would_mix_runs(tmp_path: Path):
    run = RunFolder(tmp_path / "run")
    run.create({"model": {"width": 8}}, ["survival", "train"], resume=False)
    with pytest.raises(RunError, match=r"holds a run already; continue it with --resume or give another name=NAME"):
        run.create({"model": {"width": 8}}, [], resume=False)
    with pytest.raises(
        RunError, match=r"made with another config \(model\.width was 8, now 9\); give another name=NAME"
    ):
        run.create({"model": {"width": 9}}, [], resume=True)
    run.create({"model": {"width": 8}}, [], resume=True)
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["command"] == ["survival", "train"], "the first command stays on record"
    assert set(environment["versions"]) >= {"torch", "lightning", "numpy"}


def test_what_is_not_a_run_is_named_with_its_neighbours(tmp_path: Path):
    RunFolder(tmp_path / "cmta").create({}, [], resume=False)
    with pytest.raises(RunError, match=r"cmtaa: not a run folder \(no config\.yaml\); beside it are cmta"):
        RunFolder.open(tmp_path / "cmtaa")


def _hold(path: Path, held: object, release: object) -> None:
    with RunFolder(path).locked():
        held.set()  # type: ignore[attr-defined]
        release.wait(30)  # type: ignore[attr-defined]


def test_two_processes_cannot_write_one_run_and_a_dead_one_leaves_no_lock(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, held, release))
    other.start()
    assert held.wait(60)
    with pytest.raises(RunError, match=rf"process {other.pid} is writing this run"), RunFolder(tmp_path).locked():
        pass
    other.kill()
    other.join()
    with RunFolder(tmp_path).locked():
        pass


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "done.json"
    write_whole(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder_module.os, "fsync", full)
    with pytest.raises(RunError, match=r"done\.json: the disk is full; free some space and repeat with --resume"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["done.json"]


def test_fingerprints_and_differences_see_every_change():
    a, b = {"x": {"y": 1}, "z": 1}, {"x": {"y": 2}, "w": 3}
    assert fingerprint(a) != fingerprint(b)
    assert fingerprint({"p": 1, "q": 2}) == fingerprint({"q": 2, "p": 1})
    assert list(differences(a, b)) == [("x.y", 1, 2), ("z", 1, None), ("w", None, 3)]


def test_an_epochs_order_depends_on_seed_and_epoch_alone():
    order, other = EpochOrder(50, seed=1), EpochOrder(50, seed=2)
    first = list(order)
    order.set_epoch(1)
    second = list(order)
    order.set_epoch(0)
    assert list(order) == first
    assert first != second
    assert first != list(other)
    assert sorted(second) == list(range(50))


def test_balanced_drawing_evens_out_classes():
    classes = ["rare"] * 10 + ["common"] * 990
    drawn = [classes[i] for i in EpochOrder(1000, seed=0, weights=balancing_weights(classes))]
    assert 400 < drawn.count("rare") < 600
