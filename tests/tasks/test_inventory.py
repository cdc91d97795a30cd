"""What a finished unit left is vouched for: a file that is lost or damaged is named, and its unit is run again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.experiment.folder import RunError
from tasks.experiment.inventory import fault, is_whole, must_be_whole, write_done
from tasks.experiment.state import described, read_table, table, unit_tables
from tasks.experiment.task import run_all
from tasks.experiment.units import Unit, run_unit

HEADER = "case,value\n"


def work(folder: Path, value: float) -> dict[str, Any]:
    """A unit that goes on from what it finds, as those with checkpoints do."""
    table_, part = folder / "table.csv", folder / "inner" / "part.bin"
    part.parent.mkdir(exist_ok=True)
    (folder / "log-0").mkdir(exist_ok=True)
    (folder / "log-0" / "metrics.csv").write_text("1")
    if not part.exists():
        part.write_bytes(bytes(range(100)))
        table_.write_text(f"{HEADER}a,{value}\n")
    return {"value": value}


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    (tmp_path / "config.yaml").write_text("name: a")
    made = Unit(tmp_path / "a" / "fold0-seed1", work, {"value": 2.0})
    assert run_unit(made).error is None
    return made


def lost(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = {
    "lost": (lost, "missing, although its unit had finished"),
    "cut": (cut, "damaged, 99 bytes where 100 were written|damaged, 16 bytes where 17 were written"),
    "flipped": (flipped, "damaged, its content is not what was written"),
}
FILES = ("table.csv", "inner/part.bin")


def test_results_are_listed_and_what_tells_of_an_attempt_is_not(unit: Unit):
    said = json.loads((unit.folder / "done.json").read_text())
    assert sorted(said["files"]) == ["inner/part.bin", "table.csv"]
    assert said["files"]["inner/part.bin"]["bytes"] == 100
    assert said["value"] == 2.0
    assert unit.done


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_unit_that_lost_a_file_says_so_and_is_run_again(
    damage: str, name: str, unit: Unit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = unit.folder / name
    before = {file: (unit.folder / file).read_bytes() for file in FILES}
    spoil, words = DAMAGES[damage]
    spoil(path)
    assert not unit.done
    assert not is_whole(unit.folder)
    found = described(tmp_path)
    assert found["done"] == []
    (failure,) = found["failures"]
    assert failure.unit == "a/fold0-seed1"
    assert re.fullmatch(rf"{re.escape(str(path))}: ({words}).*; repeat the run with --resume", failure.reason)
    assert capsys.readouterr().err == f"{failure.reason}\n", "said once"
    assert described(tmp_path)["failures"] == [failure]
    with pytest.raises(RunError, match="repeat the run with --resume"):
        must_be_whole(unit.folder)
    assert run_all([unit], tmp_path, 1, None) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"{path}: ")
    assert told[0].endswith("; a/fold0-seed1 is run again")
    assert "done before" not in told[-1]
    assert {file: (unit.folder / file).read_bytes() for file in FILES} == before, "nothing old stood in its way"
    assert unit.done
    must_be_whole(unit.folder)


def test_files_that_came_later_and_logs_are_no_damage(unit: Unit):
    (unit.folder / "picture.svg").write_text("<svg/>")
    (unit.folder / "log.txt").write_text("more")
    (unit.folder / "log-0" / "metrics.csv").unlink()
    assert fault(unit.folder) is None
    assert unit.done


def test_a_unit_of_an_earlier_version_stays_done(unit: Unit, tmp_path: Path):
    path = unit.folder / "done.json"
    said = json.loads(path.read_text())
    del said["files"]
    path.write_text(json.dumps(said))
    assert unit.done
    (unit.folder / "table.csv").write_text("{")
    assert described(tmp_path)["done"] == ["a/fold0-seed1"]


@pytest.mark.parametrize(
    "files", [3, ["table.csv"], {"table.csv": 3}, {"../../config.yaml": {"bytes": 1, "sha256": ""}}, {"/x": {}}]
)
def test_a_damaged_list_is_named_and_leads_nowhere(files: Any, unit: Unit, tmp_path: Path):
    path = unit.folder / "done.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": files}))
    assert fault(unit.folder) == f"{path}: damaged, it does not say what its unit left"
    assert run_unit(unit).repeated
    assert unit.done
    assert (tmp_path / "config.yaml").is_file()


def test_a_cut_off_done_file_is_named(unit: Unit, tmp_path: Path):
    (unit.folder / "done.json").write_text('{"fingerpr')
    assert unit.damage is not None
    assert described(tmp_path)["failures"][0].reason.startswith(f"{unit.folder / 'done.json'}: damaged, ")


def test_other_arguments_are_no_damage(unit: Unit):
    lost(unit.folder / "table.csv")
    assert unit.damage is not None
    assert Unit(unit.folder, work, {"value": 3.0}).damage is None


def test_a_unit_that_begins_again_and_fails_is_not_finished(unit: Unit, tmp_path: Path):
    lost(unit.folder / "table.csv")
    (unit.folder / "inner" / "part.bin").unlink()
    a_folder(unit.folder / "log.txt")
    assert run_unit(unit).error is not None
    assert described(tmp_path)["done"] == []


def test_an_unfinished_unit_is_not_damaged(tmp_path: Path):
    assert fault(tmp_path) is None
    assert not is_whole(tmp_path)
    must_be_whole(tmp_path)


BAD_TABLES: dict[str, tuple[bytes, str]] = {
    "brace": (b"{", r"has no column 'case', it begins with \{"),
    "empty": (b"", r"cannot be read as a table \(No columns to parse from file\)"),
    "not text": (b"case,value\n\xff\xfe,1\n", r"cannot be read as a table \('utf-8' codec can't decode"),
    "other columns": (b"a,b\n1,2\n", "has no column 'case', it begins with a, b"),
    "too many cells": (b"case,value\na,1\nb,1,2,3\n", "cannot be read as a table"),
}


@pytest.mark.parametrize("bad", BAD_TABLES)
@pytest.mark.parametrize(
    ("read", "remedy"),
    [
        (lambda path: unit_tables(path.parents[2], path.name, ["case", "value"]), "remove .*fold0-seed1 and repeat"),
        (lambda path: table(path, ["case"]), "remove it and measure the run again with `evaluate`"),
        (lambda path: read_table(path, ["case"], "remedy"), "remedy"),
    ],
)
def test_a_damaged_table_is_named(bad: str, read: Callable[[Path], object], remedy: str, tmp_path: Path):
    folder = tmp_path / "a" / "fold0-seed1"
    folder.mkdir(parents=True)
    (folder / "table.csv").write_bytes(BAD_TABLES[bad][0])
    (folder / "done.json").write_text("{}")
    with pytest.raises(RunError, match=rf"{re.escape(str(folder / 'table.csv'))}: {BAD_TABLES[bad][1]}.*; {remedy}"):
        read(folder / "table.csv")


def test_tables_of_units_that_lost_them_are_left_out(unit: Unit, tmp_path: Path):
    other = tmp_path / "b" / "fold0-seed1"
    other.mkdir(parents=True)
    (other / "table.csv").write_text(f"{HEADER}a,1\n")
    write_done(other, {})
    assert list(unit_tables(tmp_path, "table.csv", ["case"])["arm"]) == ["a", "b"]
    cut(unit.folder / "table.csv")
    assert list(unit_tables(tmp_path, "table.csv", ["case"])["arm"]) == ["b"]
