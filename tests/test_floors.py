"""An import only ever points down: the rooms' floors of ARCHITECTURE.md, checked on the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOOR = {"kernels": 1, "data": 1, "fusion": 2, "encoders": 3, "tasks": 4}


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


@pytest.mark.parametrize("room", FLOOR)
def test_imports_point_down(room: str):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files, f"{room} has no modules"
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in imports_of(file.read_text())
        if breaks_floor(room, name)
    ]
    assert not wrong, wrong


def test_the_check_sees_an_upward_import():
    assert breaks_floor("kernels", "fusion")
    assert breaks_floor("data", "fusion")
    assert breaks_floor("fusion", "data")
    assert not breaks_floor("tasks", "data")
    assert imports_of("def f():\n    from tasks.survival import cli\n") == {"tasks"}


@pytest.mark.parametrize("room", FLOOR)
def test_no_module_is_two_ideas_long(room: str):
    long = {
        str(f.relative_to(ROOT)): n for f in (ROOT / room).rglob("*.py") if (n := len(f.read_text().splitlines())) > 400
    }
    assert not long, long
