"""Files that a command will write: what cannot be written is refused by name, and looking leaves nothing behind."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from tasks.experiment.folder import RunError, write_whole
from tasks.experiment.outputs import check_output


@pytest.mark.parametrize("name", ["new.csv", "old.csv", "missing/folders/new.csv"])
def test_what_can_be_written_is_left_as_it_is(name: str, tmp_path: Path):
    (tmp_path / "old.csv").write_text("old")
    check_output(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]
    assert (tmp_path / "old.csv").read_text() == "old"
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    write_whole(tmp_path / name, "new")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", r"\.: a folder, and a file is wanted; give the name of a file, such as NAME$"),
        ("folder", "folder: a folder, and a file is wanted; give the name of a file, such as folder/NAME$"),
        ("file/x.html", r"file/x\.html: file is a file, so no folder of that name can hold it; give another path"),
        ("/dev/null", "/dev/null: no ordinary file, and one is wanted"),
        ("/dev/null/x.html", r"/dev/null/x\.html: /dev/null is a file, so no folder"),
        ("N" * 300, r"N{300}: cannot be written \(File name too long\); give another path"),
        ("N" * 250, r"N{250}: cannot be written \(File name too long\); give another path"),
        ("/proc/new", r"/proc/new: cannot be written \(.*\); give another path"),
    ],
)
def test_what_cannot_be_written_is_refused_by_name(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").touch()
    with pytest.raises(RunError, match=message):
        check_output(Path(name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("survival", ["predict", "nowhere", "table=new.csv", "-o", "."]),
        ("retrieval", ["search", "nowhere", "a query", "--report", "."]),
        ("melody", ["generate", "nowhere", "-o", "."]),
    ],
)
def test_commands_refuse_a_folder_for_a_file_before_they_read_anything(
    command: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", [command, *arguments])
    with pytest.raises(SystemExit) as end:
        import_module(f"tasks.{command}.cli").main()
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"{command}: .: a folder, and a file is wanted")
