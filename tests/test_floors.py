"""ARCHITECTURE.md agrees with the code: rooms, floors and imports of its table, and every file it names."""

from __future__ import annotations

import ast
import itertools
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
ROWS = re.findall(r"^\| (\d+) \| `(\w+)` \| ([^|]+) \|", PAGE, re.MULTILINE)
FLOOR = {room: int(floor) for floor, room, _ in ROWS}
IMPORTS = {room: set(re.findall(r"`(\w+)`", imported)) for _, room, imported in ROWS}


def imports_of(source: str) -> set[str]:
    """Top-level packages named by the import statements of a module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def breaks_floor(room: str, other: str) -> bool:
    return other in FLOOR and other != room and (FLOOR[other] >= FLOOR[room] or {room, other} == {"data", "fusion"})


def test_the_table_has_every_room_that_is_installed():
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert set(FLOOR) == {name.rstrip("*") for name in found} - {"configs"}, "configs holds no code"
    assert not [path for path in (ROOT / "configs").rglob("*.py") if path.read_text().count("import")]


@pytest.mark.parametrize("room", FLOOR)
def test_a_room_imports_what_the_table_says_and_that_points_down(room: str):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files, f"{room} has no modules"
    graph = {file.relative_to(ROOT): (imports_of(file.read_text()) & set(FLOOR)) - {room} for file in files}
    wrong = [f"{file} imports {name}" for file, names in graph.items() for name in names if breaks_floor(room, name)]
    assert not wrong, wrong
    assert set().union(*graph.values()) == IMPORTS[room]


def test_the_check_sees_an_upward_import():
    assert breaks_floor("kernels", "fusion")
    assert breaks_floor("data", "fusion")
    assert breaks_floor("fusion", "data")
    assert not breaks_floor("tasks", "data")
    assert imports_of("def f():\n    from tasks.survival import cli\n") == {"tasks"}


def expanded(path: str) -> list[str]:
    """`a/{b,c}.py` as `a/b.py` and `a/c.py`."""
    parts = [part.split(",") for part in re.split(r"\{([^}]*)\}", path)]
    return ["".join(chosen) for chosen in itertools.product(*parts)]


NAMED = sorted(
    {
        path
        for path in re.findall(r"`([\w./{},*-]+/[\w./{},*-]*)`", PAGE)
        if path.split("/")[0] in (*FLOOR, "docs", "tests", "configs", "examples")
    }
)


@pytest.mark.parametrize("path", NAMED)
def test_every_file_it_names_is_there(path: str):
    for one in expanded(path):
        assert list(ROOT.glob(one.rstrip("/"))) or list(ROOT.glob(f"{one}.py")), one


def test_files_are_named():
    assert len(NAMED) > 20


@pytest.mark.parametrize("room", FLOOR)
def test_no_module_is_two_ideas_long(room: str):
    long = {
        str(f.relative_to(ROOT)): n for f in (ROOT / room).rglob("*.py") if (n := len(f.read_text().splitlines())) > 400
    }
    assert not long, long
